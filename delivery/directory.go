package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// directoryAge is how old the picture of a tenant may be. Changes made through
// this process are seen at once; those of another node or the CLI within this time.
const directoryAge = time.Second

// picture is what the engine keeps in memory of a tenant. It is never changed,
// only replaced.
type picture struct {
	settings    tenants.Settings
	deleting    bool // the tenant is on its way out: nothing of it is sent
	credentials []tenants.Credential
	byID        map[ids.ID]*tenants.Credential
	holds       map[holdKey]Hold
	readAt      time.Time
}

type holdKey struct {
	scope     HoldScope
	subject   ids.ID
	version   int
	app       string
	channel   channels.Kind
	qualifier string
}

func (h Hold) key() holdKey {
	k := holdKey{scope: h.Scope, subject: h.Subject, version: h.Version, app: h.App, channel: h.Channel, qualifier: h.Qualifier}
	if h.Scope == HoldCredential || h.Scope == HoldEndpoint {
		k.channel = 0
	}
	return k
}

// errDeleting refuses what is asked for a tenant that is being deleted.
func errDeleting() error { return problem.New(problem.Conflict, "The tenant is being deleted.") }

// directory keeps a picture of each tenant that has work.
type directory struct {
	store DirectoryStore
	now   func() time.Time
	mu    sync.Mutex
	known map[ids.ID]*entry
}

type entry struct {
	mu  sync.Mutex // held while reading; others that have a picture go on with it
	pic *picture
}

func newDirectory(s DirectoryStore, now func() time.Time) *directory {
	return &directory{store: s, now: now, known: map[ids.ID]*entry{}}
}

// of returns the picture of a tenant.
func (d *directory) of(ctx context.Context, tenant ids.ID) (*picture, error) {
	d.mu.Lock()
	e := d.known[tenant]
	if e == nil {
		e = &entry{}
		d.known[tenant] = e
	}
	pic := e.pic
	d.mu.Unlock()
	if pic != nil && d.now().Sub(pic.readAt) < directoryAge {
		return pic, nil
	}
	switch {
	case pic != nil && d.now().Sub(pic.readAt) < 2*directoryAge:
		if !e.mu.TryLock() {
			return pic, nil // somebody is reading it anew
		}
	default:
		e.mu.Lock()
		if newer := d.newest(e); newer != nil && d.now().Sub(newer.readAt) < directoryAge {
			e.mu.Unlock()
			return newer, nil // read while this one waited
		}
	}
	defer e.mu.Unlock()
	return d.read(ctx, tenant, e)
}

func (d *directory) newest(e *entry) *picture {
	d.mu.Lock()
	defer d.mu.Unlock()
	return e.pic
}

// refresh reads a tenant anew, so that a change is seen before its maker is
// answered.
func (d *directory) refresh(ctx context.Context, tenant ids.ID) error {
	d.mu.Lock()
	e := d.known[tenant]
	d.mu.Unlock()
	if e == nil {
		return nil // nobody has asked yet: the first to ask reads it
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := d.read(ctx, tenant, e)
	return err
}

// forgetIdle drops the pictures of tenants that nobody has asked for since.
func (d *directory) forgetIdle(since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for tenant, e := range d.known {
		if e.pic != nil && e.pic.readAt.Before(since) {
			delete(d.known, tenant)
		}
	}
}

func (d *directory) read(ctx context.Context, tenant ids.ID, e *entry) (*picture, error) {
	pic := &picture{readAt: d.now(), byID: map[ids.ID]*tenants.Credential{}, holds: map[holdKey]Hold{}}
	t, err := d.store.Tenant(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("read a tenant: %w", err)
	}
	pic.settings, pic.deleting = t.Settings, t.Deleting()
	if pic.credentials, err = d.store.Credentials(ctx, tenant); err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	for i := range pic.credentials {
		pic.byID[pic.credentials[i].ID] = &pic.credentials[i]
	}
	holds, err := d.store.StandingHolds(ctx, tenant)
	if err != nil {
		return nil, err
	}
	for _, h := range holds {
		if h.Ending == Open {
			pic.holds[h.key()] = h
		}
	}
	d.mu.Lock()
	e.pic = pic
	d.mu.Unlock()
	return pic, nil
}

// versions lists the credentials of all tenants that have had work, with their
// newest versions.
func (d *directory) versions() map[ids.ID]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[ids.ID]int{}
	for _, e := range d.known {
		if e.pic == nil {
			continue
		}
		for id, c := range e.pic.byID {
			out[id] = c.Version
		}
	}
	return out
}

// credential picks what serves a device: that of its app, channel, and
// environment or VAPID key, and no other. Routing never guesses.
func (p *picture) credential(t *TargetNow) *tenants.Credential {
	var found *tenants.Credential
	for i := range p.credentials {
		c := &p.credentials[i]
		if c.App != t.App || c.Channel != t.Channel {
			continue
		}
		switch t.Channel {
		case channels.WebPush:
			if c.Qualifier == t.VAPIDKey {
				return c
			}
			if t.VAPIDKey == "" && (found == nil || c.ID > found.ID) {
				found = c // bound to an unknown key: the newest, which new subscriptions use
			}
		case channels.APNs:
			switch {
			case c.Qualifier == string(t.Target.Environment):
				return c
			case c.Qualifier == "":
				found = c
			case t.Target.Environment == channels.Auto && (found == nil || c.Qualifier == string(channels.Production) && found.Qualifier != ""):
				found = c // production is tried first
			}
		default:
			return c
		}
	}
	return found
}

// qualifier is what a missing credential would have to have.
func qualifier(t *TargetNow) string {
	switch {
	case t.Channel == channels.WebPush:
		return t.VAPIDKey
	case t.Channel == channels.APNs && t.Target.Environment != channels.Auto:
		return string(t.Target.Environment)
	}
	return ""
}
