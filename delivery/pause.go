package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
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

// pauseLogEvery is how often the log repeats that sending is paused.
const pauseLogEvery = time.Minute

// pauseSwitch is whether sending is paused, as this node knows it.
type pauseSwitch struct {
	*env
	store PauseStore
	hints *hints
	poll  time.Duration

	// reading is held while it is read: what was read before a change never takes the
	// place of what was read after it.
	reading sync.Mutex

	known  atomic.Pointer[Pause] // nil until it is read
	logged atomic.Int64          // unix ms of the last line about it
}

// current is the pause as this node knows it: at most a second old.
func (s *pauseSwitch) current() Pause {
	if p := s.known.Load(); p != nil {
		return *p
	}
	return Pause{}
}

func (s *pauseSwitch) set(ctx context.Context, reason, actor string) (Pause, error) {
	if err := s.store.PauseSending(ctx, reason, actor); err != nil {
		return Pause{}, err
	}
	err := s.read(ctx)
	return s.current(), err
}

func (s *pauseSwitch) end(ctx context.Context, actor string) (Pause, error) {
	if err := s.store.ResumeSending(ctx, actor); err != nil {
		return Pause{}, err
	}
	err := s.read(ctx)
	return s.current(), err
}

// read looks whether sending is paused. It is called before anything is claimed:
// what was restored must not be sent because nobody has looked yet.
func (s *pauseSwitch) read(ctx context.Context) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	p, err := s.store.SendingPaused(ctx)
	if err != nil {
		return err
	}
	was := s.known.Swap(&p)
	wasOn := was != nil && was.On()
	switch {
	case p.On() && !wasOn:
		s.warn(p)
	case !p.On() && wasOn:
		s.log.Info("sending is resumed")
		s.hints.claim.raise()
	}
	return nil
}

func (s *pauseSwitch) warn(p Pause) {
	s.logged.Store(s.now().UnixMilli())
	s.log.Warn("sending is paused: notifications are accepted, and nothing is sent until it is resumed",
		"since", p.Since, "reason", p.Reason, "by", p.Actor, "after_restore", !p.Restored.IsZero())
}

// run keeps what is known of the pause fresh. What cannot be read changes nothing.
func (s *pauseSwitch) run() {
	for s.wait(nil, s.poll) {
		if err := s.read(s.running); err != nil {
			s.log.Error("look whether sending is paused", "error", err)
		}
		if p := s.current(); p.On() && s.now().UnixMilli()-s.logged.Load() >= pauseLogEvery.Milliseconds() {
			s.warn(p)
		}
	}
}
