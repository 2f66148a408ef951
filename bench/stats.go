package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// series are the values of one figure over the runs.
type series []float64

func (s series) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(s))
	mid := len(v) / 2
	if len(v)%2 == 1 {
		return v[mid]
	}
	return (v[mid-1] + v[mid]) / 2
}

// over divides run by run: what the machine did meanwhile fell on both.
func (s series) over(base series) series {
	out := make(series, min(len(s), len(base)))
	for i := range out {
		out[i] = s[i] / base[i]
	}
	return out
}

// show prints median and range with the given number of decimals.
func (s series) show(decimals int) string {
	if len(s) == 0 {
		return "–"
	}
	if len(s) == 1 {
		return number(s[0], decimals)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median(), decimals), number(slices.Min(s), decimals), number(slices.Max(s), decimals))
}

// number prints v with thousands separated by commas.
func number(v float64, decimals int) string {
	text := fmt.Sprintf("%.*f", decimals, v)
	whole, rest, _ := strings.Cut(text, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return sign + whole
}

// table prints a Markdown table: the first column to the left, the others to the
// right.
func (b *bench) table(head []string, rows [][]string) {
	b.printf("| %s |\n|---%s|\n", strings.Join(head, " | "), strings.Repeat("|---:", len(head)-1))
	for _, r := range rows {
		b.printf("| %s |\n", strings.Join(r, " | "))
	}
}
