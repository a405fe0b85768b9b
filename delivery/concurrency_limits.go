package delivery

import (
	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// flowKey is what shares a limit of concurrent requests: a credential at a push
// service's origin, or an endpoint.
type flowKey struct {
	id     ids.ID
	origin string
}

// flowOf names the flow of a delivery.
func flowOf(it *inflight) flowKey {
	switch it.Channel {
	case channels.Webhook:
		return flowKey{id: it.Target}
	case channels.WebPush:
		return flowKey{id: it.Credential, origin: it.target.origin()}
	}
	return flowKey{id: it.Credential}
}

// limits of concurrent requests.
const (
	flowLimit     = 400 // of one credential and origin
	endpointLimit = 16  // of one endpoint
	urgentShare   = 5   // one part in five of a limit is kept for lane 0
)

// flow is the bulkhead of a flowKey.
type flow struct {
	key      flowKey
	tenant   *tenantQueue // whose it is, while it has work
	max      int
	inFlight int
	waiting  int  // queued in any lane
	served   int  // since the last trim
	slow     int  // most that may queue per lane; 0: no limit of its own
	fresh    bool // began to wait since the last trim
	parked   [LanesCount]bool
	queues   [LanesCount][]*inflight
}

// feedback is how a target took what was sent to it.
type feedback uint8

const (
	feedbackNone feedback = iota // nothing was sent
	feedbackOK
	feedbackCongested // it failed for now, or asked for less
)

func newFlow(key flowKey, k channels.Kind) *flow {
	if k == channels.Webhook {
		return &flow{key: key, max: endpointLimit}
	}
	return &flow{key: key, max: flowLimit}
}

// adapt gives a webhook endpoint that is in trouble fewer requests at once, and
// more again as it recovers.
func (f *flow) adapt(b feedback) {
	switch {
	case b == feedbackCongested:
		f.max = max(f.max/2, 1)
	case b == feedbackOK && f.max < endpointLimit:
		f.max++
	}
}

// limit is how many requests may be under way for one of a lane to begin.
func (f *flow) limit(l Lane) int {
	if l > Urgent {
		return max(f.max-f.max/urgentShare, 1)
	}
	return f.max
}

// idle tells whether it has nothing to do.
func (f *flow) idle() bool { return f.inFlight == 0 && f.waiting == 0 }

// widen is for an endpoint that has had nothing to do for a while.
func (f *flow) widen() { f.max = min(f.max*2, endpointLimit) }
