package apns

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// FuzzCheckTarget: a token that is taken is hexadecimal, and the same device when it
// comes again.
func FuzzCheckTarget(f *testing.F) {
	f.Add("00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0", "")
	f.Add(" 00FC13ADFF785122B4AD28809A3420982341241421348097878E577C991DE8F0\n", "sandbox")
	f.Add("<00fc13ad>", "auto")
	f.Add("", "Production")
	f.Fuzz(func(t *testing.T, address, environment string) {
		c := New(Options{})
		got, err := c.CheckTarget(channels.Target{Kind: channels.APNsToken, Address: address, Environment: channels.Environment(environment)})
		if err != nil {
			require.Equal(t, problem.Invalid, problem.CodeOf(err))
			return
		}
		require.Regexp(t, `^[0-9a-f]{64,200}$`, got.Address)
		require.NotEmpty(t, got.Environment)
		again, err := c.CheckTarget(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
