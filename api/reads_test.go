package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

func TestReadsOfATenantTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := readTurns{places: map[place]*readPlace{}}
		hog, other := place{who: 1}, place{who: 2}
		var leave []func()
		for range readsAtOnce {
			l, err := r.enter(t.Context(), hog)
			require.NoError(t, err)
			leave = append(leave, l)
		}
		began := time.Now()
		_, err := r.enter(t.Context(), hog)
		require.Equal(t, problem.Throttled, problem.CodeOf(err))
		require.Equal(t, readWaits, time.Since(began))

		l, err := r.enter(t.Context(), other)
		require.NoError(t, err, "nobody waits for another")
		l()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = r.enter(gone, hog)
		require.ErrorIs(t, err, context.Canceled)

		entered := make(chan error)
		go func() {
			l, err := r.enter(t.Context(), hog)
			if err == nil {
				l()
			}
			entered <- err
		}()
		synctest.Wait()
		leave[0]()
		require.NoError(t, <-entered)
		for _, l := range leave[1:] {
			l()
		}
		require.Empty(t, r.places, "nothing is left behind")
	})
}
