package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// shop is a channel whose senders count how often they are closed.
type shop struct {
	channels.Channel
	opened, closed atomic.Int64
	err            error
}

func (s *shop) Open(c channels.Credential) (channels.Sender, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.opened.Add(1)
	return &clerk{shop: s, version: c.Version}, nil
}

type clerk struct {
	channels.Sender
	shop    *shop
	version int
	closed  atomic.Bool
}

func (c *clerk) Close() {
	if c.closed.Swap(true) {
		panic("closed twice")
	}
	c.shop.closed.Add(1)
}

// newSenders has credentials of the version that version holds.
func newSenders() (s *senders, ch *shop, version *atomic.Int64) {
	ch, version = &shop{}, &atomic.Int64{}
	version.Store(1)
	return &senders{channels: map[channels.Kind]channels.Channel{channels.FCM: ch, channels.Webhook: ch},
		open: func(_ context.Context, _, id ids.ID) (channels.Credential, error) {
			if id == 404 {
				return channels.Credential{}, errors.New("no such credential")
			}
			return channels.Credential{ID: int64(id), Version: int(version.Load()), Settings: json.RawMessage("{}")}, nil
		}}, ch, version
}

func TestARotationClosesTheOldSenderAfterItsLastSend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, ch, version := newSenders()
		ctx := context.Background()
		get := func(want int) *sender {
			x, err := s.acquire(ctx, 1, 7, channels.FCM, want)
			require.NoError(t, err)
			return x
		}
		a, b := get(1), get(1)
		require.Same(t, a, b)
		version.Store(2)
		require.Same(t, a, get(1), "who wants no newer one gets what is open")
		s.release(a)
		next := get(2)
		require.Equal(t, 2, next.version)
		require.Same(t, next, get(1), "the newest serves everybody")
		s.release(a)
		synctest.Wait()
		require.Zero(t, ch.closed.Load(), "one send of the old one is still under way")
		s.release(b)
		synctest.Wait()
		require.EqualValues(t, 1, ch.closed.Load())
		require.True(t, a.Sender.(*clerk).closed.Load())
		s.release(next)
		s.release(next)
		s.close()
		require.EqualValues(t, 2, ch.closed.Load())
	})
}

func TestConcurrentAcquireKeepsOneSender(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, ch, version := newSenders()
		var wg sync.WaitGroup
		for want := 1; want <= 3; want++ {
			version.Store(int64(want))
			for range 50 {
				wg.Go(func() {
					x, err := s.acquire(context.Background(), 1, 7, channels.FCM, want)
					if err != nil || x.version < want || x.Sender.(*clerk).closed.Load() {
						t.Errorf("version %d for %d, %v", x.version, want, err)
					}
					s.release(x)
				})
			}
		}
		wg.Wait()
		synctest.Wait()
		require.EqualValues(t, 1, ch.opened.Load()-ch.closed.Load(), "all but the newest are closed")
		s.close()
		require.Equal(t, ch.opened.Load(), ch.closed.Load())
	})
}

func TestSendersWithoutUseAreClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, ch, _ := newSenders()
		ctx := context.Background()
		busy, err := s.acquire(ctx, 1, 7, channels.FCM, 1)
		require.NoError(t, err)
		idle, err := s.acquire(ctx, 1, 8, channels.FCM, 1)
		require.NoError(t, err)
		s.release(idle)
		hook, err := s.acquire(ctx, 1, 0, channels.Webhook, 0)
		require.NoError(t, err, "webhooks need no credential")
		s.release(hook)
		s.prune(map[ids.ID]int{7: 1, 8: 1})
		synctest.Wait()
		require.Zero(t, ch.closed.Load())
		s.prune(nil)
		synctest.Wait()
		require.EqualValues(t, 1, ch.closed.Load(), "one is busy, and that of webhooks belongs to nobody")
		s.release(busy)
		synctest.Wait()
		require.EqualValues(t, 2, ch.closed.Load())
	})
}

func TestASenderThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	s, ch, _ := newSenders()
	_, err := s.acquire(context.Background(), 1, 404, channels.FCM, 1)
	require.ErrorContains(t, err, "read the credential")
	ch.err = errors.New("bad key")
	_, err = s.acquire(context.Background(), 1, 7, channels.FCM, 1)
	require.ErrorContains(t, err, "open the credential")
	ch.err = nil
	_, err = s.acquire(context.Background(), 1, 7, channels.FCM, 1)
	require.NoError(t, err)
}
