package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sections = `
redis: {durability: fsync, retention: 7d}
adaptive: {floor: 30/1m}
streams:
  ad:
    messages: [100/1s]
    retry: {first: 5m, most: 6h, attempts: 9, age: 48h}
    canary: {size: 200, wait: 10m}
groups:
  by_mx: true
  naver: {messages: 20/1s}
  google: {messages: [50/1s, 4000/24h]}
  ours: {domains: [example.com, '*.example.com', 'example.*'], mx: mx.example.com}
  nate: {domains: []}
warm_up:
  '*': {start: 1000, ceiling: 500000}
  my-shop.co.kr: {start: 50, factor: 1.25, ceiling: 20000}
breakers: {bounced: 2.5%/1000, unknown: off, group: {blocks: 3/5m, blocks_of: 2/20}}
`

func TestSections(t *testing.T) {
	t.Parallel()
	c := load(t, sections)
	if c.Redis.Durability != Fsync || c.Redis.Retention != 7*24*time.Hour || c.Adaptive != (Adaptive{true, Window{30, time.Minute}}) {
		t.Errorf("redis %+v, adaptive %+v", c.Redis, c.Adaptive)
	}
	ad := c.Streams.Ad
	if d := cmp.Diff(Retry{5 * time.Minute, 6 * time.Hour, 9, 48 * time.Hour}, ad.Retry); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Canary{Size{Count: 200}, 10 * time.Minute}, ad.Canary); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Groups{true, map[string]*Group{
		"naver":  {Messages: []Window{{20, time.Second}}},
		"google": {Messages: []Window{{50, time.Second}, {4000, day}}},
		"ours":   {Domains: []string{"example.com", "*.example.com", "example.*"}, MX: []string{"mx.example.com"}},
		"nate":   {Domains: []string{}},
	}}, c.Groups); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]*Ramp{"*": {1000, 1.5, 500_000}, "my-shop.co.kr": {50, 1.25, 20_000}}, c.WarmUp); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Breakers{Share{2.5, 1000}, Share{2, 500}, Share{}, 200, GroupBreaker{Share{10, 500}, Window{3, 5 * time.Minute}, Tally{2, 20}, time.Hour}}, c.Breakers); d != "" {
		t.Error(d)
	}
	table, err := c.Groups.Table()
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{"naver.com": "naver", "a.example.com": "ours", "nate.com": "", "gmail.com": "google"} {
		if got := table.Group(domain); got != want {
			t.Errorf("%s is in %q, want %q", domain, got, want)
		}
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// Names in the environment: with the file's, over the file's, and alone.
func TestSectionsFromTheEnvironment(t *testing.T) {
	t.Parallel()
	c := load(t, sections,
		"SLUICE_GROUPS_NAVER_MESSAGES=10/1s, 9000/24h", "SLUICE_GROUPS_YAHOO_JP_MESSAGES=5/1s", "SLUICE_GROUPS_BY_MX=true",
		"SLUICE_GROUPS_OURS_DOMAINS=example.org", "SLUICE_GROUPS_KAKAO_DOMAINS=",
		"SLUICE_WARM_UP_MY__SHOP_CO_KR_START=70", "SLUICE_WARM_UP_ALL_CEILING=9000",
		"SLUICE_WARM_UP_NEWS_EXAMPLE_COM_START=5", "SLUICE_WARM_UP_NEWS_EXAMPLE_COM_CEILING=50")
	got := values(c)
	for key, want := range map[string]string{
		"groups.naver.messages": "[10/1s 9000/24h]", "groups.yahoo_jp.messages": "[5/1s]", "groups.ours.domains": "[example.org]",
		"groups.kakao.domains": "[]", "groups.yahoo_jp.domains": "shipped", "warm_up.*.ceiling": "9000", "warm_up.*.start": "1000",
		"warm_up.my-shop.co.kr.start": "70", "warm_up.news.example.com.start": "5", "warm_up.news.example.com.factor": "1.5",
	} {
		if fmt.Sprint(got[key]) != want {
			t.Errorf("%s: %v, want %s", key, got[key], want)
		}
	}
	origins := map[string]string{}
	for _, s := range c.Redacted() {
		origins[s.Key] = s.Origin
	}
	for key, want := range map[string]string{
		"groups.naver.messages": "SLUICE_GROUPS_NAVER_MESSAGES", "groups.google.messages": c.File() + ":12",
		"warm_up.my-shop.co.kr.start": "SLUICE_WARM_UP_MY__SHOP_CO_KR_START", "warm_up.my-shop.co.kr.factor": c.File() + ":17",
		"warm_up.*.factor": "default",
	} {
		if origins[key] != want {
			t.Errorf("origin of %s: %q, want %q", key, origins[key], want)
		}
	}
	for _, k := range c.keys() {
		if strings.HasPrefix(k.path, "warm_up.") {
			name := strings.TrimSuffix(strings.TrimPrefix(k.env(), "SLUICE_WARM_UP_"), k.env()[strings.LastIndexByte(k.env(), '_'):])
			if !strings.HasPrefix(k.path, "warm_up."+decodeDomain(name)+".") {
				t.Errorf("%s is %s, which reads back as %s", k.path, k.env(), decodeDomain(name))
			}
		}
	}
}

func TestSectionsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"prefix, capitals":      {"redis: {prefix: Shop}", []string{`:1: redis.prefix: "Shop": want 1 to 32 characters of a-z, 0-9 and -, and no - at the beginning`}},
		"prefix, empty":         {"redis: {prefix: ''}", []string{`redis.prefix: "": want 1 to 32`}},
		"prefix, too long":      {"redis: {prefix: " + strings.Repeat("a", 33) + "}", []string{"redis.prefix", "want 1 to 32"}},
		"prefix, dash first":    {"redis: {prefix: -a}", []string{`redis.prefix: "-a": want 1 to 32`}},
		"prefix, colon":         {"redis: {prefix: 'a:b'}", []string{`redis.prefix: "a:b": want 1 to 32`}},
		"prefix, brace":         {"redis: {prefix: 'a{b}'}", []string{`redis.prefix: "a{b}": want 1 to 32`}},
		"prefix, pattern":       {"redis: {prefix: 'a*'}", []string{`redis.prefix: "a*": want 1 to 32`}},
		"prefix, letters":       {"redis: {prefix: 가}", []string{`redis.prefix: "가": want 1 to 32`}},
		"durability":            {"redis: {durability: safe}", []string{`redis.durability: "safe": want memory, aof or fsync`}},
		"embedded and durable":  {"redis: {url: embedded, durability: aof}", []string{`:1: redis.durability: "aof": redis.url embedded keeps nothing`}},
		"retention":             {"redis: {retention: 400d}", []string{"want a duration from 1s to 8760h"}},
		"floor":                 {"adaptive: {floor: 300/1s}", []string{`:1: adaptive.floor: "300/1s": is above the limit of 200/1s`}},
		"floor for naught":      {"adaptive: {enabled: false, floor: 2/1s}", []string{"adaptive.floor", "no effect while adaptive.enabled is false"}},
		"floor off":             {"adaptive: {floor: off}", []string{"want COUNT/DURATION"}},
		"cap below reserve":     {"streams: {auth: {messages: 10/1s}}", []string{`streams.auth.messages: "10/1s": is less than its reserve of 20/1s`}},
		"retry backwards":       {"streams: {ad: {retry: {first: 5h}}}", []string{`streams.ad.retry.first: "5h": is longer than streams.ad.retry.most, 4h`}},
		"retry beyond ttl":      {"streams: {auth: {retry: {age: 4m}}}", []string{"streams.auth.retry.age", "expires after 3m"}},
		"retry beyond 72h":      {"streams: {ad: {retry: {age: 4d}}}", []string{"streams.ad.retry.age", "expires after 72h"}},
		"retry key":             {"streams: {ad: {retry: {last: 4d}}}", []string{"streams.ad.retry.last: unknown key; want first, most, attempts or age"}},
		"canary of nothing":     {"streams: {ad: {canary: {size: 0}}}", []string{`streams.ad.canary.size: "0": want a share such as 1%`}},
		"canary above all":      {"streams: {ad: {canary: {size: 101%}}}", []string{"want a share such as 1%"}},
		"canary wait":           {"streams: {auth: {canary: {wait: 5m}}}", []string{"streams.auth.canary.wait", "no effect with canary.size off"}},
		"share":                 {"breakers: {bounced: 5/100}", []string{`breakers.bounced: "5/100": want PERCENT/LAST such as 3%/500`}},
		"share infinite":        {"breakers: {bounced: Inf%/100}", []string{"want PERCENT/LAST"}},
		"share of too many":     {"breakers: {bounced: 5%/5001}", []string{"the last 1 to 5000 results"}},
		"share of all":          {"breakers: {bounced: 100%/500}", []string{"below 100%"}},
		"one reply decides":     {"breakers: {blocked: 0.4%/500}", []string{`breakers.blocked: "0.4%/500": is less than one of the 200 results`}},
		"never judged":          {"breakers: {unknown: 5%/100}", []string{`breakers.unknown: "5%/100": looks at the last 100 results, but breakers.least wants 200`}},
		"tally":                 {"breakers: {group: {blocks_of: 51/50}}", []string{"breakers.group.blocks_of", "want COUNT/LAST"}},
		"group window":          {"breakers: {group: {blocks: 3/50}}", []string{`breakers.group.blocks: "3/50"`, "; or off"}},
		"verdicts":              {"verdicts: {file: nowhere.rules}", []string{"verdicts.file", "nowhere.rules", "no such file"}},
		"verdicts a directory":  {"verdicts: {file: .}", []string{"verdicts.file", "a directory"}},
		"no group":              {"groups: {navr: {messages: 1/1s}}", []string{`:1: groups.navr.messages: "1/1s": navr is no shipped group; did you mean naver?`}},
		"no group, nothing":     {"groups:\n  navr: {}", []string{`:2: groups.navr.messages: "": navr is no shipped group`}},
		"empty group":           {"groups: {naver: {domains: [], messages: 1/1s}}", []string{"groups.naver.messages", "naver has no domain left"}},
		"group name":            {"groups:\n  Naver: {messages: 1/1s}", []string{":2: groups.Naver: want a name of 1 to 32 lower-case letters"}},
		"group called by":       {"groups: {by: {domains: a.example}}", []string{"groups.by: this name is kept"}},
		"group key":             {"groups: {naver: {mesages: 1/1s}}", []string{"groups.naver.mesages: unknown key; did you mean messages?"}},
		"group twice":           {"groups:\n  naver: {}\n  naver: {}", []string{":3: groups.naver: given twice, first on line 2"}},
		"group a value":         {"groups: {naver: 20/1s}", []string{"groups.naver: want a section with the keys domains, mx or messages"}},
		"groups a value":        {"groups: 20/1s", []string{"groups: want a section with the keys by_mx or a group's name"}},
		"group domain":          {"groups: {a: {domains: [Example.COM]}}", []string{`groups.a.domains: "Example.COM": "Example.COM": want a domain in lower case`}},
		"group domain twice":    {"groups: {a: {domains: [a.example, a.example]}}", []string{"given twice"}},
		"group domain nested":   {"groups: {a: {domains: [[a.example]]}}", []string{"groups.a.domains: want domains such as"}},
		"domain in two groups":  {"groups:\n  a: {domains: x.example}\n  b: {domains: x.example}", []string{`:3: groups.b.domains: "x.example": group b: domain "x.example": it is in group a already`}},
		"mx unused":             {"groups: {a: {domains: x.example, mx: mx.example}}", []string{"groups.a.mx", "no effect while groups.by_mx is false"}},
		"ramp without ceiling":  {"warm_up: {example.com: {start: 5}}", []string{`:1: warm_up.example.com.start: 5: without a ceiling`}},
		"ramp of nothing":       {"warm_up:\n  example.com: {}", []string{":2: warm_up.example.com.start: 0: not set"}},
		"ramp downwards":        {"warm_up: {example.com: {start: 5, ceiling: 4}}", []string{"warm_up.example.com.start: 5: is above the ceiling of 4"}},
		"ramp factor":           {"warm_up: {example.com: {start: 5, ceiling: 50, factor: 1}}", []string{`warm_up.example.com.factor: "1": want a number from 1.01 to 10`}},
		"ramp factor, a word":   {"warm_up: {example.com: {start: 5, ceiling: 50, factor: 1e1}}", []string{"want a number"}},
		"ramp domain":           {"warm_up:\n  Example: {start: 5}", []string{":2: warm_up.Example: want a sender domain in lower case"}},
		"ramp of all, unquoted": {"warm_up:\n  *: {start: 5, ceiling: 50}", []string{":2: a name or value begins with * or &: put it in quotes"}},
		"ramps a list":          {"warm_up: [a]", []string{"warm_up: want a section with the keys a sender domain or '*'"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(write(t, tc.text), true, nil)
			var invalid *InvalidError
			if !errors.As(err, &invalid) || len(invalid.Problems) != 1 {
				t.Fatalf("Load of %q: %v, want one problem", tc.text, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Load of %q:\n%v\nwants %q", tc.text, err, want)
				}
			}
		})
	}
	for e, want := range map[string]string{
		"SLUICE_GROUPS_NAVER_MESAGES=1/1s":      "unknown environment variable",
		"SLUICE_GROUPS_NAVR_MESSAGES=1/1s":      `SLUICE_GROUPS_NAVR_MESSAGES: groups.navr.messages: "1/1s": navr is no shipped group`,
		"SLUICE_GROUPS_MESSAGES=1/1s":           "unknown environment variable",
		"SLUICE_GROUPS_9_MESSAGES=1/1s":         `"9": want a name`,
		"SLUICE_WARM_UP_EXAMPLE_START=5":        `"example": want a sender domain`,
		"SLUICE_WARM_UP_EXAMPLE_COM_START=none": `SLUICE_WARM_UP_EXAMPLE_COM_START: warm_up.example.com.start: "none": want a whole number`,
	} {
		if _, err := Load(filepath.Join(t.TempDir(), "none"), false, []string{e}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", e, err, want)
		}
	}
}

// A configuration made by hand is held to the same names and values.
func TestSectionsValidated(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Groups.Named["No Such"] = &Group{Domains: []string{"a.example"}}
	c.WarmUp["*"] = &Ramp{Start: 1, Factor: 0, Ceiling: 2}
	c.Breakers.Bounced = Share{-1, 5}
	c.Breakers.Group.BlocksOf = Tally{9, 5}
	c.Streams.Ad.Canary.Size = Size{Percent: 1, Count: 1}
	err := c.Validate()
	for _, want := range []string{"groups.No Such", "warm_up.*.factor", "breakers.bounced", "breakers.group.blocks_of", "streams.ad.canary.size"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: wants %s", err, want)
		}
	}
}

// Defaults that follow from other keys.
func TestSectionsDerived(t *testing.T) {
	t.Parallel()
	if c := load(t, "redis: {url: embedded}"); c.Redis.Durability != InMemory {
		t.Errorf("embedded: %s", c.Redis.Durability)
	}
	c := load(t, "limits: {messages: [20/1m, 9/24h]}\nstreams: {auth: {reserve: []}}")
	if want := (Window{20, time.Minute}); c.Adaptive.Floor != want {
		t.Errorf("floor %v below a limit of 20/1m", c.Adaptive.Floor)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"sluice.yaml": "verdicts: {file: own.rules}", "own.rules": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(filepath.Join(dir, "sluice.yaml"), true, nil)
	if err != nil || c.Verdicts.File != filepath.Join(dir, "own.rules") {
		t.Errorf("rules beside the configuration: %v", err)
	}
}

func TestCapsThatChangeNothing(t *testing.T) {
	t.Parallel()
	c := load(t, "groups: {naver: {messages: 200/1s}}\nstreams: {ad: {messages: 600000/24h, openings: [60/1m, 100/1h]}, auth: {messages: 199/1s}}")
	want := []string{
		"streams.ad.messages: 600000/24h is no less than the 500000/24h of limits.messages, and changes nothing",
		"streams.ad.openings: 60/1m is no less than the 60/1m of limits.connections.new, and changes nothing",
		"groups.naver.messages: 200/1s is no less than the 200/1s of limits.messages, and changes nothing",
	}
	if d := cmp.Diff(want, c.Warnings()); d != "" {
		t.Error(d)
	}
}

func TestCanaryOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		size     string
		of, want int
	}{
		{"1%", 50, 0}, {"1%", 51, 50}, {"1%", 10_000, 100}, {"1%", 10_001, 101}, {"1%", 1_000_000, 500},
		{"200", 200, 0}, {"200", 201, 200}, {"off", 1_000_000, 0}, {"100%", 400, 0}, {"100%", 4000, 500},
	} {
		c := Canary{}
		if err := (size{&c.Size}).parse([]string{tc.size}); err != nil {
			t.Fatal(err)
		}
		if got := c.Of(tc.of); got != tc.want || c.Size.String() != tc.size {
			t.Errorf("%s of %d: %d, want %d", c.Size, tc.of, got, tc.want)
		}
	}
}
