package webhooks

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

const (
	// MaxDescription is the longest description in bytes.
	MaxDescription = 500
	// MaxReason is the longest reason for a pause in bytes.
	MaxReason = 500
	// MaxPage is how many endpoints a list returns at most.
	MaxPage = 500
)

// Quota bounds how many a tenant may have.
type Quota interface {
	Check(tenant ids.ID) error
	Add(tenant ids.ID, n int)
}

// Options of a Registry. All are needed.
type Options struct {
	Store Store
	Quota Quota
	// CheckURL refuses an address that may not be reached, with a sentence that
	// says why. It does not use the network.
	CheckURL func(string) error
	IDs      *ids.Generator
	Now      func() time.Time
}

// Registry creates and changes the endpoints of tenants. It validates; what it
// hands to the store is sound. It is safe for concurrent use.
type Registry struct{ o Options }

// NewRegistry makes a Registry.
func NewRegistry(o Options) *Registry { return &Registry{o: o} }

// NewEndpoint is what a caller says of an endpoint to be made.
type NewEndpoint struct {
	URL         string
	Description string
	EventTypes  []string // see CheckSubscription
	User        string   // "" binds it to nobody
	Secret      string   // as FormatSecret prints it; "" makes one
}

// Patch changes the members that are not nil.
type Patch struct {
	URL         *string
	Description *string
	EventTypes  *[]string
	User        *string
}

// Create makes an active endpoint and returns its secret, which is not shown
// again. All faults are reported at once.
func (r *Registry) Create(ctx context.Context, tenant ids.ID, n NewEndpoint, actor string) (Endpoint, string, error) {
	now := r.o.Now().UTC()
	e := Endpoint{
		Tenant: tenant, ID: r.o.IDs.Next(), URL: n.URL, Description: n.Description,
		EventTypes: append([]string{}, n.EventTypes...), User: n.User,
		Status: Active, CreatedAt: now, UpdatedAt: now,
	}
	var faults problem.Fields
	r.check(&faults, e)
	key, shown := []byte(nil), n.Secret
	if n.Secret == "" {
		key, shown = NewSecret()
	} else {
		var err error
		if key, err = ParseSecret(n.Secret); err != nil {
			faults.Add("secret", "%s", err)
		}
	}
	if err := faults.Err(); err != nil {
		return Endpoint{}, "", err
	}
	if err := r.o.Quota.Check(tenant); err != nil {
		return Endpoint{}, "", err
	}
	e.Secrets = []Secret{{Key: key, CreatedAt: now}}
	if err := r.o.Store.CreateEndpoint(ctx, e, actor); err != nil {
		return Endpoint{}, "", err
	}
	r.o.Quota.Add(tenant, 1)
	return e, shown, nil
}

// Get returns an endpoint of the tenant.
func (r *Registry) Get(ctx context.Context, tenant, id ids.ID) (Endpoint, error) {
	return r.o.Store.Endpoint(ctx, tenant, id)
}

// List returns the endpoints after one, oldest first, at most MaxPage.
func (r *Registry) List(ctx context.Context, tenant, after ids.ID, limit int) ([]Endpoint, error) {
	return r.o.Store.Endpoints(ctx, tenant, after, min(max(limit, 1), MaxPage))
}

// Update changes what the patch names. All faults are reported at once.
func (r *Registry) Update(ctx context.Context, tenant, id ids.ID, p Patch, actor string) (Endpoint, error) {
	return r.change(ctx, tenant, id, actor, func(e *Endpoint) (release bool, err error) {
		release = p.URL != nil && *p.URL != e.URL // what the one before asked for is not this one's
		set(&e.URL, p.URL)
		set(&e.Description, p.Description)
		set(&e.User, p.User)
		if p.EventTypes != nil {
			e.EventTypes = append([]string{}, *p.EventTypes...)
		}
		var faults problem.Fields
		r.check(&faults, *e)
		return release, faults.Err()
	})
}

// Pause holds the endpoint's deliveries until Resume. It may be repeated.
func (r *Registry) Pause(ctx context.Context, tenant, id ids.ID, reason, actor string) (Endpoint, error) {
	if err := text.Check(reason, 0, MaxReason); err != nil {
		return Endpoint{}, problem.AtField("reason", "%s", err)
	}
	return r.change(ctx, tenant, id, actor, func(e *Endpoint) (bool, error) {
		e.Status, e.StatusReason = Paused, reason
		return false, nil
	})
}

// Resume makes a paused or disabled endpoint active, and releases one that waits
// because its receiver said so. It may be repeated.
func (r *Registry) Resume(ctx context.Context, tenant, id ids.ID, actor string) (Endpoint, error) {
	return r.change(ctx, tenant, id, actor, func(e *Endpoint) (bool, error) {
		e.Status, e.StatusReason = Active, ""
		return true, nil
	})
}

// Delete forgets an endpoint.
func (r *Registry) Delete(ctx context.Context, tenant, id ids.ID, actor string) error {
	err := r.o.Store.DeleteEndpoint(ctx, tenant, id, actor)
	if err == nil {
		r.o.Quota.Add(tenant, -1)
	}
	return err
}

// changeTries is how often a change is made anew on top of another one that came
// between.
const changeTries = 5

func (r *Registry) change(ctx context.Context, tenant, id ids.ID, actor string, edit func(*Endpoint) (release bool, err error)) (Endpoint, error) {
	for try := 1; ; try++ {
		e, err := r.o.Store.Endpoint(ctx, tenant, id)
		if err != nil {
			return Endpoint{}, err
		}
		was := e.UpdatedAt
		release, err := edit(&e)
		if err != nil {
			return Endpoint{}, err
		}
		// Times are stored to the millisecond, and each change has its own.
		if e.UpdatedAt = r.o.Now().UTC().Truncate(time.Millisecond); !e.UpdatedAt.After(was) {
			e.UpdatedAt = was.Add(time.Millisecond)
		}
		err = r.o.Store.UpdateEndpoint(ctx, e, was, Edit{Actor: actor, Release: release})
		if err == nil {
			return e, nil
		}
		if problem.CodeOf(err) != problem.Conflict || try == changeTries {
			return Endpoint{}, err
		}
	}
}

func (r *Registry) check(faults *problem.Fields, e Endpoint) {
	if e.URL == "" {
		faults.Add("url", "is missing; name the https:// address that receives")
	} else if err := r.o.CheckURL(e.URL); err != nil {
		faults.Add("url", "%s", err)
	}
	if err := text.Check(e.Description, 0, MaxDescription); err != nil {
		faults.Add("description", "%s", err)
	}
	if e.User != "" {
		if err := text.CheckUser(e.User); err != nil {
			faults.Add("user", "%s", err)
		}
	}
	faults.Merge("", CheckSubscription(e.EventTypes))
}

func set(member, value *string) {
	if value != nil {
		*member = *value
	}
}
