package delivery

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func valid() Request { return Request{To: To{Users: []string{"alice"}}, Title: "hello"} }

func number[T int | int64](n T) *T { return &n }

func TestGoodRequestsPass(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*Request){
		"the least":          func(*Request) {},
		"a long user id":     func(r *Request) { r.To.Users = []string{strings.Repeat("x", 255)} },
		"a device":           func(r *Request) { r.To = To{Devices: []ids.ID{1}} },
		"as many as allowed": func(r *Request) { r.To.Devices = make([]ids.ID, MaxTargets-1) },
		"an event":           func(r *Request) { *r = Request{Type: "order.paid"} },
		"an event, named":    func(r *Request) { *r = Request{Type: "order.paid", Channels: []channels.Kind{channels.Webhook}} },
		"an endpoint": func(r *Request) {
			r.To.Endpoints, r.Channels = []ids.ID{1}, []channels.Kind{channels.FCM, channels.Webhook}
		},
		"every channel": func(r *Request) { r.Channels = channels.Kinds() },
		"silent":        func(r *Request) { r.Title, r.Silent = "", true },
		"data alone":    func(r *Request) { r.Title, r.Data = "", json.RawMessage(`{"a":1}`) },
		"an override alone": func(r *Request) {
			r.Title, r.Overrides = "", map[channels.Kind]json.RawMessage{channels.FCM: []byte(`{}`)}
		},
		"lenient": func(r *Request) {
			r.OverrideValidation = map[channels.Kind]channels.Validation{channels.FCM: channels.Lenient, channels.APNs: channels.Strict}
		},
		"links":             func(r *Request) { r.Image, r.URL = "https://a.example/x.png", "myapp://open/42" },
		"badges":            func(r *Request) { r.Badge = number(0) },
		"the largest badge": func(r *Request) { r.Badge = number(maxBadge) },
		"a collapse key":    func(r *Request) { r.CollapseKey = strings.Repeat("k", 64) },
		"now or never":      func(r *Request) { r.TTL = number(int64(0)) },
		"a month":           func(r *Request) { r.TTL = number(int64(30 * 86400)) },
		"a moment ago":      func(r *Request) { r.SendAt = at.Add(-time.Minute) },
		"in 90 days":        func(r *Request) { r.SendAt = at.Add(90 * 24 * time.Hour) },
		"priorities":        func(r *Request) { r.Priority = channels.Low },
		"at most once":      func(r *Request) { r.OnAmbiguous = OnAmbiguousStop },
		"at least once":     func(r *Request) { r.OnAmbiguous = OnAmbiguousRetry },
	} {
		r := valid()
		edit(&r)
		require.NoError(t, r.Check(at), name)
	}
}

func TestEveryBadMemberIsNamed(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		edit func(*Request)
		want []string
	}{
		"nothing":               {func(r *Request) { *r = Request{} }, []string{"to", "title"}},
		"no content":            {func(r *Request) { r.Title = "" }, []string{"title"}},
		"empty and long users":  {func(r *Request) { r.To.Users = []string{"ok", "", strings.Repeat("x", 256), "\xff"} }, []string{"to.users[1]", "to.users[2]", "to.users[3]"}},
		"a channel twice":       {func(r *Request) { r.Channels = []channels.Kind{channels.FCM, channels.APNs, channels.FCM} }, []string{"channels[2]"}},
		"too many targets":      {func(r *Request) { r.To.Devices = make([]ids.ID, MaxTargets) }, []string{"to"}},
		"an event for nobody":   {func(r *Request) { *r = Request{Type: "a", Channels: []channels.Kind{channels.FCM}} }, []string{"channels"}},
		"endpoints not reached": {func(r *Request) { r.To.Endpoints, r.Channels = []ids.ID{1}, []channels.Kind{channels.FCM} }, []string{"channels"}},
		"a bad type":            {func(r *Request) { r.Type = "Order Paid" }, []string{"type"}},
		"a reserved type":       {func(r *Request) { r.Type = "carillon.delivery.dead" }, []string{"type"}},
		"silent and shown":      {func(r *Request) { r.Silent = true }, []string{"silent"}},
		"a plain image":         {func(r *Request) { r.Image = "http://a.example/x.png" }, []string{"image"}},
		"an image without host": {func(r *Request) { r.Image = "https:///x.png" }, []string{"image"}},
		"a relative image":      {func(r *Request) { r.Image = "/x.png" }, []string{"image"}},
		"a relative link":       {func(r *Request) { r.URL = "/x" }, []string{"url"}},
		"no link at all":        {func(r *Request) { r.URL = "http://[::1" }, []string{"url"}},
		"a long link":           {func(r *Request) { r.URL = "https://a.example/" + strings.Repeat("x", 2048) }, []string{"url"}},
		"code":                  {func(r *Request) { r.URL = "JavaScript:alert(1)" }, []string{"url"}},
		"data as a link":        {func(r *Request) { r.URL = "data:text/html,x" }, []string{"url"}},
		"a file":                {func(r *Request) { r.URL = "file:///etc/passwd" }, []string{"url"}},
		"a negative badge":      {func(r *Request) { r.Badge = number(-1) }, []string{"badge"}},
		"a large badge":         {func(r *Request) { r.Badge = number(maxBadge + 1) }, []string{"badge"}},
		"a long collapse key":   {func(r *Request) { r.CollapseKey = strings.Repeat("k", 65) }, []string{"collapse_key"}},
		"data that is a list":   {func(r *Request) { r.Data = []byte(`[1]`) }, []string{"data"}},
		"data that is null":     {func(r *Request) { r.Data = []byte(`null`) }, []string{"data"}},
		"reserved data":         {func(r *Request) { r.Data = []byte(`{"carillon":"x"}`) }, []string{"data.carillon"}},
		"an override as text":   {func(r *Request) { r.Overrides = map[channels.Kind]json.RawMessage{channels.APNs: []byte(`"x"`)} }, []string{"overrides.apns"}},
		"validation of a webhook": {func(r *Request) {
			r.OverrideValidation = map[channels.Kind]channels.Validation{channels.Webhook: channels.Lenient}
		}, []string{"override_validation.webhook"}},
		"another validation": {func(r *Request) {
			r.OverrideValidation = map[channels.Kind]channels.Validation{channels.APNs: "none", channels.FCM: ""}
		}, []string{"override_validation.fcm", "override_validation.apns"}},
		"a negative ttl":   {func(r *Request) { r.TTL = number(int64(-1)) }, []string{"ttl"}},
		"a long ttl":       {func(r *Request) { r.TTL = number(int64(30*86400 + 1)) }, []string{"ttl"}},
		"the past":         {func(r *Request) { r.SendAt = at.Add(-time.Minute - 1) }, []string{"send_at"}},
		"the far future":   {func(r *Request) { r.SendAt = at.Add(90*24*time.Hour + 1) }, []string{"send_at"}},
		"another priority": {func(r *Request) { r.Priority = "urgent" }, []string{"priority"}},
		"another choice":   {func(r *Request) { r.OnAmbiguous = "pray" }, []string{"on_ambiguous"}},
		"all at once": {func(r *Request) {
			r.To.Users, r.Type, r.Badge, r.TTL, r.Priority = []string{""}, "?", number(-1), number(int64(-1)), "x"
		}, []string{"to.users[0]", "type", "badge", "ttl", "priority"}},
	} {
		r := valid()
		x.edit(&r)
		var p *problem.Error
		require.ErrorAs(t, r.Check(at), &p, name)
		require.Equal(t, problem.Invalid, p.Code)
		var got []string
		for _, f := range p.Fields {
			got = append(got, f.Path)
			require.NotEmpty(t, f.Detail)
		}
		require.Equal(t, x.want, got, name)
	}
}

func TestTheMessageOfARequest(t *testing.T) {
	t.Parallel()
	r := Request{Type: "t", Title: "a", Body: "b", Image: "i", URL: "u", Data: []byte(`{}`), Badge: number(1), Sound: "s", CollapseKey: "c",
		Overrides: map[channels.Kind]json.RawMessage{channels.FCM: []byte(`{"x":1}`)}}
	want := channels.Message{Notification: "ntf", Type: "t", CreatedAt: at, Title: "a", Body: "b", Image: "i", URL: "u", Data: r.Data, Badge: r.Badge,
		Sound: "s", CollapseKey: "c"}
	require.Equal(t, want, r.message("ntf", at, channels.APNs))
	want.Override = r.Overrides[channels.FCM]
	r.OverrideValidation = map[channels.Kind]channels.Validation{channels.FCM: channels.Lenient}
	want.Validation = channels.Lenient
	require.Equal(t, want, r.message("ntf", at, channels.FCM))
	require.Empty(t, (&Request{Data: []byte(`{}`)}).message("", at, channels.FCM).Priority, "the channel knows whether something is shown")
	require.Equal(t, channels.Low, (&Request{Priority: channels.Low}).message("", at, channels.FCM).Priority)
	require.Equal(t, channels.Normal, (&Request{Silent: true}).message("", at, channels.FCM).Priority)
	require.Equal(t, channels.High, (&Request{Silent: true, Priority: channels.High}).message("", at, channels.FCM).Priority)
}

// TestARequestIsStoredAsItIsRead: the content is kept as JSON and read again
// for retries and replays.
func TestARequestIsStoredAsItIsRead(t *testing.T) {
	t.Parallel()
	r := valid()
	r.Channels, r.TTL, r.SendAt, r.Overrides = channels.Kinds(), number(int64(0)), at, map[channels.Kind]json.RawMessage{channels.Webhook: []byte(`{"a":1}`)}
	b, err := json.Marshal(r)
	require.NoError(t, err)
	var again Request
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, r, again)
	b, err = json.Marshal(Request{Type: "x"})
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"x"}`, string(b))
}
