package throttle

// windows is how many lengths of windows are told apart.
const windows = 5

// spans are the lengths, in µs, over which a relay may be counting.
func spans() [windows]int64 {
	return [windows]int64{second, 10 * second, 60 * second, 600 * second, 3600 * second}
}

// sums is one number of messages for each of spans.
type sums [windows]float64

// history is how many messages passed when, for sums over each of spans: the
// longer ago, the coarser.
type history struct {
	Ticks   bins `json:"ticks"`
	Seconds bins `json:"seconds"`
	Halves  bins `json:"halves"` // half minutes
}

// mostBins bounds the longest of them.
const mostBins = 122

func (h *history) add(at int64, n float64) {
	h.Ticks.add(at/tick, n, int(3*second/tick))
	h.Seconds.add(at/second, n, 62)
	h.Halves.add(at/(30*second), n, mostBins)
}

// last sums the span before now, which is the end of a tick.
func (h *history) last(now, span int64) float64 {
	switch {
	case span < 3*second:
		return h.Ticks.after(now-span, tick)
	case span <= 61*second:
		return h.Seconds.after(now-span, second)
	}
	return h.Halves.after(now-span, 30*second)
}

// bins are counts in stretches of time of one length, oldest first.
type bins struct {
	Newest int64     `json:"newest"` // number of the last since 1970
	N      []float64 `json:"n"`
}

// add counts n in the bin of that number and drops what is older than most bins.
// What belongs to an older bin than the newest is counted there: time that ran
// back must not cost the past.
func (b *bins) add(number int64, n float64, most int) {
	switch gone := number - b.Newest; {
	case len(b.N) == 0 || gone >= int64(most):
		b.N, b.Newest = append(b.N[:0], 0), number
	case gone > 0:
		b.N = append(b.N, make([]float64, gone)...)
		b.N = b.N[max(0, len(b.N)-most):]
		b.Newest = number
	}
	b.N[len(b.N)-1] += n
}

// after sums what came after from; of the bin in which that lies, the part after
// it, as if it had come evenly.
func (b *bins) after(from, grain int64) float64 {
	sum := 0.0
	start := b.Newest * grain
	for k := len(b.N) - 1; k >= 0 && start+grain > from; k-- {
		sum += b.N[k] * min(1, float64(start+grain-from)/float64(grain))
		start -= grain
	}
	return sum
}
