package delivery

import (
	"context"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Most notifications lead to few targets, which are looked up and stored as they are
// accepted. What leads to more than MaxTargets, or to so many that they are not even
// counted, is fanned out: it is accepted with a marker, and its targets are looked up and
// stored in parts, each with how far it came. Nobody's memory and no transaction grows with
// the devices of a user or the subscribers of an event.

// MaxLookup is how many devices, and how many endpoints, are read at once. It is above
// MaxTargets, since an installation may have several addresses.
const MaxLookup = 2000

// usersAtOnce are the users of one part, or fewer where they have many targets.
const usersAtOnce = 250

// Lookup is what is looked up at once.
type Lookup struct {
	To
	Subscribers bool
	// Paged: of the one user there is, in the order of the ids, so that the next look-up goes
	// on behind it. Subscribers always are.
	Paged bool
	After ids.ID // only targets with a greater id, where they come in that order
	Limit int    // of devices, and of endpoints
}

// FanOutStage is what a fan-out is at. The numbers are stored.
type FanOutStage uint8

// The stages, in their order.
const (
	FanOutBegins      FanOutStage = 0 // perhaps it is not large at all
	FanOutUsers       FanOutStage = 1
	FanOutNamed       FanOutStage = 2 // devices and endpoints
	FanOutSubscribers FanOutStage = 3
)

// FanOut is how far a fan-out has come.
type FanOut struct {
	Stage FanOutStage
	// Left counts the users from the end of the list, which gets shorter when one is
	// erased: at worst one is looked up twice, and stored once.
	Left  int
	After ids.ID // targets up to this one are done, of the first user left or of the subscribers
}

// Part is what is stored of a fan-out at once.
type Part struct {
	Accepted
	At   FanOut  // where it began
	Next *FanOut // nil: that was all
	// IfNothing is the skip of a notification that has led nowhere.
	IfNothing Skip
}

// part looks up what comes next.
func (pl *planner) part(ctx context.Context, p *plan, r *Request, s *snapshot, at FanOut) (*FanOut, error) {
	if at.Stage == FanOutBegins {
		if whole, err := pl.resolve(ctx, p, r, s); whole || err != nil {
			return nil, err
		}
		at = FanOut{Stage: FanOutUsers, Left: len(r.To.Users)}
	}
	if at.Stage == FanOutUsers {
		if left := r.To.Users[max(len(r.To.Users)-at.Left, 0):]; len(left) > 0 {
			return pl.usersPart(ctx, p, r, s, at, left)
		}
		at = FanOut{Stage: FanOutNamed}
	}
	if at.Stage == FanOutNamed && len(r.To.Devices)+len(r.To.Endpoints) > 0 {
		to := To{Devices: r.To.Devices, Endpoints: r.To.Endpoints, ActivityID: r.To.ActivityID}
		f, err := pl.choose(ctx, p, r, Lookup{To: to, Limit: MaxLookup})
		if err == nil {
			err = pl.rows(p, f, r, s)
		}
		if err != nil || !r.wantsSubscribers() {
			return nil, err
		}
		return &FanOut{Stage: FanOutSubscribers}, nil
	}
	if !r.wantsSubscribers() {
		return nil, nil
	}
	f, err := pl.choose(ctx, p, r, Lookup{Subscribers: true, After: at.After, Limit: MaxTargets})
	if err == nil {
		err = pl.rows(p, f, r, s)
	}
	if err != nil || f.res.Through == 0 {
		return nil, err
	}
	return &FanOut{Stage: FanOutSubscribers, After: f.res.Through}, nil
}

// usersPart looks up as many users as make a part; of one who has more than that, so many
// targets.
func (pl *planner) usersPart(ctx context.Context, p *plan, r *Request, s *snapshot, at FanOut, left []string) (*FanOut, error) {
	n := min(len(left), usersAtOnce)
	if at.After != 0 {
		n = 1
	}
	for {
		l := Lookup{To: To{Users: left[:n], ActivityID: r.To.ActivityID}, Limit: MaxLookup}
		if n == 1 {
			l.Paged, l.After, l.Limit = true, at.After, MaxTargets
		}
		f, err := pl.choose(ctx, p, r, l)
		if err != nil {
			return nil, err
		}
		if n > 1 && f.tooMany() {
			n /= 2
			continue
		}
		if err := pl.rows(p, f, r, s); err != nil {
			return nil, err
		}
		switch more := len(r.To.Devices)+len(r.To.Endpoints) > 0 || r.wantsSubscribers(); {
		case f.res.Through != 0:
			return &FanOut{Stage: FanOutUsers, Left: len(left), After: f.res.Through}, nil
		case n < len(left):
			return &FanOut{Stage: FanOutUsers, Left: len(left) - n}, nil
		case more:
			return &FanOut{Stage: FanOutNamed}, nil
		}
		return nil, nil
	}
}

// ifNothing explains a notification that has led nowhere.
func (r *Request) ifNothing() Skip {
	if len(r.To.Users) > 0 {
		return Skip{Reason: SkipNoDevice}
	}
	return Skip{Channel: channels.Webhook, Reason: SkipNoSubscriber}
}
