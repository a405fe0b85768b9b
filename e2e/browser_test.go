package e2e_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// browserLimit is for a browser on a busy machine; usually it takes a few seconds.
const browserLimit = 5 * time.Minute

// vapidKey is an application server's key pair, base64url.
type vapidKey struct{ public, private string }

func newVAPIDKey(t testing.TB) vapidKey {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	return vapidKey{
		public:  base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()),
		private: base64.RawURLEncoding.EncodeToString(key.Bytes()),
	}
}

// put makes it a credential of the tenant.
func (k vapidKey) put(a tenant) {
	a.t.Helper()
	a.do("PUT", "/v1/apps/default/credentials/webpush", map[string]any{"subject": "mailto:ops@example.com", "public_key": k.public, "private_key": k.private, "rotate": true}, nil)
}

// web is a tenant with a VAPID pair, and a page of its whose users have tokens.
type web struct {
	ctx       context.Context
	providers *simulator.Simulator
	server    string
	acme      tenant
	key       vapidKey
	signer    userKey
	site      *site
}

func newWeb(t *testing.T) *web {
	t.Helper()
	w := &web{}
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithTimeout(t.Context(), browserLimit)
	t.Cleanup(cancel)
	var err error
	w.providers, err = simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.providers.Close()) })
	b := install(t, w.providers)
	b.start()
	w.server, w.acme, w.key = b.url, newTenant(t, b), newVAPIDKey(t)
	w.key.put(w.acme)
	w.acme.do("POST", "/v1/user-keys", map[string]any{"name": "site"}, &w.signer)
	w.site = newSite(t, b.url, w.signer, "alice")
	w.acme.do("PUT", "/v1/tenant", map[string]any{"settings": map[string]any{"origins": []string{w.site.url}}}, nil)
	return w
}

// TestBrowser takes a real Firefox through the life of a subscription, on a page
// of another origin than the server's.
func TestBrowser(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	ctx, providers, acme, key, site := w.ctx, w.providers, w.acme, w.key, w.site
	stranger := newSite(t, w.server, w.signer, "alice")

	v := visit(ctx, t, providers.Push().SocketURL, stranger.url+"/")
	var code string
	v.eval("carillon.subscribe().then(() => 'subscribed', (e) => e.code)", &code)
	require.Equal(t, "unreachable", code, "CORS keeps a page out whose origin the tenant does not list")
	require.Empty(t, acme.devices("alice"))

	require.NoError(t, v.Navigate(ctx, site.url+"/"))
	require.Equal(t, "/", await(ctx, t, site.opened))
	v.requireState("off")
	var made device
	v.eval("carillon.subscribe()", &made)
	v.requireState("on")
	first := theDevice(acme)
	require.Equal(t, made, first)
	require.Equal(t, "webpush", first.Channel)
	require.Equal(t, "default", first.App)
	require.Equal(t, "web", first.OS)
	require.NotEmpty(t, first.Locale)
	require.NotEmpty(t, first.TimeZone)
	require.Len(t, first.InstallationID, 36)
	require.True(t, strings.HasPrefix(first.Address, providers.Push().URL), "its own push service")

	checkShown(v, site, acme)
	checkForeign(v, key)

	// The push service loses the browser: the worker subscribes anew, the page reports it.
	providers.Push().Forget()
	eventually(t, func() bool { return theDevice(acme).Address != first.Address }, "the new subscription arrives")
	second := theDevice(acme)
	require.Equal(t, first.ID, second.ID, "it is the same browser")
	require.Equal(t, first.InstallationID, second.InstallationID)
	requireGone(t, first)

	// The app has got another key: the next page load subscribes with it.
	key = newVAPIDKey(t)
	key.put(acme)
	v.eval("carillon.refresh()", nil)
	third := theDevice(acme)
	require.NotEqual(t, second.Address, third.Address)
	heard := v.during("push", func() { acme.send(toAlice(map[string]any{"title": "New key"})) })
	require.Contains(t, heard, "notification")

	v.eval("carillon.unsubscribe()", nil)
	v.requireState("off")
	require.Empty(t, acme.devices("alice"))
	requireGone(t, third)
	got := acme.send(toAlice(map[string]any{"title": "Too late"}))
	require.Empty(t, got.Deliveries)
	require.Len(t, got.Skips, 1)
	require.Equal(t, "no_device", got.Skips[0].Reason)
	var refreshed *device
	v.eval("carillon.refresh()", &refreshed)
	require.Nil(t, refreshed, "what was turned off stays off")
	require.Zero(t, providers.Report().Browser.Undecryptable)
}

func toAlice(n map[string]any) map[string]any {
	n["to"], n["channels"] = map[string]any{"users": []string{"alice"}}, []string{"webpush"}
	return n
}

// theDevice is the one that alice has.
func theDevice(a tenant) device {
	a.t.Helper()
	list := a.devices("alice")
	require.Len(a.t, list, 1)
	return list[0]
}

// requireGone tells that the push service has ended a subscription.
func requireGone(t testing.TB, d device) {
	t.Helper()
	res, err := http.Post(d.Address, "application/octet-stream", nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusGone, res.StatusCode)
}

// checkShown sends over the API and looks at what the browser shows.
func checkShown(v visitor, site *site, acme tenant) {
	t, ctx := v.t, v.ctx
	t.Helper()
	parcel := func(body string) map[string]any {
		return toAlice(map[string]any{"title": "Parcel", "body": body, "collapse_key": "parcel-7", "url": site.url + "/other", "data": map[string]any{"order": 7},
			"overrides": map[string]any{"webpush": map[string]any{"notification": map[string]any{"requireInteraction": true}}}})
	}
	var got accepted
	heard := v.during("push", func() { got = acme.send(parcel("On its way")) })
	require.Equal(t, got.Deliveries[0].ID, heard["carillon"])
	up := v.notifications("/")
	require.Len(t, up, 1)
	require.Equal(t, "Parcel", up[0].Title)
	require.Equal(t, "On its way", up[0].Body)
	require.Equal(t, "parcel-7", up[0].Tag)
	require.Equal(t, site.url+"/other", *up[0].Data.URL)
	require.Equal(t, got.Deliveries[0].ID, *up[0].Data.Delivery)
	require.EqualValues(t, 7, up[0].Data.Data["order"])
	eventually(t, func() bool {
		var d struct{ State string }
		acme.do("GET", "/v1/deliveries/"+got.Deliveries[0].ID, nil, &d)
		return d.State == "sent"
	}, "the delivery is sent")

	// The same tag takes its place.
	v.during("push", func() { got = acme.send(parcel("At your door")) })
	up = v.notifications("/")
	require.Len(t, up, 1)
	require.Equal(t, "At your door", up[0].Body)

	clicked := v.during("click", func() { v.clickNotification("Parcel") })
	require.Equal(t, got.Deliveries[0].ID, clicked["delivery"])
	require.Equal(t, "/other", await(ctx, t, site.opened))
	require.Empty(t, v.notifications("/"))
}

// checkForeign pushes what is not ours, and empty messages, which are shown too:
// a browser takes the permission from a worker that shows nothing.
func checkForeign(v visitor, key vapidKey) {
	t := v.t
	t.Helper()
	var to webpush.Subscription
	v.eval("navigator.serviceWorker.getRegistration('/').then((r) => r.pushManager.getSubscription()).then((s) => s.toJSON())", &to)
	for i, message := range []string{"Dinner is ready", ""} {
		v.during("push", func() {
			res, err := webpush.SendNotificationWithContext(v.ctx, []byte(message), &to, &webpush.Options{
				HTTPClient: http.DefaultClient, Subscriber: "ops@example.com", TTL: 60,
				VAPIDPublicKey: key.public, VAPIDPrivateKey: key.private,
			})
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusCreated, res.StatusCode)
		})
		up := v.notifications("/")
		require.Len(t, up, i+1)
		for _, n := range up {
			require.Equal(t, "127.0.0.1", n.Title)
			require.Nil(t, n.Data.Delivery)
		}
	}
}

// TestDemoPage runs the demo as people do, and a visitor who presses its buttons.
func TestDemoPage(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), browserLimit)
	defer cancel()
	d := startDemo(t)
	v := visit(ctx, t, "ws"+strings.TrimPrefix(d.simulator, "http")+"/push", d.page)
	browserOf := func(user string) *device { // besides those that the demo has made
		for _, x := range d.api.devices(user) {
			if x.InstallationID != "" {
				return &x
			}
		}
		return nil
	}
	text := func(s string) string { quoted, _ := json.Marshal(s); return string(quoted) }
	logged := func(line string) { v.until("document.getElementById('log').textContent.includes(" + text(line) + ")") }

	v.press("#enable")
	v.until("document.getElementById('state').dataset.state === 'on'")
	require.NotNil(t, browserOf("alice"))
	address := browserOf("alice").Address
	require.True(t, strings.HasPrefix(address, d.simulator))

	v.press("#send-button")
	logged("Arrived: “Good morning”")
	up := v.notifications("/demo/")
	require.Len(t, up, 1)
	require.Equal(t, "Good morning", up[0].Title)
	require.Equal(t, "The bells are ringing.", up[0].Body)
	require.Equal(t, d.page, *up[0].Data.URL)
	v.clickNotification("Good morning")
	logged("You clicked a notification.")
	require.Empty(t, v.notifications("/demo/"))

	v.press("input[value=bob]")
	logged("Notifications in this browser go to Bob.")
	require.Nil(t, browserOf("alice"))
	require.Equal(t, address, browserOf("bob").Address)

	v.press("#disable")
	v.until("document.getElementById('state').dataset.state === 'off'")
	require.Nil(t, browserOf("bob"))
	requireGone(t, device{Address: address})
	d.stop()
}
