package delivery

import (
	"context"
	"fmt"
	"sync"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// CredentialStore opens credentials.
type CredentialStore interface {
	OpenCredential(ctx context.Context, tenant, id ids.ID) (channels.Credential, error)
}

// senders keeps one open sender per credential: of the newest version that was
// asked for, so that a rotation takes effect with the next delivery. A replaced
// one is closed when its last send has ended.
type senders struct {
	channels map[channels.Kind]channels.Channel
	open     func(ctx context.Context, tenant, id ids.ID) (channels.Credential, error)

	mu    sync.Mutex
	known map[ids.ID]*sender
}

type sender struct {
	channels.Sender
	version int
	users   int
	retired bool
}

// acquire returns the sender for a version at least as new as the one wanted,
// with that version. release must be called once.
func (s *senders) acquire(ctx context.Context, tenant, id ids.ID, kind channels.Kind, version int) (*sender, error) {
	s.mu.Lock()
	if x := s.known[id]; x != nil && x.version >= version {
		x.users++
		s.mu.Unlock()
		return x, nil
	}
	s.mu.Unlock()
	// Reading and opening may take a moment; two that do it at once is no harm,
	// the one that comes second is closed again.
	c := channels.Credential{}
	if kind != channels.Webhook {
		var err error
		if c, err = s.open(ctx, tenant, id); err != nil {
			return nil, fmt.Errorf("read the credential: %w", err)
		}
	}
	raw, err := s.channels[kind].Open(c)
	if err != nil {
		return nil, fmt.Errorf("open the credential: %w", err)
	}
	x := &sender{Sender: raw, version: c.Version, users: 1}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.known[id]; have != nil && have.version >= x.version {
		have.users++
		go raw.Close()
		return have, nil
	} else if have != nil {
		s.retire(have)
	}
	if s.known == nil {
		s.known = map[ids.ID]*sender{}
	}
	s.known[id] = x
	return x, nil
}

func (s *senders) release(x *sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.users--; x.users == 0 && x.retired {
		go x.Close()
	}
}

func (s *senders) retire(x *sender) {
	x.retired = true
	if x.users == 0 {
		go x.Close()
	}
}

// prune closes senders whose credential is not in use any more.
func (s *senders) prune(inUse map[ids.ID]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.known {
		if _, keep := inUse[id]; id != 0 && !keep {
			delete(s.known, id)
			s.retire(x)
		}
	}
}

func (s *senders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.known {
		delete(s.known, id)
		x.retired = true
		if x.users == 0 {
			x.Close()
		}
	}
}
