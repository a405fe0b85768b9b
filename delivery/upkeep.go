package delivery

import (
	"context"
	"time"
)

// staleEvery is how often devices are looked at of which nothing is heard.
const staleEvery = 24 * time.Hour

// upkeepLoop does slowly what nobody waits for, on one node at a time: secrets
// that have served their time, keys that count no more, devices that are silent.
func (e *Engine) upkeepLoop() {
	for e.pause(nil, e.o.UpkeepEvery) {
		if e.onDuty("upkeep", e.o.UpkeepEvery) {
			e.upkeep()
		}
		if e.onDuty("stale devices", staleEvery) {
			e.keepUp("stale devices", func(ctx context.Context, now time.Time) (int, error) {
				return e.o.Store.RetireStale(ctx, e.o.StaleAfter, now)
			})
		}
	}
}

func (e *Engine) upkeep() {
	s := e.o.Store
	e.keepUp("expired webhook secrets", s.DropExpiredSecrets)
	e.keepUp("secrets of replaced credentials", repeated(func(ctx context.Context, now time.Time) (int, error) {
		return s.DropReplacedCredentials(ctx, now.Add(-e.o.OldCredentials), moveLimit)
	}))
	e.keepUp("revoked and expired API keys", repeated(func(ctx context.Context, now time.Time) (int, error) {
		return s.DropOldKeys(ctx, now.Add(-e.o.Retention.Rows), moveLimit)
	}))
}

// repeated goes on until a round finds less than it may take.
func repeated(round func(context.Context, time.Time) (int, error)) func(context.Context, time.Time) (int, error) {
	return func(ctx context.Context, now time.Time) (total int, err error) {
		for ctx.Err() == nil {
			n, err := round(ctx, now)
			if total += n; err != nil || n < moveLimit {
				return total, err
			}
		}
		return total, ctx.Err()
	}
}

func (e *Engine) keepUp(what string, run func(context.Context, time.Time) (int, error)) {
	if e.loopCtx.Err() != nil {
		return
	}
	n, err := run(e.loopCtx, e.o.Now())
	switch {
	case err != nil && e.loopCtx.Err() == nil:
		e.o.Log.Error("upkeep", "what", what, "rows", n, "error", err)
	case n > 0:
		e.o.Log.Info("upkeep", "what", what, "rows", n)
	}
}
