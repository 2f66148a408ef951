package suppress

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

// replies are what hard bounces say; %s is the address, %d the id of the session.
func replies() []string {
	return []string{
		"550 5.1.1 <%[1]s>: Recipient address rejected: User unknown in virtual mailbox table",
		"550-5.1.1 The email account that you tried to reach does not exist. 550 5.1.1 https://support.google.com/mail/?p=NoSuchUser %[2]dsi12345plg.9 - gsmtp",
		"553 5.7.1 Invalid user (%[1]s) [%[2]d]",
		"550 5.5.0 Requested action not taken: mailbox unavailable (S%[2]d) [SG1PEPF000082E2.apcprd02.prod.outlook.com]",
		"",
	}
}

// many writes n different addresses, with reasons and replies, as CSV.
func many(n int) (text []byte, length float64) {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString("email,stream,reason,source,time,detail\n")
	seen, total := map[string]bool{}, 0
	for i := 0; len(seen) < n; i++ {
		a := person(r, i)
		if seen[a] {
			continue
		}
		seen[a] = true
		total += len(a)
		reply := replies()[r.IntN(5)]
		if strings.Contains(reply, "%") {
			reply = strings.ReplaceAll(strings.ReplaceAll(reply, "%[1]s", a), "%[2]d", strconv.Itoa(r.Int()))
		}
		at := time.Unix(1_700_000_000+int64(r.IntN(90_000_000)), 0).UTC().Format(time.RFC3339)
		fmt.Fprintf(&b, "%s,%s,%s,verdict,%s,\"%s\"\n", a, []string{"all", "all", "ad"}[r.IntN(3)], []string{"no such user", "mailbox gone"}[r.IntN(2)], at, reply)
	}
	return b.Bytes(), float64(total) / float64(n)
}

func usedMemory(t testing.TB, l *List) float64 {
	t.Helper()
	info, err := l.rdb.Info(context.Background(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "used_memory:")
	v, _, _ := strings.Cut(rest, "\r")
	n, err := strconv.ParseFloat(v, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A hundred thousand addresses: a sixth of the fields in each hash of a million, so more
// bytes each.
func TestManyEntries(t *testing.T) {
	t.Parallel()
	testMany(t, 100_000, 72)
}

// testMany fills a real Redis with its default settings, and wants at most so many
// bytes an address, with reason, time and the relay's reply. It logs what it took.
func testMany(t *testing.T, n int, most float64) {
	if testing.Short() {
		t.Skipf("%d addresses", n)
	}
	l := open(t, redistest.Start(t).Addr())
	text, length := many(n)
	before, start := usedMemory(t, l), time.Now()
	sum, err := l.Import(t.Context(), bytes.NewReader(text), Input{Name: "many.csv"})
	took := time.Since(start)
	if err != nil || sum != (Imported{Rows: n, Added: n}) {
		t.Fatalf("%+v, %v", sum, err)
	}
	each := (usedMemory(t, l) - before) / float64(n)
	t.Logf("%d addresses of %.1f characters: %.1f bytes each in Redis", n, length, each)
	t.Logf("import %.1f s", took.Seconds())
	if each > most {
		t.Errorf("%.1f bytes an address, want at most %.0f", each, most)
	}
	if texts, err := l.rdb.HLen(t.Context(), l.textsKey()).Result(); err != nil || texts > 20 {
		t.Errorf("%d texts, %v: ids were taken for text", texts, err)
	}
	for _, o := range []Output{{}, {JSON: true}} {
		start = time.Now()
		written, err := l.Export(t.Context(), io.Discard, o)
		if err != nil || written != n {
			t.Errorf("exported %d, %v", written, err)
		}
		t.Logf("export (JSON %v) %.1f s", o.JSON, time.Since(start).Seconds())
	}
	start = time.Now()
	sum, err = l.Import(t.Context(), bytes.NewReader(text), Input{Name: "many.csv"})
	if err != nil || sum.Known != n {
		t.Errorf("again: %+v, %v", sum, err)
	}
	t.Logf("import again %.1f s", time.Since(start).Seconds())
	r := rand.New(rand.NewPCG(3, 4))
	ask := make([]mail.Address, batchSize)
	start = time.Now()
	for range 200 {
		for i := range ask {
			ask[i] = address(t, "x"+person(r, r.IntN(1<<20)))
		}
		if _, err := l.Check(t.Context(), mail.Ad, ask); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("check %.0f addresses/s, one block after the other", 200*batchSize/time.Since(start).Seconds())
	key := l.bucket(5)
	if enc, err := l.rdb.ObjectEncoding(t.Context(), key).Result(); err != nil || enc != "listpack" && enc != "ziplist" {
		t.Errorf("%s is a %s, %v", key, enc, err)
	}
}
