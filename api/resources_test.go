package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func get(path, key string) request { return request{method: http.MethodGet, path: path, key: key} }

func TestDevicePutsBecomeRegistrations(t *testing.T) {
	t.Parallel()
	w := setup(t)
	put := func(body string) *devices.Registration {
		t.Helper()
		rec := w.do(t, request{method: "PUT", path: "/v1/devices", key: keyAdmin, body: body})
		require.Less(t, rec.Code, 300, rec.Body.String())
		require.Equal(t, devices.Caller{Actor: theKey.Format(ids.Key)}, w.devices.last.By)
		w.devices.last.By = devices.Caller{}
		return &w.devices.last
	}
	r := put(`{"user":"u1","channel":"apns","token":"ab12","environment":"sandbox","tags":{"a":"b"},"os":"ios","registered_at":"2026-01-01T00:00:00Z"}`)
	require.Equal(t, devices.Registration{User: "u1", Channel: channels.APNs, Address: "ab12", Environment: "sandbox", Tags: map[string]string{"a": "b"},
		OS: "ios", RegisteredAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, *r)
	r = put(`{"user":"u1","channel":"apns","token":"ab12","purpose":"activity","activity_id":"order-7","expires_at":"2026-01-01T00:00:00Z"}`)
	require.Equal(t, devices.Registration{User: "u1", Channel: channels.APNs, Address: "ab12", Purpose: "activity", ActivityID: "order-7",
		ExpiresAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, *r)
	r = put(`{"user":"u1","fid":"cabc"}`)
	require.Equal(t, devices.Registration{User: "u1", Channel: channels.FCM, Kind: channels.FCMFid, Address: "cabc"}, *r)
	r = put(`{"user":"u1","app":"web","subscription":{"endpoint":"https://push.example/x","expirationTime":1767225600000.5,"keys":{"p256dh":"P","auth":"A"}}}`)
	require.Equal(t, devices.Registration{User: "u1", App: "web", Channel: channels.WebPush, Kind: channels.Subscription, Address: "https://push.example/x",
		P256dh: "P", Auth: "A", ExpiresAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, *r)

	require.Equal(t, 201, w.do(t, request{method: "PUT", path: "/v1/devices", key: keyAdmin, body: `{"user":"u","channel":"fcm","token":"new"}`}).Code)
	for _, body := range []string{`{"user":"u"}`, `{"user":"u","token":"a","fid":"b"}`} {
		p := problemIn(t, w.do(t, request{method: "PUT", path: "/v1/devices", key: keyAdmin, body: body}))
		require.Equal(t, "token", p.Errors[0].Path)
	}
	p := problemIn(t, w.do(t, request{method: "PUT", path: "/v1/devices", key: keyAdmin,
		body: `{"user":"u","expires_at":"2026-01-01T00:00:00Z","subscription":{"endpoint":"a","keys":{"p256dh":"b","auth":"c"}}}`}))
	require.Equal(t, "expires_at", p.Errors[0].Path, "a subscription has a member of its own for that")
}

func TestThePurposeIsShownWhereThereIsOne(t *testing.T) {
	t.Parallel()
	shown := showDevice(devices.Device{Channel: channels.APNs, Purpose: channels.Activity, ActivityID: "order-7"})
	require.Equal(t, "activity", shown.Purpose)
	require.Equal(t, "order-7", shown.ActivityID)
	require.Empty(t, showDevice(devices.Device{Channel: channels.FCM, Purpose: channels.Alert}).Purpose)
}

func TestFaultsOfADeviceAreNamedAsInTheBody(t *testing.T) {
	t.Parallel()
	w := setup(t)
	var f problem.Fields
	f.Add("address", "bad")
	f.Add("keys.auth", "bad")
	f.Add("user", "bad")
	w.devices.err = f.Err()
	for body, want := range map[string][]string{
		`{"user":"u","channel":"fcm","token":"a"}`:                                      {"token", "keys.auth", "user"},
		`{"user":"u","fid":"a"}`:                                                        {"fid", "keys.auth", "user"},
		`{"user":"u","subscription":{"endpoint":"a","keys":{"p256dh":"b","auth":"c"}}}`: {"subscription.endpoint", "subscription.keys.auth", "user"},
	} {
		p := problemIn(t, w.do(t, request{method: "PUT", path: "/v1/devices", key: keyAdmin, body: body}))
		var got []string
		for _, x := range p.Errors {
			got = append(got, x.Path)
		}
		require.Equal(t, want, got, body)
	}
}

func TestAUserReachesTheirOwnDevicesOnly(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := problemIn(t, w.do(t, request{method: "PUT", path: "/v1/me/devices", key: tokenUser, body: `{"user":"u2","channel":"fcm","token":"a"}`}))
	require.Equal(t, "user", p.Errors[0].Path, "a token's user cannot name another")
	require.Empty(t, w.did)
	w.do(t, request{method: "PUT", path: "/v1/me/devices", key: tokenUser, body: `{"channel":"fcm","token":"a"}`})
	require.Equal(t, "u1", w.devices.last.User)
	p = problemIn(t, w.do(t, get("/v1/me/devices?user=u2", tokenUser)))
	require.Equal(t, "user", p.Errors[0].Path)
	w.do(t, get("/v1/me/devices", tokenUser))
	require.Equal(t, "u1", w.devices.user)
	w.did = nil
	w.do(t, request{method: "DELETE", path: "/v1/me/devices/" + theDevice.Format(ids.Device), key: tokenUser})
	w.do(t, request{method: "POST", path: "/v1/me/devices/unregister", key: tokenUser, body: `{"address":"tok","channel":"apns"}`})
	require.Equal(t, []string{"delete device of u1", "delete apns address of u1"}, w.did)
	gone := jsonIn[Unregistered](t, w.do(t, request{method: "POST", path: "/v1/me/devices/unregister", key: tokenUser, body: `{"address":"other"}`}), 200)
	require.False(t, gone.Removed)
}

func TestPushKeyIsOfTheNewestActivePair(t *testing.T) {
	t.Parallel()
	w := setup(t)
	require.Equal(t, problem.NotFound, problemIn(t, w.do(t, get("/v1/me/push-key", tokenUser))).Code)
	pair := func(id ids.ID, app string, kind channels.Kind, status tenants.CredentialStatus, key string) tenants.Credential {
		return tenants.Credential{ID: id, App: app, Channel: kind, Status: status, Qualifier: key}
	}
	w.tenants.credentials = []tenants.Credential{
		pair(3, "default", channels.WebPush, tenants.CredentialActive, "old"), pair(5, "default", channels.WebPush, tenants.CredentialActive, "new"),
		pair(4, "default", channels.WebPush, tenants.CredentialActive, "between"), pair(6, "default", channels.WebPush, tenants.CredentialPaused, "paused"),
		pair(7, "default", channels.APNs, tenants.CredentialActive, "production"), pair(8, "shop", channels.WebPush, tenants.CredentialActive, "shop"),
	}
	require.Equal(t, PushKey{App: "default", PublicKey: "new"}, jsonIn[PushKey](t, w.do(t, get("/v1/me/push-key", tokenUser)), 200))
	require.Equal(t, PushKey{App: "shop", PublicKey: "shop"}, jsonIn[PushKey](t, w.do(t, get("/v1/me/push-key?app=shop", tokenUser)), 200))
}

func TestCredentialInputGoesThroughAsItWasSent(t *testing.T) {
	t.Parallel()
	w := setup(t)
	body := `{"service_account": {"private_key":"x", "n":1.10}}`
	c := jsonIn[Credential](t, w.do(t, request{method: "PUT", path: "/v1/apps/shop/credentials/fcm", key: keyAdmin, body: body}), 200)
	require.Equal(t, theCredential.Format(ids.Credential), c.ID)
	require.JSONEq(t, `{"public_key":"BPublicKey"}`, string(c.Settings))
	require.Equal(t, body, string(w.tenants.input))
	w.did = nil
	for _, bad := range []string{`[]`, `"x"`, `{"a":{"b":1,"b":2}}`, "{\"a\":\"\xff\"}"} {
		problemIn(t, w.do(t, request{method: "PUT", path: "/v1/apps/shop/credentials/fcm", key: keyAdmin, body: bad}))
	}
	require.Empty(t, w.did)
}

func TestSecretsAreInTheAnswerThatMakesThemOnly(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for path, secret := range map[string]string{"/v1/keys": "crl_shown_once", "/v1/user-keys": "shown_once", "/v1/endpoints": "whsec_shown_once"} {
		body := map[string]string{"/v1/keys": bodies["createKey"], "/v1/user-keys": bodies["createUserKey"], "/v1/endpoints": bodies["createEndpoint"]}[path]
		made := jsonIn[map[string]any](t, w.do(t, request{method: "POST", path: path, key: keyAdmin, body: body}), 201)
		require.Equal(t, secret, made["secret"])
		require.NotContains(t, w.do(t, get(path, keyAdmin)).Body.String(), "secret")
	}
	require.NotContains(t, w.log.String(), "shown_once")
}

func TestEndpointChangesReachTheEngine(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := theEndpoint.Format(ids.Endpoint)
	for _, r := range []request{
		{method: "POST", path: "/v1/endpoints", body: bodies["createEndpoint"]},
		{method: "PATCH", path: "/v1/endpoints/" + id, body: `{"user":"","event_types":[],"description":null}`},
		{method: "POST", path: "/v1/endpoints/" + id + "/pause", body: `{}`},
		{method: "POST", path: "/v1/endpoints/" + id + "/resume"},
		{method: "DELETE", path: "/v1/endpoints/" + id},
	} {
		w.did = nil
		r.key = keyWith(tenants.Webhooks)
		require.Less(t, w.do(t, r).Code, 300)
		require.Equal(t, "changed "+id, w.did[len(w.did)-1])
	}
	require.NotNil(t, w.endpoints.patch.User)
	require.Empty(t, *w.endpoints.patch.User)
	require.NotNil(t, w.endpoints.patch.EventTypes)
	require.Nil(t, w.endpoints.patch.Description, "null is the same as absent")
	require.Nil(t, w.endpoints.patch.URL)
}

func TestHoldsNameTheCallThatReleasesThem(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.holds = []delivery.Hold{
		{ID: theHold, Scope: delivery.HoldCredential, Subject: theCredential, Channel: channels.FCM, Reason: delivery.CredentialDenied, Detail: "401", Since: epoch, Held: 12, More: true},
		{ID: theHold, Scope: delivery.HoldEndpoint, Subject: theEndpoint, Channel: channels.Webhook, Reason: delivery.EndpointPaused, Since: epoch},
		{ID: theHold, Scope: delivery.HoldMissing, App: "shop", Channel: channels.APNs, Qualifier: "sandbox", Reason: delivery.CredentialMissing, Since: epoch},
		{ID: theHold, Scope: delivery.HoldDoubt, Subject: theCredential, Version: 2, Reason: delivery.InDoubt, Since: epoch},
		{ID: theHold, Scope: delivery.HoldEndpoint, Subject: theEndpoint, Reason: delivery.EndpointPaused, Since: epoch, Ending: delivery.Resume},
	}
	got := jsonIn[List[Hold]](t, w.do(t, get("/v1/holds", keyAdmin)), 200)
	require.Nil(t, got.NextCursor)
	var release []string
	for _, h := range got.Data {
		release = append(release, h.Release)
	}
	crd, whe := theCredential.Format(ids.Credential), theEndpoint.Format(ids.Endpoint)
	require.Equal(t, []string{"POST /v1/credentials/" + crd + "/resume", "POST /v1/endpoints/" + whe + "/resume",
		"PUT /v1/apps/shop/credentials/apns", "POST /v1/credentials/" + crd + "/resume", ""}, release)
	require.Equal(t, Hold{ID: theHold.Format(ids.Hold), Scope: "credential", Subject: crd, Channel: "fcm", Reason: "credential_denied", Detail: "401",
		Since: epoch, Held: 12, More: true, Release: release[0]}, got.Data[0])
	require.Equal(t, "resume", got.Data[4].Ending)
}

// TestWhatWaitsIsListedWithWhatIsHeld: people look for both in one place.
func TestWhatWaitsIsListedWithWhatIsHeld(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.holds = []delivery.Hold{{ID: theHold, Scope: delivery.HoldCredential, Subject: theCredential, Qualifier: "https://a.example", Reason: delivery.CredentialDenied, Detail: "no", Since: epoch}}
	w.tenants.credentials = []tenants.Credential{aCredential()}
	w.reads.waits = []delivery.Wait{
		{ID: theHold, Subject: theCredential, Origin: "https://b.example", Channel: channels.WebPush, Cause: delivery.WaitThrottled, Detail: "too fast", Since: epoch,
			Until: epoch.Add(time.Hour), LastSuccess: epoch.Add(-time.Hour)},
		{ID: theHold, Subject: theEndpoint, Channel: channels.Webhook, Cause: delivery.WaitFailing, Since: epoch},
	}
	got := jsonIn[List[Hold]](t, w.do(t, get("/v1/holds", keyAdmin)), 200).Data
	crd, whe := theCredential.Format(ids.Credential), theEndpoint.Format(ids.Endpoint)
	require.Len(t, got, 3)
	require.Equal(t, []Hold{
		{ID: theHold.Format(ids.Hold), Scope: "credential", Subject: crd, Channel: "webpush", Qualifier: "https://b.example", Reason: "throttled", Detail: "too fast", Since: epoch,
			Until: epoch.Add(time.Hour), Success: epoch.Add(-time.Hour), Release: "POST /v1/credentials/" + crd + "/resume"},
		{ID: theHold.Format(ids.Hold), Scope: "endpoint", Subject: whe, Channel: "webhook", Reason: "failing", Since: epoch, Release: "POST /v1/endpoints/" + whe + "/resume"},
	}, got[1:])

	want := []Trouble{{Reason: "credential_denied", PushService: "https://a.example", Detail: "no", Since: epoch},
		{Reason: "throttled", PushService: "https://b.example", Detail: "too fast", Since: epoch, Until: epoch.Add(time.Hour)}}
	require.Equal(t, want, jsonIn[Credential](t, w.do(t, get("/v1/credentials/"+crd, keyAdmin)), 200).Troubles)
	require.Equal(t, want, jsonIn[List[Credential]](t, w.do(t, get("/v1/credentials", keyAdmin)), 200).Data[0].Troubles)
}

func TestADeliverySaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	waited := delivery.Waited{Cause: delivery.WaitThrottled, Subject: theCredential, Origin: "https://a.example", Detail: "too fast", Since: epoch, Until: epoch.Add(time.Hour), At: epoch.Add(time.Minute)}
	last := delivery.Attempt{Number: 1, At: epoch, Outcome: channels.Retry, Detail: "503"}
	behind := &Wait{Reason: "throttled", Subject: theCredential.Format(ids.Credential), PushService: "https://a.example", Detail: "too fast", Since: epoch, Until: epoch.Add(time.Hour)}
	for name, x := range map[string]struct {
		v    delivery.View
		want *Wait
	}{
		"nothing":          {delivery.View{State: delivery.Pending}, nil},
		"all wait":         {delivery.View{State: delivery.Pending, Waited: waited, Last: last}, behind},
		"it has expired":   {delivery.View{State: delivery.Dropped, Waited: waited}, behind},
		"its own schedule": {delivery.View{State: delivery.Pending, Last: last, DueAt: epoch.Add(time.Minute)}, &Wait{Reason: "retry", Detail: "503", Since: epoch, Until: epoch.Add(time.Minute)}},
		"it was told so": {delivery.View{State: delivery.Pending, Last: delivery.Attempt{Number: 1, At: epoch, Outcome: channels.Throttled}, DueAt: epoch.Add(time.Minute)},
			&Wait{Reason: "throttled", Since: epoch, Until: epoch.Add(time.Minute)}},
		"its device":  {delivery.View{State: delivery.Pending, Waited: delivery.Waited{Cause: delivery.WaitThrottled, Device: true, Since: epoch, At: epoch}}, &Wait{Reason: "throttled", Since: epoch}},
		"it was sent": {delivery.View{State: delivery.Sent, Last: last}, nil},
		"it is sent again": {delivery.View{State: delivery.Pending, Waited: delivery.Waited{Cause: delivery.WaitFailing, Since: epoch.Add(-time.Hour), At: epoch.Add(-time.Hour)},
			Last: delivery.Attempt{Number: 2, At: epoch, Outcome: channels.Accepted, Detail: "204"}, DueAt: epoch.Add(time.Minute)}, nil},
	} {
		x.v.Channel = channels.WebPush
		require.Equal(t, x.want, showDelivery(x.v).Wait, name)
	}
}

func TestDeliveriesAreShown(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id := ids.FormatDelivery(theNotification, theTarget)
	d := jsonIn[DeliveryDetail](t, w.do(t, get("/v1/deliveries/"+id, keyAdmin)), 200)
	require.Equal(t, id, d.ID)
	require.Equal(t, theTarget.Format(ids.Device), d.Target)
	require.Equal(t, "dead", d.State)
	require.Equal(t, "exhausted", d.Reason)
	require.Equal(t, theHold.Format(ids.Hold), d.Hold)
	require.Len(t, d.Attempts, 2)
	require.Equal(t, "unknown", d.Attempts[0].Outcome)
	require.Equal(t, int64(1500), d.Last.DurationMS)
	rec := w.do(t, request{method: "POST", path: "/v1/deliveries/" + ids.FormatDelivery(theNotification, theDevice) + "/replay", key: keyAdmin})
	require.Equal(t, problem.Conflict, problemIn(t, rec).Code)
	n := jsonIn[Canceled](t, w.do(t, request{method: "POST", path: "/v1/notifications/" + theNotification.Format(ids.Notification) + "/cancel", key: keyAdmin}), 200)
	require.Equal(t, Canceled{Canceled: 3, Notification: true}, n)
}

func TestListsOfDeliveriesFilterAndTurnPages(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for range 3 {
		w.reads.rows = append(w.reads.rows, aView())
	}
	for _, path := range []string{"/v1/deliveries", "/v1/notifications/" + theNotification.Format(ids.Notification) + "/deliveries", "/v1/dead-letters"} {
		filter := "?limit=2&channel=fcm&user=u1&reason=gone&since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z"
		first := jsonIn[List[Delivery]](t, w.do(t, get(path+filter, keyAdmin)), 200)
		require.Len(t, first.Data, 2, path)
		require.NotNil(t, first.NextCursor, path)
		q := w.reads.query
		require.Equal(t, 3, q.Limit)
		require.Equal(t, channels.FCM, q.Channel)
		require.Equal(t, "u1", q.User)
		require.Equal(t, delivery.Gone, q.Reason)
		require.Equal(t, "2026-01-01T00:00:00Z", q.Since.Format(time.RFC3339))
		require.Equal(t, strings.Contains(path, "ntf_"), q.Notification == theNotification)

		w.reads.rows = w.reads.rows[:1]
		last := jsonIn[List[Delivery]](t, w.do(t, get(path+filter+"&cursor="+*first.NextCursor, keyAdmin)), 200)
		require.Nil(t, last.NextCursor)
		require.Equal(t, theNotification, w.reads.query.After.Notification)
		require.Equal(t, theTarget, w.reads.query.After.Target)
		require.Equal(t, path == "/v1/dead-letters", w.reads.query.After.At.Equal(epoch.Add(time.Second)))
		w.reads.rows = append(w.reads.rows, aView(), aView())
	}
	w.do(t, get("/v1/deliveries?state=held", keyAdmin))
	require.Equal(t, delivery.Held, w.reads.query.State)
	require.Equal(t, defaultLimit+1, w.reads.query.Limit)
}

func TestListsOfOneNotificationTellAbsentFromEmpty(t *testing.T) {
	t.Parallel()
	w := setup(t)
	empty := jsonIn[List[Delivery]](t, w.do(t, get("/v1/notifications/"+theNotification.Format(ids.Notification)+"/deliveries", keyAdmin)), 200)
	require.NotNil(t, empty.Data)
	require.Empty(t, empty.Data)
	require.Equal(t, 404, w.do(t, get("/v1/notifications/"+theTarget.Format(ids.Notification)+"/deliveries", keyAdmin)).Code)
}

func TestTamperedCursorsAreRefused(t *testing.T) {
	t.Parallel()
	w := setup(t)
	page := jsonIn[List[Notification]](t, w.do(t, get("/v1/users/u1/notifications?limit=1", keyAdmin)), 200)
	good := *page.NextCursor
	next := jsonIn[List[Notification]](t, w.do(t, get("/v1/users/u1/notifications?limit=5&cursor="+good, keyAdmin)), 200)
	require.Equal(t, []string{ids.ID(2).Format("ntf"), ids.ID(3).Format("ntf")}, []string{next.Data[0].ID, next.Data[1].ID})
	require.Nil(t, next.NextCursor)

	raw, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	for i := range raw {
		bent := append([]byte{}, raw...)
		bent[i] ^= 1
		p := problemIn(t, w.do(t, get("/v1/users/u1/notifications?cursor="+base64.RawURLEncoding.EncodeToString(bent), keyAdmin)))
		require.Equal(t, "cursor", p.Errors[0].Path)
	}
	for _, bad := range []string{good[1:], good + "A", "%20", strings.Repeat("A", 129)} {
		require.Equal(t, 422, w.do(t, get("/v1/users/u1/notifications?cursor="+bad, keyAdmin)).Code, bad)
	}
	require.Equal(t, 422, w.do(t, get("/v1/users/u2/notifications?cursor="+good, keyAdmin)).Code, "a cursor of another list")
}

func TestTenantsArePutAndRead(t *testing.T) {
	t.Parallel()
	w := setup(t)
	require.Equal(t, 201, w.do(t, request{method: "PUT", path: "/v1/tenants/new", key: keyOperator, body: `{"title":"New"}`}).Code)
	require.Equal(t, 200, w.do(t, request{method: "PUT", path: "/v1/tenants/acme", key: keyOperator, body: `{"settings":{"ttl":{"fcm":60},"retry":{"webhook":{"preset":"fast"}}}}`}).Code)
	w.did = nil
	jsonIn[Tenant](t, w.do(t, request{method: "PUT", path: "/v1/tenant", key: keyAdmin, body: `{"title":"Acme"}`}), 200)
	require.Equal(t, []string{"put tenant acme"}, w.did, "a tenant's key changes its own tenant")
	p := problemIn(t, w.do(t, request{method: "PUT", path: "/v1/tenant", key: keyAdmin, body: `{"settings":{"retry":{"webhook":{"presets":"fast"}}}}`}))
	require.Equal(t, "settings.retry.webhook.presets", p.Errors[0].Path)
}

func TestAnswersHaveTheirTimesInUTC(t *testing.T) {
	t.Parallel()
	out, err := json.Marshal(timestamp(time.Date(2026, 1, 1, 1, 0, 0, 123456789, time.FixedZone("x", 3600))))
	require.NoError(t, err)
	require.Equal(t, `"2026-01-01T00:00:00.123Z"`, string(out))
}

func TestAStoreThatFailsIsNotAnEmptyList(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.failWith = errors.New("disk")
	require.Equal(t, 500, w.do(t, get("/v1/notifications/"+theNotification.Format(ids.Notification), keyAdmin)).Code)
}

func TestAnErasureIsAReceipt(t *testing.T) {
	t.Parallel()
	w := setup(t)
	e := jsonIn[Erasure](t, w.do(t, request{method: "DELETE", path: "/v1/users/a%2Fb", key: keyWith(tenants.Erase)}), 202)
	require.Equal(t, []string{"erase a/b by " + theKey.Format(ids.Key)}, w.did)
	require.Equal(t, Erasure{ID: theErasure.Format(ids.Erasure), Subject: "00ff", State: "running", Origin: "request", Actor: "key_1",
		Job: theJob.Format(ids.Job), RequestedAt: epoch, Rows: map[string]int{"devices": 2}}, e)
	require.Equal(t, e, jsonIn[Erasure](t, w.do(t, get("/v1/erasures/"+e.ID, keyAdmin)), 200))
	require.Equal(t, []Erasure{e}, jsonIn[List[Erasure]](t, w.do(t, get("/v1/erasures", keyAdmin)), 200).Data)
}

func TestADeletedTenantIsShownAndActsForNobody(t *testing.T) {
	t.Parallel()
	w := setup(t)
	require.Equal(t, "active", jsonIn[Tenant](t, w.do(t, get("/v1/tenants/acme", keyOperator)), 200).State)
	gone := jsonIn[Tenant](t, w.do(t, request{method: "DELETE", path: "/v1/tenants/acme", key: keyOperator}), 202)
	require.Equal(t, "deleting", gone.State)
	require.Equal(t, epoch, gone.DeletedAt)
	require.Equal(t, gone, jsonIn[Tenant](t, w.do(t, get("/v1/tenants/acme", keyOperator)), 200))
	w.did = nil
	req := get("/v1/keys", keyOperator)
	req.tenant = "acme"
	require.Equal(t, problem.Conflict, problemIn(t, w.do(t, req)).Code)
	require.Empty(t, w.did)
}

// A page of a filtered list may be empty though there are more.
func TestAFilteredListGoesOn(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.window = delivery.Cursor{Notification: theNotification, Target: theTarget, At: epoch}
	w.devices.window = theDevice
	for _, list := range []string{"/v1/deliveries?reason=gone", "/v1/dead-letters?channel=fcm"} {
		got := jsonIn[List[Delivery]](t, w.do(t, get(list, keyAdmin)), 200)
		require.Empty(t, got.Data, list)
		require.NotNil(t, got.NextCursor, list)
		require.Equal(t, w.reads.window, w.reads.query.To, list)
		w.do(t, get(list+"&cursor="+*got.NextCursor, keyAdmin))
		require.Equal(t, w.reads.window, w.reads.query.After, list)
	}
	require.NotNil(t, jsonIn[List[Device]](t, w.do(t, get("/v1/devices?status=suspect", keyAdmin)), 200).NextCursor)
	w.reads.window, w.devices.window = delivery.Cursor{}, 0
	require.Nil(t, jsonIn[List[Delivery]](t, w.do(t, get("/v1/deliveries?reason=gone", keyAdmin)), 200).NextCursor)
	require.Nil(t, jsonIn[List[Device]](t, w.do(t, get("/v1/devices?status=suspect", keyAdmin)), 200).NextCursor)
}
