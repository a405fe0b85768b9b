package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
)

func pauseTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"a pause stands until it is ended": func(k *kit) {
			read := func() delivery.Pause {
				p, err := k.Store.SendingPaused(k.ctx)
				k.ok(err)
				return p
			}
			require.False(k, read().On())
			require.Equal(k, delivery.Pause{}, read())
			k.ok(k.Store.ResumeSending(k.ctx, "test")) // there is nothing to end
			since := k.Clock.Now()
			k.ok(k.Store.PauseSending(k.ctx, "first", "one"))
			k.Clock.Advance(time.Minute)
			k.ok(k.Store.PauseSending(k.ctx, "second", "two"))
			require.Equal(k, delivery.Pause{Since: since, Reason: "second", Actor: "two"}, read(), "it began when it began")
			k.ok(k.Store.ResumeSending(k.ctx, "test"))
			require.Equal(k, delivery.Pause{}, read())
		},
	}
}
