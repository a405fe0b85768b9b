package simulator_test

import (
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"github.com/sideshow/apns2/token"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestAPNs2: the usual APNs client takes the simulator for APNs.
func TestAPNs2(t *testing.T) {
	t.Parallel()
	r := setup(t)
	key, err := token.AuthKeyFromBytes(r.APNs().P8)
	require.NoError(t, err)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: r.APNs().KeyID, TeamID: r.APNs().TeamID})
	client.Host = r.APNs().URL
	client.HTTPClient.Transport = http2Client(t, r).Transport
	ctx := withTimeout(t)
	push := func(device string) *apns2.Response {
		got, err := client.PushWithContext(ctx, &apns2.Notification{DeviceToken: device, Topic: r.APNs().Topic, ApnsID: uuid,
			Priority: apns2.PriorityHigh, Expiration: time.Now().Add(time.Hour), CollapseID: "c", Payload: payload.NewPayload().Alert("x")})
		require.NoError(t, err)
		return got
	}
	got := push(r.APNs().NewToken())
	require.True(t, got.Sent(), got.Reason)
	require.Equal(t, uuid, got.ApnsID)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got = push(simulator.Token(simulator.APNs, simulator.Fault{Status: 410, Timestamp: at}, 1))
	require.Equal(t, apns2.ReasonUnregistered, got.Reason)
	require.True(t, at.Equal(got.Timestamp.Time))
}

// TestWebPushGo does the same with the usual web push library.
func TestWebPushGo(t *testing.T) {
	t.Parallel()
	r := setup(t)
	pair := newVAPID(t)
	private, err := pair.key.Bytes()
	require.NoError(t, err)
	sub, err := r.Push().NewSubscription(pair.public)
	require.NoError(t, err)
	push := func(options webpush.Options) int {
		options.HTTPClient, options.VAPIDPublicKey, options.TTL = r.client, pair.public, 60
		options.VAPIDPrivateKey = base64.RawURLEncoding.EncodeToString(private)
		resp, err := webpush.SendNotificationWithContext(withTimeout(t), []byte(plaintext), judged(sub), &options)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, http.StatusCreated, push(webpush.Options{Subscriber: "ops@example.com", Topic: "news", Urgency: webpush.UrgencyHigh}))
	require.Equal(t, plaintext, string(r.last(t, simulator.WebPush).Payload))
	require.Equal(t, http.StatusForbidden, push(webpush.Options{Subscriber: "mailto:ops@example.com"}), "it becomes mailto:mailto:")
	require.Equal(t, http.StatusRequestEntityTooLarge, push(webpush.Options{Subscriber: "ops@example.com", RecordSize: 8192}))
}
