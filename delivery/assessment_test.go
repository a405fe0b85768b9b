package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// TestAssess is what a verdict may cost beyond its own delivery, as one table: the
// answer and what is known, and what follows for the device and the credential.
func TestAssess(t *testing.T) {
	t.Parallel()
	var (
		gone     = channels.Result{Outcome: channels.Gone}
		doubtful = channels.Result{Outcome: channels.Gone, Doubtful: true}
		denied   = channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential}
		origin   = channels.Result{Outcome: channels.Denied, Scope: channels.ScopeOrigin}
	)
	for name, x := range map[string]struct {
		r    channels.Result
		k    channels.Kind // 0: FCM
		e    evidence      // of the newest version, unless old
		old  bool
		want Assessment
	}{
		"a success":                           {r: channels.Result{Outcome: channels.Accepted}, e: evidence{proven: true}},
		"gone":                                {r: gone, e: evidence{proven: true}, want: Assessment{Believed: true}},
		"gone, of a version without success":  {r: gone},
		"gone, as too many":                   {r: gone, e: evidence{proven: true, breakerOpen: true}},
		"gone, or another cause":              {r: doubtful, e: evidence{proven: true}},
		"gone, of an old version":             {r: gone, e: evidence{proven: true}, old: true, want: Assessment{Stale: true}},
		"refused":                             {r: denied, e: evidence{proven: true}},
		"refused, of a version never proven":  {r: denied},
		"refused, while others are served":    {r: denied, e: evidence{worked: true}, want: Assessment{Alone: true}},
		"refused, as enough others":           {r: denied, e: evidence{enough: true}, want: Assessment{Convicted: true}},
		"refused, and the provider says so":   {r: denied, e: evidence{word: wordRefused}, want: Assessment{Convicted: true}},
		"refused, and the provider denies it": {r: denied, e: evidence{word: wordWorks}},
		"the provider's word beats numbers":   {r: denied, e: evidence{word: wordWorks, enough: true}},
		"refused, and held already":           {r: denied, e: evidence{held: true, word: wordWorks}, want: Assessment{Convicted: true}},
		"refused, of an old version":          {r: denied, e: evidence{enough: true, word: wordRefused}, old: true, want: Assessment{Stale: true}},
		"refused by a push service":           {r: origin, k: channels.WebPush},
		"refused by it, as enough others":     {r: origin, k: channels.WebPush, e: evidence{enough: true}, want: Assessment{Convicted: true}},
		"refused by it, and held already":     {r: origin, k: channels.WebPush, e: evidence{held: true}, want: Assessment{Convicted: true}},
		"a VAPID key that cannot sign":        {r: denied, k: channels.WebPush, want: Assessment{Convicted: true}},
		"refused by Apple":                    {r: denied, k: channels.APNs},
		"any other answer":                    {r: channels.Result{Outcome: channels.Retry}, e: evidence{enough: true, word: wordRefused}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, e := x.k, x.e
			if k == 0 {
				k = channels.FCM
			}
			e.newest = !x.old
			require.Equal(t, x.want, assess(x.r, k, e))
		})
	}
}
