package simulator_test

import (
	"context"
	"testing"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/option"

	"github.com/carillonhq/carillon/simulator"
)

// TestFirebaseSDK: Google's own client takes the simulator for FCM.
func TestFirebaseSDK(t *testing.T) {
	t.Parallel()
	r := setup(t)
	ctx := context.WithValue(withTimeout(t), oauth2.HTTPClient, r.client)
	config, err := google.JWTConfigFromJSON(r.FCM().ServiceAccount, messagingScope)
	require.NoError(t, err)
	for _, base := range []string{r.FCM().URL, r.FCM().TLSURL} {
		app, err := firebase.NewApp(ctx, &firebase.Config{ProjectID: r.FCM().Project},
			option.WithHTTPClient(config.Client(ctx)), option.WithEndpoint(base+"/v1"))
		require.NoError(t, err)
		client, err := app.Messaging(ctx)
		require.NoError(t, err)
		ttl := time.Hour
		message := func(to string) *messaging.Message {
			return &messaging.Message{Token: to, Data: map[string]string{"carillon": "dlv_1"},
				Notification: &messaging.Notification{Title: "t", Body: "b"},
				Android: &messaging.AndroidConfig{TTL: &ttl, Priority: "high", Notification: &messaging.AndroidNotification{
					ChannelID: "c", Color: "#112233", Priority: messaging.PriorityHigh, Visibility: messaging.VisibilityPublic,
					LightSettings: &messaging.LightSettings{Color: "#112233", LightOnDurationMillis: 1, LightOffDurationMillis: 1}}},
				APNS: &messaging.APNSConfig{Headers: map[string]string{"apns-priority": "10"},
					Payload: &messaging.APNSPayload{Aps: &messaging.Aps{AlertString: "x"}}},
				Webpush: &messaging.WebpushConfig{Headers: map[string]string{"TTL": "60"}, Notification: &messaging.WebpushNotification{Title: "t"}}}
		}
		name, err := client.Send(ctx, message("anna"))
		require.NoError(t, err)
		require.Contains(t, name, "projects/"+r.FCM().Project+"/messages/0:")
		name, err = client.SendDryRun(ctx, message("anna"))
		require.NoError(t, err)
		require.Contains(t, name, "fake_message_id")
		_, err = client.Send(ctx, message("sim-unregistered"))
		require.True(t, messaging.IsUnregistered(err), err)
		_, err = client.Send(ctx, message("sim-sender"))
		require.True(t, messaging.IsSenderIDMismatch(err), err)
		_, err = client.Send(ctx, message("sim-invalid"))
		require.True(t, messaging.IsInvalidArgument(err), err)
		_, err = client.Send(ctx, message("sim-quota"))
		require.True(t, messaging.IsQuotaExceeded(err), err)
		_, err = client.Send(ctx, message("sim-500"))
		require.True(t, messaging.IsInternal(err), err)
		_, err = client.Send(ctx, message("sim-thirdparty"))
		require.True(t, messaging.IsThirdPartyAuthError(err), err)
	}
	require.EqualValues(t, 2, r.Report().Channels[simulator.FCM].Accepted)
}
