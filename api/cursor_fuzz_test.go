package api

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// FuzzCursor: a cursor that is taken is one that this list has given.
func FuzzCursor(f *testing.F) {
	f.Add("deliveries", "")
	f.Add("deliveries", formatCursor("deliveries", delivery.Cursor{Notification: 5, Target: 7, At: epoch}))
	f.Add("devices", formatCursor("deliveries", byID(ids.ID(1)<<62)))
	f.Add("devices", formatCursor("devices", delivery.Cursor{}))
	f.Add("x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, list, text string) {
		c, err := Paging{Cursor: text}.after(list)
		if err != nil {
			require.Equal(t, problem.Invalid, problem.CodeOf(err))
			require.Equal(t, delivery.Cursor{}, c)
			return
		}
		if text != "" {
			require.Equal(t, text, formatCursor(list, c))
		}
	})
}
