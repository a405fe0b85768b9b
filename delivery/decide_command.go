package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// What is decided of many rows at once. The store applies the state, the reason
// and the due time; what a row has spent stays, unless it is said here.

// Cancellation ends what a notification that is canceled has pending or held.
func Cancellation() Transition { return cancel(0) }

// Supersession ends what waits when a newer notification with its collapse key is
// accepted.
func Supersession(by ids.ID) Transition { return supersede(by, 0) }

// EraseDelivery ends an unfinished delivery, or a dead letter, of a user who is
// erased.
func EraseDelivery() Transition { return Transition{State: Dropped, Reason: Erased} }

// EndpointDeleted ends what waits for an endpoint that was deleted, as the next look
// at its target would.
func EndpointDeleted() Transition { return Transition{State: Dropped, Reason: Gone} }

// Revival begins a new round of what is sent again, a dead letter or a webhook: nothing
// of it is spent.
func Revival(now time.Time) Transition { return Transition{State: Pending, DueAt: now} }

// Release says where the deliveries of a hold that ends go, and how many of the
// attempts that each has spent it gets back.
func Release(e Ending, now time.Time) (t Transition, refund int) {
	switch e {
	case Confirm:
		return Transition{State: Dropped, Reason: Gone}, 0
	case Reverse:
		return Transition{State: Pending, DueAt: now}, 1 // the fault was our credential's, so the attempt was free
	case Open, Resume:
	}
	return Transition{State: Pending, DueAt: now}, 0
}

// Staleness ends, as dropped or dead, what is found too old to be sent after a
// restore.
func Staleness(to State) Transition { return Transition{State: to, Reason: Stale} }

// LostAttempt is what is recorded of the attempt that a node which died may have
// made.
func LostAttempt(number int, at time.Time) Attempt {
	return Attempt{Number: number, At: at, Outcome: channels.Unknown, Ambiguous: true, Code: "takeover",
		Detail: "The node that held the delivery stopped; whether it made the attempt is unknown."}
}
