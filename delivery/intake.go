package delivery

// intake takes leased deliveries into this node's hands: those that were born
// leased, and those that were claimed.
type intake struct {
	inflight *inflightSet
	dispatch *dispatcher
	finisher *finisher
}

// enqueue hands deliveries to the dispatcher; their room was promised: to their tenant,
// or to a claim.
func (i *intake) enqueue(l Lane, items []*inflight, toTenant bool) {
	keys := make([]flowKey, len(items))
	for n, it := range items {
		keys[n] = flowOf(it)
	}
	i.inflight.add(items...)
	for _, it := range i.dispatch.push(l, items, keys, toTenant) {
		i.finisher.crowdOut(it)
	}
}

// finish ends a delivery that need not be queued.
func (i *intake) finish(it *inflight, t Transition) {
	i.inflight.add(it)
	i.finisher.finish(it, Finish{Transition: t})
}
