package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// syllable is one of a Korean name, and how people write it in Latin letters.
type syllable struct{ hangul, latin string }

func syllables(s string) []syllable {
	var out []syllable
	for pair := range strings.FieldsSeq(s) {
		hangul, latin, _ := strings.Cut(pair, ":")
		out = append(out, syllable{hangul, latin})
	}
	return out
}

// people makes up people as a Korean shop's list has them: names with the
// frequencies of the last census, addresses in the manners in which people choose
// them. Nobody of them exists: the domains are reserved (RFC 2606).
type people struct {
	rnd            *rand.Rand
	family         []syllable // each as often as it is common
	first, second  []syllable // of the given name
	words          []string
	companies      []string
	taken          map[string]bool
	familyName     syllable
	given1, given2 syllable
}

func newPeople(seed uint64) *people {
	p := &people{
		rnd:    rand.New(rand.NewPCG(seed, 1)),
		first:  syllables("민:min 서:seo 지:ji 현:hyun 예:ye 하:ha 도:do 수:su 준:jun 은:eun 시:si 주:ju 윤:yun 성:sung 영:young 재:jae 승:seung 정:jung 태:tae 동:dong 상:sang 혜:hye 나:na 다:da 유:yu 소:so 채:chae 건:gun 우:woo 경:kyung 미:mi 진:jin 선:sun 기:ki 종:jong 희:hee 보:bo 가:ga 연:yeon 한:han"),
		second: syllables("준:jun 연:yeon 우:woo 서:seo 민:min 은:eun 현:hyun 윤:yun 아:a 진:jin 원:won 호:ho 영:young 희:hee 수:su 훈:hoon 지:ji 경:kyung 혁:hyuk 빈:bin 나:na 율:yul 린:rin 석:seok 정:jung 미:mi 선:sun 철:chul 규:kyu 식:sik 환:hwan 섭:seop 숙:sook 자:ja 순:soon 람:ram 솔:sol 별:byul 후:hoo 찬:chan"),
		words:  strings.Fields("sky blue happy love star moon angel dream coffee baby green cherry rain snow tiger bear lucky sweet music photo travel cook daddy mom cat puppy king queen cute hello smile good best sun river ocean flower tree sugar apple lemon"),
		taken:  map[string]bool{},
	}
	for i, f := range syllables("김:kim 이:lee 박:park 최:choi 정:jung 강:kang 조:cho 윤:yoon 장:jang 임:lim 한:han 오:oh 서:seo 신:shin 권:kwon 황:hwang 안:ahn 송:song 류:ryu 전:jeon 홍:hong 고:ko 문:moon 양:yang 손:son 배:bae 백:baek 허:heo 유:yoo 남:nam 심:shim 노:noh") {
		for range max(1, 60/(i+2)) {
			p.family = append(p.family, f)
		}
	}
	for range 200 {
		p.companies = append(p.companies, p.word()+p.word()+".co.example")
	}
	return p
}

func (p *people) word() string { return p.words[p.rnd.IntN(len(p.words))] }

// row appends the next person as a CSV row: email,name. No address comes twice.
func (p *people) row(dst []byte) []byte {
	p.familyName = p.family[p.rnd.IntN(len(p.family))]
	p.given1, p.given2 = p.first[p.rnd.IntN(len(p.first))], p.second[p.rnd.IntN(len(p.second))]
	domain := p.domain()
	address := p.local() + "@" + domain
	for p.taken[address] {
		address = p.local() + strconv.Itoa(p.rnd.IntN(10_000)) + "@" + domain
	}
	p.taken[address] = true
	dst = append(dst, address...)
	dst = append(dst, ',')
	dst = append(dst, p.familyName.hangul...)
	dst = append(dst, p.given1.hangul...)
	dst = append(dst, p.given2.hangul...)
	return append(dst, '\n')
}

func (p *people) domain() string {
	switch n := p.rnd.IntN(100); {
	case n < 45:
		return "naver.example"
	case n < 70:
		return "gmail.example"
	case n < 78:
		return "daum.example"
	case n < 84:
		return "hanmail.example"
	case n < 90:
		return "kakao.example"
	case n < 94:
		return "nate.example"
	}
	return p.companies[p.rnd.IntN(len(p.companies))]
}

// local is what stands before the @: name, initials, words, letters and numbers in
// the usual mixtures.
func (p *people) local() string {
	family, given := p.familyName.latin, p.given1.latin+p.given2.latin
	initials := p.given1.latin[:1] + p.given2.latin[:1]
	year := p.rnd.IntN(60) + 50
	day := fmt.Sprintf("%02d%02d", p.rnd.IntN(12)+1, p.rnd.IntN(30)+1)
	switch n := p.rnd.IntN(100); {
	case n < 12:
		return given + "." + family
	case n < 24:
		return given + family + strconv.Itoa(year%100)
	case n < 38:
		return family + initials + day
	case n < 48:
		return initials + family + strconv.Itoa(p.rnd.IntN(1000))
	case n < 60:
		return given + strconv.Itoa(p.rnd.IntN(10_000))
	case n < 68:
		return family + "_" + given
	case n < 82:
		return p.word() + p.word() + strconv.Itoa(p.rnd.IntN(1000))
	case n < 90:
		return p.word() + given + strconv.Itoa(year%100)
	}
	letters := make([]byte, 5+p.rnd.IntN(4))
	for i := range letters {
		letters[i] = byte('a' + p.rnd.IntN(26))
	}
	return string(letters) + strconv.Itoa(p.rnd.IntN(100))
}

// list writes a CSV file of n people and returns its path. The same n gives the
// same file.
func (b *bench) list(n int) (string, error) {
	path := filepath.Join(b.dir, fmt.Sprintf("list-%d.csv", n))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("list: %w", err)
	}
	defer f.Close()
	if err := writeList(f, n); err != nil {
		return "", fmt.Errorf("list: %w", err)
	}
	return path, f.Close()
}

func writeList(w io.Writer, n int) error {
	out := bufio.NewWriterSize(w, 1<<20)
	p := newPeople(uint64(n))
	row := []byte("email,name\n")
	for range n {
		if _, err := out.Write(row); err != nil {
			return err
		}
		row = p.row(row[:0])
	}
	if _, err := out.Write(row); err != nil {
		return err
	}
	return out.Flush()
}
