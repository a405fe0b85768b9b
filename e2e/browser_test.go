package e2e_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// browserLimit is for a browser on a busy machine; usually it takes a few seconds.
const browserLimit = 90 * time.Second

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

// push sends one encrypted message to a subscription and returns the status.
func push(ctx context.Context, t testing.TB, key vapidKey, to subscription, message string) int {
	t.Helper()
	res, err := webpush.SendNotificationWithContext(ctx, []byte(message), &to.Subscription, &webpush.Options{
		HTTPClient: http.DefaultClient, Subscriber: "ops@example.com", TTL: 60,
		VAPIDPublicKey: key.public, VAPIDPrivateKey: key.private,
	})
	require.NoError(t, err)
	defer res.Body.Close()
	return res.StatusCode
}

// TestBrowser takes a real Firefox through the life of a subscription.
func TestBrowser(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), browserLimit)
	defer cancel()
	providers, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, providers.Close()) })
	key := newVAPIDKey(t)
	site := newSite(t, key)
	v := visit(ctx, t, providers.Push().SocketURL, site.url+"/")
	require.Equal(t, "/", await(ctx, t, site.opened))
	v.requireState("off")

	var device struct{ ID string }
	v.eval("carillon.subscribe()", &device)
	require.Equal(t, "dev_1", device.ID)
	v.requireState("on")
	first := await(ctx, t, site.registrations)
	require.Equal(t, "webpush", first.Channel)
	require.Equal(t, "shop", first.App)
	require.Equal(t, "web", first.OS)
	require.NotEmpty(t, first.Locale)
	require.NotEmpty(t, first.TimeZone)
	require.Len(t, first.Installation, 36)
	require.True(t, strings.HasPrefix(first.Subscription.Endpoint, providers.Push().URL), "its own push service")

	checkShown(v, site, key, first.Subscription)

	// The browser's subscription is lost: the worker makes another, the page reports it.
	// Firefox waits for a moment before it comes back, and is unknown by then.
	providers.Push().Disconnect()
	providers.Push().Forget()
	second := await(ctx, t, site.registrations)
	require.NotEqual(t, first.Subscription.Endpoint, second.Subscription.Endpoint)
	require.Equal(t, first.Installation, second.Installation)
	require.Equal(t, http.StatusGone, push(ctx, t, key, first.Subscription, "late"))

	// The app has got another key: the next page load subscribes with it.
	key = newVAPIDKey(t)
	site.key.Store(&key)
	v.eval("carillon.refresh()", nil)
	third := await(ctx, t, site.registrations)
	require.NotEqual(t, second.Subscription.Endpoint, third.Subscription.Endpoint)
	heard := v.during("push", func() {
		require.Equal(t, http.StatusCreated, push(ctx, t, key, third.Subscription, `{"notification":{"title":"New key"}}`))
	})
	require.Contains(t, heard, "notification")

	v.eval("carillon.unsubscribe()", nil)
	require.Equal(t, third.Subscription.Endpoint, await(ctx, t, site.unregistered))
	v.requireState("off")
	require.Equal(t, http.StatusGone, push(ctx, t, key, third.Subscription, "too late"))
	var refreshed *registration
	v.eval("carillon.refresh()", &refreshed)
	require.Nil(t, refreshed, "what was turned off stays off")
	require.Zero(t, providers.Report().Browser.Undecryptable)
}

// checkShown sends what a server may send and looks at what the browser shows.
func checkShown(v visitor, site *site, key vapidKey, to subscription) {
	t, ctx := v.t, v.ctx
	t.Helper()
	send := func(message string) func() {
		return func() { require.Equal(t, http.StatusCreated, push(ctx, t, key, to, message)) }
	}
	heard := v.during("push", send(`{"web_push":8030,"mutable":true,"carillon":"dlv_1","notification":{
		"title":"Parcel","body":"On its way","tag":"parcel-7","navigate":"`+site.url+`/other","requireInteraction":true,
		"data":{"carillon":"dlv_1","order":7}}}`))
	require.Equal(t, "dlv_1", heard["carillon"])
	up := v.notifications()
	require.Len(t, up, 1)
	require.Equal(t, "Parcel", up[0].Title)
	require.Equal(t, "On its way", up[0].Body)
	require.Equal(t, "parcel-7", up[0].Tag)
	require.Equal(t, site.url+"/other", *up[0].Data.URL)
	require.Equal(t, "dlv_1", *up[0].Data.Delivery)
	require.EqualValues(t, 7, up[0].Data.Data["order"])

	// The same tag takes its place.
	v.during("push", send(`{"notification":{"title":"Parcel","body":"At your door","tag":"parcel-7",
		"navigate":"`+site.url+`/other","requireInteraction":true},"carillon":"dlv_2"}`))
	up = v.notifications()
	require.Len(t, up, 1)
	require.Equal(t, "At your door", up[0].Body)

	clicked := v.during("click", func() { v.clickNotification("Parcel") })
	require.Equal(t, "dlv_2", clicked["delivery"])
	require.Equal(t, "/other", await(ctx, t, site.opened))
	require.Empty(t, v.notifications())

	// What is not ours, empty or without a body is shown too.
	for i, message := range []string{"Dinner is ready", ""} {
		v.during("push", send(message))
		up = v.notifications()
		require.Len(t, up, i+1)
		for _, n := range up {
			require.Equal(t, "127.0.0.1", n.Title)
			require.Nil(t, n.Data.Delivery)
		}
	}
}
