package simulator

import "math/bits"

// histogram counts milliseconds in buckets that are at most a sixteenth of
// their value wide, up to some 34 years.
type histogram struct {
	count   uint64
	max     int64
	buckets [buckets]uint32
}

const (
	subBits = 4
	sub     = 1 << subBits
	buckets = (40 - subBits + 1) * sub
)

func (h *histogram) add(ms int64) {
	ms = max(ms, 0)
	h.count++
	h.max = max(h.max, ms)
	h.buckets[bucketOf(ms)]++
}

func bucketOf(ms int64) int {
	if ms < sub {
		return int(ms)
	}
	shift := bits.Len64(uint64(ms)) - 1 - subBits
	return min((shift+1)*sub+int(ms>>shift)&(sub-1), buckets-1)
}

// upper is the largest value that falls into a bucket.
func upper(bucket int) int64 {
	if bucket < sub {
		return int64(bucket)
	}
	shift := bucket/sub - 1
	return (int64(sub+bucket%sub)+1)<<shift - 1
}

// quantile is the smallest bucket bound that a share q of the values is within.
func (h *histogram) quantile(q float64) int64 {
	want := uint64(q*float64(h.count) + 0.5)
	seen := uint64(0)
	for b := range h.buckets {
		n := h.buckets[b]
		seen += uint64(n)
		if seen >= max(want, 1) {
			return min(upper(b), h.max)
		}
	}
	return h.max
}

func (h *histogram) merge(o *histogram) {
	h.count += o.count
	h.max = max(h.max, o.max)
	for i := range o.buckets {
		h.buckets[i] += o.buckets[i]
	}
}
