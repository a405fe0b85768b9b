package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/problem"
)

// Pause is the state of sending in the whole installation: every node obeys it
// within a second.
type Pause struct {
	Since  time.Time // zero: nothing is paused
	Reason string
	Actor  string
	// Restored: the database was restored from a backup and nobody has said yet
	// what is to become of what it holds. Only an answer to that ends the pause.
	Restored time.Time // when; zero: it was not
}

// On tells whether nothing is sent.
func (p Pause) On() bool { return !p.Since.IsZero() }

// PauseStore keeps the pause.
type PauseStore interface {
	SendingPaused(ctx context.Context) (Pause, error)
	// PauseSending changes the reason where sending is paused already.
	PauseSending(ctx context.Context, reason, actor string) error
	// ResumeSending refuses with problem.Conflict after a restore.
	ResumeSending(ctx context.Context, actor string) error
}

// sayEvery is how often the log repeats that sending is paused.
const sayEvery = time.Minute

// Sending is the pause as this node knows it: at most a second old.
func (e *Engine) Sending() Pause { return *e.paused.Load() }

// PauseSending stops all sending: notifications are accepted and wait.
func (e *Engine) PauseSending(ctx context.Context, reason, actor string) (Pause, error) {
	if err := e.o.Store.PauseSending(ctx, reason, actor); err != nil {
		return Pause{}, err
	}
	err := e.readPause(ctx)
	return e.Sending(), err
}

// ResumeSending ends the pause.
func (e *Engine) ResumeSending(ctx context.Context, actor string) (Pause, error) {
	if err := e.o.Store.ResumeSending(ctx, actor); err != nil {
		return Pause{}, err
	}
	err := e.readPause(ctx)
	return e.Sending(), err
}

// readPause looks whether sending is paused. Start calls it before anything is
// claimed: what was restored must not be sent because nobody has looked yet.
func (e *Engine) readPause(ctx context.Context) error {
	p, err := e.o.Store.SendingPaused(ctx)
	if err != nil {
		return err
	}
	was := e.paused.Swap(&p)
	switch {
	case p.On() && !was.On():
		e.sayPaused(p)
	case !p.On() && was.On():
		e.o.Log.Info("sending is resumed")
		hint(e.wake)
	}
	return nil
}

func (e *Engine) sayPaused(p Pause) {
	e.pauseSaid.Store(e.o.Now().UnixMilli())
	e.o.Log.Warn("sending is paused: notifications are accepted, and nothing is sent until it is resumed",
		"since", p.Since, "reason", p.Reason, "by", p.Actor, "after_restore", !p.Restored.IsZero())
}

// pauseLoop keeps what is known of the pause fresh. What cannot be read changes
// nothing.
func (e *Engine) pauseLoop() {
	for e.pause(nil, e.o.Poll) {
		if err := e.readPause(e.loopCtx); err != nil && e.loopCtx.Err() == nil && problem.CodeOf(err) != problem.Unavailable {
			e.o.Log.Error("look whether sending is paused", "error", err)
		}
		if p := e.Sending(); p.On() && e.o.Now().UnixMilli()-e.pauseSaid.Load() >= sayEvery.Milliseconds() {
			e.sayPaused(p)
		}
	}
}
