package delivery

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// DeadFilter selects dead letters, or webhooks that were sent or dropped. Zero members
// select everything.
type DeadFilter struct {
	State        State // Sent and Dropped: webhooks of an endpoint; otherwise dead letters
	Reason       Reason
	Channel      channels.Kind
	App          string
	User         string
	Endpoint     ids.ID
	Notification ids.ID
	Type         string    // of the notification, in full
	Since, Until time.Time // when they died, or if State is set were accepted: Since and later, before Until
}

// filterJSON is a DeadFilter in the spec of a job, as people read it.
type filterJSON struct {
	State        string    `json:"state,omitempty"`
	Reason       string    `json:"reason,omitempty"`
	Channel      string    `json:"channel,omitempty"`
	App          string    `json:"app,omitempty"`
	User         string    `json:"user,omitempty"`
	Endpoint     string    `json:"endpoint,omitempty"`
	Notification string    `json:"notification,omitempty"`
	Type         string    `json:"type,omitempty"`
	Since        time.Time `json:"since,omitzero"`
	Until        time.Time `json:"until,omitzero"`
}

// MarshalJSON writes names and ids as people know them.
func (f DeadFilter) MarshalJSON() ([]byte, error) {
	out := filterJSON{Reason: f.Reason.String(), App: f.App, User: f.User, Type: f.Type, Since: f.Since, Until: f.Until}
	if f.State != 0 {
		out.State = f.State.String()
	}
	if f.Channel != 0 {
		out.Channel = f.Channel.String()
	}
	if f.Endpoint != 0 {
		out.Endpoint = f.Endpoint.Format(ids.Endpoint)
	}
	if f.Notification != 0 {
		out.Notification = f.Notification.Format(ids.Notification)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote. What it does not know is an error:
// a filter that is understood in part selects too much.
func (f *DeadFilter) UnmarshalJSON(b []byte) error {
	var in filterJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	out := DeadFilter{App: in.App, User: in.User, Type: in.Type, Since: in.Since, Until: in.Until}
	var known, fine bool
	if out.Reason, known = ParseReason(in.Reason); !known && in.Reason != "" {
		return fmt.Errorf("unknown reason %q", in.Reason)
	}
	if out.State, fine = ParseState(in.State); !fine && in.State != "" {
		return fmt.Errorf("unknown state %q", in.State)
	}
	if out.Channel, fine = channels.ParseKind(in.Channel); !fine && in.Channel != "" {
		return fmt.Errorf("unknown channel %q", in.Channel)
	}
	for _, x := range []struct {
		prefix, text string
		into         *ids.ID
	}{{ids.Endpoint, in.Endpoint, &out.Endpoint}, {ids.Notification, in.Notification, &out.Notification}} {
		if x.text == "" {
			continue
		}
		id, err := ids.Parse(x.prefix, x.text)
		if err != nil {
			return err
		}
		*x.into = id
	}
	*f = out
	return nil
}

// check finds what is wrong with a filter.
func (f DeadFilter) check(faults *problem.Fields) {
	if f == (DeadFilter{}) {
		faults.Add("filter", "must have at least one member; to select all that died until now, give until")
	}
	if f.State != 0 {
		f.checkEnded(faults)
	} else if f.Reason != NoReason && !f.Reason.ofDead() {
		faults.Add("filter.reason", "is not a reason of a dead letter; use rejected, exhausted, expired, ambiguous, crashed, mapping or stale")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults.Add("filter.until", "must be after since")
	}
}

// checkEnded finds what is wrong with a filter of webhooks that have ended: one that
// selects more than was meant has somebody's receiver do everything twice.
func (f DeadFilter) checkEnded(faults *problem.Fields) {
	if f.State != Sent && f.State != Dropped {
		faults.Add("filter.state", "must be sent or dropped; leave it out for dead letters")
		return
	}
	if f.Endpoint == 0 {
		faults.Add("filter.endpoint", "is missing; name the endpoint whose webhooks are sent again")
	}
	if f.Since.IsZero() {
		faults.Add("filter.since", "is missing; say from when on the notifications were accepted")
	}
	if f.Reason != NoReason {
		faults.Add("filter.reason", "is only for dead letters; leave it out with state")
	}
}

// Ended tells whether it selects webhooks that have ended, and not dead letters.
func (f DeadFilter) Ended() bool { return f.State != 0 }

// ofDead tells whether dead letters have this reason.
func (r Reason) ofDead() bool { return r >= Rejected || r == Expired }

// DeadLetter is a dead letter that a walk has found.
type DeadLetter struct {
	Notification, Target ids.ID
	Channel              channels.Kind
	State                State // Dead, or what the filter asks for
	DiedAt               time.Time
}

// Cursor is its place: the earliest death first.
func (d DeadLetter) Cursor() Cursor {
	return Cursor{At: d.DiedAt, Notification: d.Notification, Target: d.Target}
}

// DeadWalk asks for dead letters in the order in which they died.
type DeadWalk struct {
	Filter DeadFilter
	After  Cursor    // zero: from the start
	Before time.Time // died before
	Look   int       // how many to look at, at most
	Want   int       // how many to find, at most
}

// DeadPage is what a walk has found.
type DeadPage struct {
	Letters []DeadLetter
	Next    Cursor // where to go on; After where there was nothing to look at
	End     bool   // there are no more
}

// Replayed is a dead letter that a step replays, with its new deadline.
type Replayed struct {
	DeadLetter
	ExpiresAt time.Time
}

// ReplayCounts is what became of the letters of a step.
type ReplayCounts struct {
	Replayed int
	NotDead  int // sent again by somebody else meanwhile, or purged
	Erased   int // their content is gone
	Newer    int // a newer notification with their collapse key took their place
}
