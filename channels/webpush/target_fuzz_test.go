package webpush

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// FuzzCheckTarget: an endpoint that is taken is of a push service, and the same device
// when it comes again. What does not encrypt is refused.
func FuzzCheckTarget(f *testing.F) {
	b := newBrowser(f)
	good := b.target("https://fcm.googleapis.com/fcm/send/abc:def")
	f.Add(good.Address, good.P256dh, good.Auth)
	f.Add(" https://updates.push.services.mozilla.com/wpush/v2/x ", good.P256dh, good.Auth)
	f.Add("https://FCM.googleapis.com:443/fcm/send/x", good.P256dh, good.Auth)
	f.Add("https://fcm.googleapis.com/v1/projects/foo/messages:send", good.P256dh, good.Auth)
	f.Add("https://web.push.apple.com.evil.example/x", good.P256dh[1:], good.Auth[1:])
	f.Add("https://x@wns2-par02p.notify.windows.com/w/?token=a%2F", []byte{4}, []byte(nil))
	f.Fuzz(func(t *testing.T, address string, p256dh, auth []byte) {
		c := New(Options{})
		got, err := c.CheckTarget(channels.Target{Kind: channels.Subscription, Address: address, P256dh: p256dh, Auth: auth})
		if err != nil {
			require.Equal(t, problem.Invalid, problem.CodeOf(err))
			return
		}
		again, err := c.CheckTarget(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
		_, err = encrypt([]byte("x"), got, 0)
		require.NoError(t, err)
	})
}
