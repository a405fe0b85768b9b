package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A look that takes long delays nobody who asks, and is not made twice at a time.
func TestAScrapeDoesNotWaitForSlowLooks(t *testing.T) {
	t.Parallel()
	c := &stateCollector{log: slog.New(slog.DiscardHandler)}
	c.ctx, c.close = context.WithCancel(t.Context())
	defer c.close()
	goOn, looks, fail := make(chan struct{}), 0, error(nil)
	l := &look{part: 20, read: func(ctx context.Context, k *kept) error {
		looks++
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		k.keep(descPaused, float64(looks))
		return fail
	}}
	first := c.begin(l)
	require.Equal(t, first, c.begin(l), "one at a time")
	require.Empty(t, l.kept)
	close(goOn)
	<-first
	require.Len(t, l.kept, 1)
	require.Nil(t, c.begin(l), "it is not looked again so soon")
	require.False(t, l.next.Before(l.ended.Add(stateAge-time.Second)))

	l.next, fail = time.Time{}, errors.New("the database is away")
	ended := l.ended
	<-c.begin(l)
	require.Equal(t, gauge(descPaused, 1), l.kept[0], "what was seen stays")
	require.Equal(t, ended, l.ended, "and its age grows")

	c.close()
	l.next = time.Time{}
	require.Nil(t, c.begin(l))
}
