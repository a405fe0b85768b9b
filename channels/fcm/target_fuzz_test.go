package fcm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// FuzzCheckTarget: a token that is taken is printable, short, and the same device when
// it comes again.
func FuzzCheckTarget(f *testing.F) {
	f.Add(testToken, true)
	f.Add(" a:b-c_d\n", false)
	f.Add("a/b", true)
	f.Add("\u00fc\x00", true)
	f.Fuzz(func(t *testing.T, address string, token bool) {
		c, in := New(Options{}), channels.Target{Kind: channels.FCMFid, Address: address}
		if token {
			in.Kind = channels.FCMToken
		}
		got, err := c.CheckTarget(in)
		if err != nil {
			require.Equal(t, problem.Invalid, problem.CodeOf(err))
			return
		}
		require.NotContains(t, got.Address, "/")
		require.LessOrEqual(t, len(got.Address), maxAddress)
		for _, b := range []byte(got.Address) {
			require.True(t, b > ' ' && b < 0x7f)
		}
		again, err := c.CheckTarget(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
