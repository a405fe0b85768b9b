package e2e_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestABrowserThatComesBackLate: a browser subscribed with the first pair, and
// nobody wrote down which. Two rotations later it is still reached with its own, and
// moves to the newest when its page is opened.
func TestABrowserThatComesBackLate(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	acme, first := w.acme, w.key
	v := visit(w.ctx, t, w.providers.Push().SocketURL, w.site.url+"/")
	v.eval("carillon.subscribe()", nil)
	d := theDevice(acme)
	require.Equal(t, first.public, d.VAPIDKey, "the client says it")

	// As a registration of before, or by another client, that says nothing of the key.
	var subscription json.RawMessage
	v.eval("navigator.serviceWorker.ready.then((r) => r.pushManager.getSubscription()).then((s) => s.toJSON())", &subscription)
	acme.do("DELETE", "/v1/devices/"+d.ID, nil, nil)
	acme.do("PUT", "/v1/devices", map[string]any{"user": "alice", "subscription": subscription}, nil)
	require.Empty(t, theDevice(acme).VAPIDKey)

	newVAPIDKey(t).put(acme)
	newest := newVAPIDKey(t)
	newest.put(acme)
	heard := v.during("push", func() { acme.send(toAlice(map[string]any{"title": "Still there?"})) })
	require.Contains(t, heard, "notification")
	eventually(t, func() bool { return theDevice(acme).VAPIDKey == first.public }, "the key is learned")
	require.Equal(t, "active", theDevice(acme).Status)

	v.eval("carillon.refresh()", nil)
	eventually(t, func() bool {
		for _, d := range acme.devices("alice") {
			if d.VAPIDKey == newest.public {
				return true
			}
		}
		return false
	}, "it has moved to the newest pair")
	heard = v.during("push", func() { acme.send(toAlice(map[string]any{"title": "Here you are"})) })
	require.Contains(t, heard, "notification")
}
