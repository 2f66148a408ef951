# make help lists the targets. Nothing here does what scripts/ does not.
FUZZTIME ?= 60s

.PHONY: help build test quick race lint fuzz pairing interop faults soak bench demo clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-8s %s\n", $$1, $$2 }'

build: ## bin/sluice
	go build -o bin/sluice ./cmd/sluice

test: ## everything: install what is missing, lint, build, test with the race detector
	./scripts/test

quick: ## the same without the race detector
	./scripts/test -quick

race: ## all tests with the race detector, no lint
	./scripts/test ./...

lint: ## gofmt, go vet, staticcheck, build
	./scripts/test -lint

fuzz: ## every fuzz target for FUZZTIME (default a minute) each
	@set -e; for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$p $$f"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

pairing: ## a million messages over ten connections, none to the wrong recipient
	go test -count=1 -timeout 30m -v -run 'TestPairing$$' ./internal/smtp -messages 1000000

interop: ## against real Postfix, Exim and OpenSMTPD (as root on Debian or Ubuntu)
	./scripts/interop

faults: ## break it in every way of docs/faults.md, and write that page's tables
	./scripts/faults

soak: ## half an hour of random kills; its figures go into docs/faults.md
	./scripts/soak

bench: ## the figures of docs/performance.md, with their baselines
	./scripts/bench

demo: ## a whole campaign, nothing installed, nothing configured
	go run ./cmd/sluice demo

clean: ## take bin/ away
	rm -rf bin
