package db

import (
	"time"
)

// linger is how long outcomes wait for company. An accept never waits: its
// caller does.
const linger = 5 * time.Millisecond

// gather adds what waits already. As long as only outcomes are in the batch it
// waits a moment for more, so that they ride along with the next accept instead
// of costing a sync of their own.
func (w *writer) gather(batch []Op) []Op {
	weight, patient := 0, true
	add := func(o Op) {
		batch = append(batch, o)
		weight += max(o.Weight, 1)
		patient = patient && o.Patient
	}
	first := batch[0]
	batch = batch[:0]
	add(first)
	var over <-chan time.Time
	for weight < MaxBatch {
		select {
		case o, ok := <-w.ops:
			if !ok {
				return batch
			}
			add(o)
			continue
		default:
		}
		if !patient {
			return batch
		}
		if over == nil {
			over = time.After(linger)
		}
		select {
		case o, ok := <-w.ops:
			if !ok {
				return batch
			}
			add(o)
		case <-over:
			return batch
		}
	}
	return batch
}
