package delivery

import (
	"context"
	"time"
)

const (
	// staleEvery is how often devices are looked at of which nothing is heard.
	staleEvery   = 24 * time.Hour
	cleanupLimit = 1000 // rows in one transaction
	// keepEnded is how long people can look at the device of a Live Activity that is
	// over.
	keepEnded = 24 * time.Hour
)

// CleanupStore removes what has served its time.
type CleanupStore interface {
	// RetireStale retires devices, as stale, of which nothing was heard for so long,
	// or for as long as the tenant's settings say: no registration, and no success
	// among the deliveries that are kept. 0 is never.
	RetireStale(ctx context.Context, after time.Duration, now time.Time) (int, error)
	// DropExpiredSecrets removes the secrets of endpoints that do not count any more.
	DropExpiredSecrets(ctx context.Context, now time.Time) (int, error)
	// DropReplacedCredentials removes the secrets of up to limit credential versions
	// that were replaced before a time.
	DropReplacedCredentials(ctx context.Context, before time.Time, limit int) (int, error)
	// DropOldKeys removes up to limit API keys that were revoked or expired before
	// a time.
	DropOldKeys(ctx context.Context, before time.Time, limit int) (int, error)
	// DropEndedActivities forgets up to limit devices that are for Live Activities
	// that ended before a time.
	DropEndedActivities(ctx context.Context, before time.Time, limit int) (int, error)
}

// SizeStore keeps in mind how large the database was.
type SizeStore interface {
	// NoteSize notes how large it is now.
	NoteSize(ctx context.Context, now time.Time) error
}

// cleaner does slowly what nobody waits for, on one node at a time: it removes
// secrets that have served their time, keys that count no more, devices of Live
// Activities that are over, and devices that are silent. And it notes how the database
// grows.
type cleaner struct {
	*env
	store  CleanupStore
	sizes  SizeStore
	duties *duties
	every  time.Duration
	stale  time.Duration // devices of which nothing is heard for so long; 0: never
	// How long the secrets of replaced credentials, and API keys that count no more,
	// are kept.
	oldCredentials, oldKeys time.Duration
}

func (c *cleaner) run() {
	for c.noteSize(); c.wait(nil, c.every); c.noteSize() {
		if c.duties.take("upkeep", c.every) {
			c.dropOld()
		}
		if c.duties.take("stale devices", staleEvery) {
			c.do("stale devices", func(ctx context.Context, now time.Time) (int, error) {
				return c.store.RetireStale(ctx, c.stale, now)
			})
		}
	}
}

func (c *cleaner) noteSize() {
	if c.duties.take("size", c.every) {
		c.do("note how large the database is", func(ctx context.Context, now time.Time) (int, error) { return 0, c.sizes.NoteSize(ctx, now) })
	}
}

func (c *cleaner) dropOld() {
	c.do("expired webhook secrets", c.store.DropExpiredSecrets)
	c.do("secrets of replaced credentials", repeated(func(ctx context.Context, now time.Time) (int, error) {
		return c.store.DropReplacedCredentials(ctx, now.Add(-c.oldCredentials), cleanupLimit)
	}))
	c.do("revoked and expired API keys", repeated(func(ctx context.Context, now time.Time) (int, error) {
		return c.store.DropOldKeys(ctx, now.Add(-c.oldKeys), cleanupLimit)
	}))
	c.do("devices of ended Live Activities", repeated(func(ctx context.Context, now time.Time) (int, error) {
		return c.store.DropEndedActivities(ctx, now.Add(-keepEnded), cleanupLimit)
	}))
}

// repeated goes on until a round finds less than it may take.
func repeated(round func(context.Context, time.Time) (int, error)) func(context.Context, time.Time) (int, error) {
	return func(ctx context.Context, now time.Time) (total int, err error) {
		for ctx.Err() == nil {
			n, err := round(ctx, now)
			if total += n; err != nil || n < cleanupLimit {
				return total, err
			}
		}
		return total, ctx.Err()
	}
}

func (c *cleaner) do(what string, run func(context.Context, time.Time) (int, error)) {
	if c.running.Err() != nil {
		return
	}
	n, err := run(c.running, c.now())
	switch {
	case err != nil && c.running.Err() == nil:
		c.log.Error("upkeep", "what", what, "rows", n, "error", err)
	case n > 0:
		c.log.Info("upkeep", "what", what, "rows", n)
	}
}
