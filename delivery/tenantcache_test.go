package delivery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// books is a SnapshotStore that counts how often it is read.
type books struct {
	mu    sync.Mutex
	reads int
	wait  chan struct{}
	err   error
	holds []Hold
	waits []Wait

	looked int // at single waits
}

func (b *books) Tenant(_ context.Context, id ids.ID) (tenants.Tenant, error) {
	b.mu.Lock()
	b.reads++
	wait, err := b.wait, b.err
	b.mu.Unlock()
	if wait != nil {
		<-wait
	}
	return tenants.Tenant{ID: id}, err
}

func (b *books) Credentials(context.Context, ids.ID) ([]tenants.Credential, error) {
	return []tenants.Credential{{ID: 3, Version: 2}}, nil
}

func (b *books) StandingHolds(context.Context, ids.ID) ([]Hold, error) { return b.holds, nil }

func (b *books) FirstWaits(_ context.Context, _ ids.ID, most int) ([]Wait, error) {
	return b.waits[:min(most, len(b.waits))], nil
}

func (b *books) Wait(_ context.Context, _, subject ids.ID, origin string) (Wait, bool, error) {
	b.looked++
	for _, w := range b.waits {
		if w.Subject == subject && w.Origin == origin {
			return w, true, nil
		}
	}
	return Wait{}, false, nil
}

var _ SnapshotStore = (*books)(nil)

func TestATenantIsReadOnceAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &books{holds: []Hold{{Scope: HoldCredential, Subject: 3}, {Scope: HoldEndpoint, Subject: 4, Ending: Resume}}, waits: []Wait{{Subject: 3, Origin: "https://a.example"}}}
		d := newTenantCache(b, time.Now)
		ctx := context.Background()
		require.NoError(t, d.refresh(ctx, 1), "nobody has asked yet")
		require.Zero(t, b.reads)

		first, err := d.get(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, 2, first.byID[3].Version)
		require.Contains(t, first.holds, holdKey{scope: HoldCredential, subject: 3})
		require.Len(t, first.holds, 1, "a hold that ends stops nothing")
		require.Contains(t, first.waits, flowKey{id: 3, origin: "https://a.example"})
		require.Equal(t, map[ids.ID]int{3: 2}, d.versions())
		again, err := d.get(ctx, 1)
		require.NoError(t, err)
		require.Same(t, first, again)
		require.Equal(t, 1, b.reads)

		// While one reads it anew, the others go on with what they have.
		time.Sleep(snapshotAge)
		b.wait = make(chan struct{})
		renewed := make(chan *snapshot, 1)
		go func() { p, _ := d.get(ctx, 1); renewed <- p }()
		synctest.Wait()
		for range 10 {
			old, err := d.get(ctx, 1)
			require.NoError(t, err)
			require.Same(t, first, old)
		}
		require.Equal(t, 2, b.reads)
		close(b.wait)
		now := <-renewed
		require.NotSame(t, first, now)
		b.wait = nil

		require.NoError(t, d.refresh(ctx, 1), "a change is seen at once")
		require.Equal(t, 3, b.reads)
		b.err = errors.New("disk on fire")
		require.Error(t, d.refresh(ctx, 1))
		_, err = d.get(ctx, 2)
		require.ErrorContains(t, err, "disk on fire")
		b.err = nil
		_, err = d.get(ctx, 2)
		require.NoError(t, err, "a failure is not remembered")
	})
}

// TestWhatIsBeyondTheFirstWaitsIsLookedFor: nothing is sent, or ended, by what a snapshot
// has no room for.
func TestWhatIsBeyondTheFirstWaitsIsLookedFor(t *testing.T) {
	t.Parallel()
	b := &books{}
	for id := range ids.ID(mostWaits - 1) {
		b.waits = append(b.waits, Wait{Subject: id + 1})
	}
	const last, beyond = ids.ID(mostWaits), ids.ID(mostWaits + 1)
	b.waits = append(b.waits, Wait{Subject: last, Origin: "a"}, Wait{Subject: last, Origin: "b"}, Wait{Subject: beyond})
	d := newTenantCache(b, time.Now)
	waits := func(k flowKey) bool {
		t.Helper()
		s, err := d.get(t.Context(), 1)
		require.NoError(t, err)
		rows, err := d.waits(t.Context(), 1, s, passage{keys: [3]flowKey{k}})
		require.NoError(t, err)
		_, there := rows[k]
		return there
	}
	require.True(t, waits(flowKey{id: 7}))
	require.Zero(t, b.looked, "the snapshot has it")
	require.True(t, waits(flowKey{id: last, origin: "b"}))
	require.True(t, waits(flowKey{id: beyond}))
	require.False(t, waits(flowKey{id: beyond + 1}))
	require.Equal(t, 3, b.looked)

	b.waits = b.waits[:2]
	require.NoError(t, d.refresh(t.Context(), 1))
	require.False(t, waits(flowKey{id: beyond}))
	require.Equal(t, 3, b.looked, "the snapshot has all")
}
