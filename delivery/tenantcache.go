package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

const (
	// snapshotAge is how old the snapshot of a tenant may be. Changes made through
	// this process are seen at once; those of another node or the CLI within this
	// time.
	snapshotAge = time.Second
	idleTenant  = 2 * time.Hour // after which a tenant's snapshot is dropped
	// mostWaits is how many scopes in trouble of a tenant are read with it. Of what comes
	// after them each attempt reads its own.
	mostWaits = 1000
)

// SnapshotStore reads what the engine keeps in memory of a tenant.
type SnapshotStore interface {
	Tenant(context.Context, ids.ID) (tenants.Tenant, error)
	Credentials(ctx context.Context, tenant ids.ID) ([]tenants.Credential, error)
	// StandingHolds lists the holds of a tenant that do not end yet.
	StandingHolds(ctx context.Context, tenant ids.ID) ([]Hold, error)
	// FirstWaits lists scopes of a tenant that are in trouble, up to most, by subject.
	FirstWaits(ctx context.Context, tenant ids.ID, most int) ([]Wait, error)
	// Wait finds the trouble of one scope; false: it has none.
	Wait(ctx context.Context, tenant, subject ids.ID, origin string) (Wait, bool, error)
}

// tenantCache keeps a snapshot of each tenant that has work.
type tenantCache struct {
	store SnapshotStore
	now   func() time.Time

	mu    sync.Mutex
	known map[ids.ID]*cachedTenant
}

type cachedTenant struct {
	mu     sync.Mutex // held while reading; others that have a snapshot go on with it
	newest *snapshot  // guarded by the cache's mu
}

func newTenantCache(s SnapshotStore, now func() time.Time) *tenantCache {
	return &tenantCache{store: s, now: now, known: map[ids.ID]*cachedTenant{}}
}

// get returns the snapshot of a tenant.
func (c *tenantCache) get(ctx context.Context, tenant ids.ID) (*snapshot, error) {
	c.mu.Lock()
	x := c.known[tenant]
	if x == nil {
		x = &cachedTenant{}
		c.known[tenant] = x
	}
	s := x.newest
	c.mu.Unlock()
	if s != nil && c.age(s) < snapshotAge {
		return s, nil
	}
	switch {
	case s != nil && c.age(s) < 2*snapshotAge:
		if !x.mu.TryLock() {
			return s, nil // somebody is reading it anew
		}
	default:
		x.mu.Lock()
		if newer := c.newest(x); newer != nil && c.age(newer) < snapshotAge {
			x.mu.Unlock()
			return newer, nil // read while this one waited
		}
	}
	defer x.mu.Unlock()
	return c.read(ctx, tenant, x)
}

func (c *tenantCache) age(s *snapshot) time.Duration { return c.now().Sub(s.readAt) }

func (c *tenantCache) newest(x *cachedTenant) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return x.newest
}

// refresh reads a tenant anew, so that a change is seen before its maker is
// answered.
func (c *tenantCache) refresh(ctx context.Context, tenant ids.ID) error {
	c.mu.Lock()
	x := c.known[tenant]
	c.mu.Unlock()
	if x == nil {
		return nil // nobody has asked yet: the first to ask reads it
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	_, err := c.read(ctx, tenant, x)
	return err
}

// dropIdle drops the snapshots of tenants that nobody has asked for since.
func (c *tenantCache) dropIdle(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tenant, x := range c.known {
		if x.newest != nil && x.newest.readAt.Before(since) {
			delete(c.known, tenant)
		}
	}
}

func (c *tenantCache) read(ctx context.Context, tenant ids.ID, x *cachedTenant) (*snapshot, error) {
	readAt := c.now()
	t, err := c.store.Tenant(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("read a tenant: %w", err)
	}
	credentials, err := c.store.Credentials(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	holds, err := c.store.StandingHolds(ctx, tenant)
	if err != nil {
		return nil, err
	}
	waits, err := c.store.FirstWaits(ctx, tenant, mostWaits)
	if err != nil {
		return nil, err
	}
	s := newSnapshot(t, credentials, holds, waits, readAt)
	c.mu.Lock()
	x.newest = s
	c.mu.Unlock()
	return s, nil
}

// waits lists the trouble of the scopes that a delivery passes, as of a snapshot or later.
func (c *tenantCache) waits(ctx context.Context, tenant ids.ID, s *snapshot, p passage) (map[flowKey]Wait, error) {
	if s.waitsUpTo == 0 {
		return s.waits, nil
	}
	rows := map[flowKey]Wait{}
	for _, k := range p.shared() {
		if k.id == 0 {
			continue
		}
		w, there := s.waits[k]
		if k.id >= s.waitsUpTo {
			var err error
			if w, there, err = c.store.Wait(ctx, tenant, k.id, k.origin); err != nil {
				return nil, err
			}
		}
		if there {
			rows[k] = w
		}
	}
	return rows, nil
}

// who is how the log names a tenant: as people know it, and by the id alone while that
// cannot be read.
func (c *tenantCache) who(ctx context.Context, tenant ids.ID) slog.Value {
	c.mu.Lock()
	x := c.known[tenant]
	if x != nil && x.newest != nil {
		defer c.mu.Unlock()
		return TenantInLog(tenant, x.newest.name) // names never change
	}
	c.mu.Unlock()
	if s, err := c.get(ctx, tenant); err == nil {
		return TenantInLog(tenant, s.name)
	}
	return TenantInLog(tenant, "")
}

// TenantInLog is the attribute tenant of every line in the log that is about one.
func TenantInLog(id ids.ID, name string) slog.Value {
	return slog.GroupValue(slog.String("name", name), slog.String("id", id.Format(ids.Tenant)))
}

// versions lists the credentials of all tenants that have had work, with their
// newest versions.
func (c *tenantCache) versions() map[ids.ID]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[ids.ID]int{}
	for _, x := range c.known {
		if x.newest == nil {
			continue
		}
		for id, credential := range x.newest.byID {
			out[id] = credential.Version
		}
	}
	return out
}
