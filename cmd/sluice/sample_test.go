package main

import (
	"encoding/csv"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sluicemail/sluice/internal/mail"
)

func TestSampleList(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1999, 2000, 2001, 50_000} {
		r := csv.NewReader(sampleList(n))
		header, err := r.Read()
		if err != nil || strings.Join(header, ",") != "email,name" {
			t.Fatalf("header %q, %v", header, err)
		}
		seen := make(map[string]bool, n)
		for {
			row, err := r.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := mail.ParseAddress(row[0])
			if err != nil || !strings.HasSuffix(a.Domain(), ".example") || row[1] == "" {
				t.Fatalf("row %q: %v", row, err)
			}
			if seen[a.Key()] {
				t.Fatalf("%s is there twice", row[0])
			}
			seen[a.Key()] = true
		}
		if len(seen) != n {
			t.Errorf("%d rows, want %d", len(seen), n)
		}
	}
}

func TestSampleListReader(t *testing.T) {
	t.Parallel()
	want, err := io.ReadAll(sampleList(4100))
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(sampleList(4100), want); err != nil {
		t.Error(err)
	}
	one, err := io.ReadAll(iotest.OneByteReader(sampleList(4100)))
	if err != nil || string(one) != string(want) {
		t.Errorf("read byte by byte, the list differs: %v", err)
	}
}
