package api

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func send(body string) request {
	return request{method: "POST", path: "/v1/notifications", key: keyWith("send"), body: body}
}

// everything is a body that uses all members.
const everything = `{"to":{"users":["u1"],"devices":["dev_0000000012345"],"endpoints":["whe_0000000012346"],"activity_id":"order-7"},"channels":["fcm","webhook"],
	"type":"order.shipped","title":"t","body":"b","image":"https://example.com/i.png","url":"https://example.com/","data":{"k":"v"},"badge":0,
	"sound":"default","priority":"normal","urgent":true,"ttl":60,"collapse_key":"c","send_at":"2026-03-05T00:00:00Z",
	"on_ambiguous":"stop","overrides":{"fcm":{"android":{"ttl":"5s"}}},"override_validation":{"fcm":"lenient","apns":"strict"}}`

func TestSendPassesEverythingOn(t *testing.T) {
	t.Parallel()
	w := setup(t)
	var got delivery.Submission
	w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) { got = s; return acceptAll(s, epoch) }
	a := jsonIn[Accepted](t, w.do(t, send(everything)), 202)
	require.Equal(t, tenantA, got.Tenant)
	require.Nil(t, got.Idempotency)
	require.Nil(t, got.Refused)
	r := got.Requests[0]
	require.Equal(t, []channels.Kind{channels.FCM, channels.Webhook}, r.Channels)
	require.Len(t, r.To.Devices, 1)
	require.Zero(t, *r.Badge)
	require.Equal(t, int64(60), *r.TTL)
	require.Equal(t, delivery.OnAmbiguousStop, r.OnAmbiguous)
	require.JSONEq(t, `{"android":{"ttl":"5s"}}`, string(r.Overrides[channels.FCM]))
	require.Equal(t, map[channels.Kind]channels.Validation{channels.FCM: channels.Lenient, channels.APNs: channels.Strict}, r.OverrideValidation)
	require.Equal(t, time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC), r.SendAt)

	require.Equal(t, Accepted{ID: theNotification.Format(ids.Notification),
		Deliveries: []Target{{ID: ids.FormatDelivery(theNotification, theTarget), Channel: "fcm", Target: theTarget.Format(ids.Device), User: "u1"}},
		Skips:      []Skip{{User: "u2", Channel: "apns", Reason: "no_device"}, {Target: theEndpoint.Format(ids.Endpoint), Channel: "webhook", Reason: "unknown_target"}},
	}, a)

	// What is stored reads back as it was sent.
	stored, err := json.Marshal(r)
	require.NoError(t, err)
	w.reads.content = stored
	n := jsonIn[map[string]json.RawMessage](t, w.do(t, get("/v1/notifications/"+theNotification.Format(ids.Notification), keyAdmin)), 200)
	require.JSONEq(t, everything, string(n["content"]))
	require.JSONEq(t, `{"pending":0,"sending":0,"held":0,"sent":2,"dropped":0,"dead":0}`, string(n["counts"]))
}

func TestSensitiveContentIsNeverShown(t *testing.T) {
	t.Parallel()
	shown, err := showNotification(delivery.NotificationView{ID: 1, Sensitive: true, Content: json.RawMessage(`{"title":"code 1234"}`)})
	require.NoError(t, err)
	require.Nil(t, shown.Content)
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := jsonIn[Preview](t, w.do(t, send(`{"to":{"users":["u1"]},"title":"t","dry_run":true}`)), 200)
	require.True(t, p.DryRun)
	require.Empty(t, p.Deliveries[0].ID)
	require.Equal(t, []PayloadPreview{{Channel: "fcm", Size: 12, Payload: json.RawMessage(`{"x":1}`)}}, p.Payloads)
	require.Equal(t, []string{"dry run"}, w.did)
	require.Equal(t, 422, w.do(t, send(`{"to":{"users":["u1"]},"title":"t","ttl":-1,"dry_run":true}`)).Code)
}

func TestBadNotificationsNameTheFieldAndNothingIsAccepted(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, c := range []struct {
		body string
		code problem.Code
		path string
	}{
		{`{"to":{"users":["u1"]},"title":"t","ttl":-1}`, problem.Invalid, "ttl"},
		{`{"to":{"users":["u1"]},"title":"t","ttl":99999999}`, problem.Invalid, "ttl"},
		{`{"to":{"users":["u1"]},"title":"t","send_at":"2020-01-01T00:00:00Z"}`, problem.Invalid, "send_at"},
		{`{"to":{"users":["u1"]},"title":"t","send_at":"2036-01-01T00:00:00Z"}`, problem.Invalid, "send_at"},
		{`{"to":{"users":["u1","u2","u3",""]},"title":"t"}`, problem.Invalid, "to.users[3]"},
		{`{"to":{"users":["u1","u2","u3",4]},"title":"t"}`, problem.Invalid, "to.users[3]"},
		{`{"to":{"devices":["dev_0000000012345","ntf_0000000012345"]},"title":"t"}`, problem.Invalid, "to.devices[1]"},
		{`{"to":{"endpoints":["whe_x"]},"title":"t"}`, problem.Invalid, "to.endpoints[0]"},
		{`{"to":{"users":["u1"]}}`, problem.Invalid, "title"},
		{`{"title":"t"}`, problem.Invalid, "to"},
		{`{"to":{"users":["u1"]},"title":"t","data":[1]}`, problem.Invalid, "data"},
		{`{"to":{"users":["u1"]},"title":"t","priority":"now"}`, problem.Invalid, "priority"},
		{`{"to":{"users":["u1"]},"title":"t","image":"http://example.com"}`, problem.Invalid, "image"},
		{`{"to":{"users":["u1"]},"title":"t","tenant":"acme"}`, problem.Invalid, "tenant"},
		{`{"to":{"users":["u1"]},"title":"t","overrides":{"fcm":1}}`, problem.Invalid, "overrides.fcm"},
		{`{"to":{"users":["u1"]},"title":"t","title":"t"}`, problem.Malformed, "title"},
	} {
		w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) { return acceptAll(s, epoch) }
		p := problemIn(t, w.do(t, send(c.body)))
		require.Equal(t, c.code, p.Code, c.body)
		require.Equal(t, c.path, p.Errors[0].Path, c.body)
		require.NotEmpty(t, p.Errors[0].Detail, c.body)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	w := setup(t)
	batch := func(body string) request {
		return request{method: "POST", path: "/v1/notifications/batch", key: keyAdmin, body: body}
	}
	rec := w.do(t, batch(`{"notifications":[{"to":{"users":["u1"]},"title":"a"},{"to":{"users":["u1"]},"titel":"b"},{"to":{"users":["u1"]},"title":"c","ttl":-1},{"to":{"users":["u1"]},"title":"d","dry_run":true},7]}`))
	require.Equal(t, 202, rec.Code)
	var got struct {
		Results []struct {
			ID         string
			Deliveries []Target
			Error      *Problem
		}
	}
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &got))
	require.Len(t, got.Results, 5)
	require.Equal(t, theNotification.Format(ids.Notification), got.Results[0].ID)
	require.Len(t, got.Results[0].Deliveries, 1)
	require.Nil(t, got.Results[0].Error)
	for i, path := range map[int]string{1: "titel", 2: "ttl", 3: "dry_run"} {
		require.Empty(t, got.Results[i].ID)
		require.Equal(t, path, got.Results[i].Error.Errors[0].Path)
		require.Equal(t, 422, got.Results[i].Error.Status)
	}
	require.Contains(t, got.Results[4].Error.Detail, "object")
	require.NotContains(t, rec.Body.String(), `"id":""`)
	require.Equal(t, []string{"accept"}, w.did, "one submission")

	w.did = nil
	many := strings.TrimSuffix(strings.Repeat("{},", delivery.MaxBatch+1), ",")
	for _, bad := range []string{`{"notifications":[]}`, `{}`, `{"notifications":[` + many + `]}`, `{"notifications":{}}`} {
		p := problemIn(t, w.do(t, batch(bad)))
		require.Equal(t, "notifications", p.Errors[0].Path)
	}
	p := problemIn(t, w.do(t, batch(`{"notifications":[{},{"title":"a","title":"b"}]}`)))
	require.Equal(t, problem.Malformed, p.Code)
	require.Equal(t, "notifications[1].title", p.Errors[0].Path)
	require.Empty(t, w.did)
}

func TestIdempotencyKeyIsLookedUpBeforeTheBodyIsRead(t *testing.T) {
	t.Parallel()
	w := setup(t)
	broken := `{"title":`
	var asked delivery.Idempotency
	w.reads.stored = func(i delivery.Idempotency) (delivery.Answer, bool, error) {
		asked = i
		return delivery.Answer{Status: 202, Body: []byte(`{"id":"ntf_stored"}`), Replayed: true}, true, nil
	}
	req := send(broken)
	req.header = map[string]string{"Idempotency-Key": `"order-7"`}
	rec := w.do(t, req)
	require.Equal(t, 202, rec.Code)
	require.Equal(t, "true", rec.Header().Get("Idempotency-Replayed"))
	require.Equal(t, "application/json", rec.Header().Get("Content-Type"))
	require.Equal(t, `{"id":"ntf_stored"}`, rec.Body.String())
	require.Equal(t, delivery.Idempotency{Principal: theKey, Route: "POST /v1/notifications", Key: "order-7", BodyHash: sha256.Sum256([]byte(broken))}, asked)
	require.Equal(t, []string{"stored"}, w.did)

	req.key = ""
	w.did = nil
	require.Equal(t, 401, w.do(t, req).Code)
	require.Empty(t, w.did, "not before authentication")

	w.reads.stored = func(delivery.Idempotency) (delivery.Answer, bool, error) {
		return delivery.Answer{}, false, problem.New(problem.IdempotencyMismatch, "The key was used with another body.")
	}
	req.key = keyAdmin
	require.Equal(t, problem.IdempotencyMismatch, problemIn(t, w.do(t, req)).Code)
	require.Equal(t, []string{"stored"}, w.did)
}

func TestIdempotencyKeyGoesIntoTheSubmission(t *testing.T) {
	t.Parallel()
	w := setup(t)
	var got *delivery.Idempotency
	w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) {
		got = s.Idempotency
		a, err := acceptAll(s, epoch)
		a.Replayed = true
		return a, err
	}
	for path, body := range map[string]string{"/v1/notifications": bodies["sendNotification"], "/v1/notifications/batch": bodies["sendNotifications"]} {
		rec := w.do(t, request{method: "POST", path: path, key: keyAdmin, body: body, header: map[string]string{"Idempotency-Key": "k"}})
		require.Equal(t, 202, rec.Code)
		require.Equal(t, "true", rec.Header().Get("Idempotency-Replayed"), "another request was faster")
		require.Equal(t, "k", got.Key)
		require.Equal(t, "POST "+path, got.Route)
	}
	rec := w.do(t, send(bodies["sendNotification"]))
	require.Equal(t, 202, rec.Code)
	require.Nil(t, got)
}

func TestFormsOfIdempotencyKeys(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`abc`: "abc", `"abc"`: "abc", ` "a b" `: "a b", `"a\"b\\c"`: `a"b\c`, `a"b`: `a"b`, strings.Repeat("x", 255): strings.Repeat("x", 255),
		`8e03978e-40d5-43dd-bc93-6894a57f9324`: "8e03978e-40d5-43dd-bc93-6894a57f9324",
	} {
		got, err := idempotencyKey(map[string][]string{"Idempotency-Key": {in}})
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{"", `""`, `"abc`, `"abc"x`, `"a\nb"`, "a\tb", "ä", strings.Repeat("x", 256), `"a\`} {
		_, err := idempotencyKey(map[string][]string{"Idempotency-Key": {in}})
		require.Equal(t, problem.Invalid, problem.CodeOf(err), in)
	}
	_, err := idempotencyKey(map[string][]string{"Idempotency-Key": {"a", "b"}})
	require.Error(t, err)
}

func TestRenderOneNeverAnswersForAnother(t *testing.T) {
	t.Parallel()
	for n := range 3 {
		_, _, err := renderOne(make([]delivery.Receipt, n))
		require.Equal(t, n == 1, err == nil, fmt.Sprint(n))
	}
}
