package fcm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func body(t *testing.T, m channels.Message, l channels.Life, at time.Time) string {
	t.Helper()
	l.Delivery = testDelivery
	return string(prepare(t, m).(*payload).body(channels.Target{Kind: channels.FCMToken, Address: testToken}, l, at))
}

func TestPrepareShown(t *testing.T) {
	t.Parallel()
	at, badge := time.Unix(1_800_000_000, 0), 7
	m := channels.Message{Title: "Hi", Body: "there", Image: "https://example.com/i.png", URL: "https://example.com/x", Badge: &badge, Sound: "ding",
		CollapseKey: "k", Data: json.RawMessage(`{"s":"a","n":1.50,"b":true,"z":null,"o":{"x": [1, 2]}}`)}
	require.JSONEq(t, `{"message":{"token":"dGVzdA-token_1:APA91bExample",
		"notification":{"title":"Hi","body":"there","image":"https://example.com/i.png"},
		"data":{"carillon":"`+testDelivery+`","s":"a","n":"1.50","b":"true","z":"null","o":"{\"x\":[1,2]}","url":"https://example.com/x"},
		"android":{"ttl":"90s","priority":"high","collapse_key":"k","notification":{"tag":"k","sound":"ding","notification_count":7}},
		"apns":{"headers":{"apns-expiration":"1800000090","apns-priority":"10","apns-push-type":"alert","apns-collapse-id":"k"},
			"payload":{"aps":{"badge":7,"sound":"ding","mutable-content":1}}},
		"webpush":{"headers":{"TTL":"90","Urgency":"high"},"fcm_options":{"link":"https://example.com/x"}}}}`,
		body(t, m, channels.Life{ExpiresAt: at.Add(90*time.Second + 900*time.Millisecond)}, at))
}

// TestACopyReplacesTheFirst: what is sent again, since nobody knows whether it was
// received, is seen once. FCM's own collapse_key stays out of it: it would drop other
// messages that wait for the device.
func TestACopyReplacesTheFirst(t *testing.T) {
	t.Parallel()
	const id = "ntf_071480ft40400"
	for name, c := range map[string]struct {
		m         channels.Message
		tag, apns string
		key       string
	}{
		"shown":            {channels.Message{Title: "x"}, id, id, ""},
		"with a key":       {channels.Message{Title: "x", CollapseKey: "k"}, "k", "k", "k"},
		"with a long key":  {channels.Message{Title: "x", CollapseKey: strings.Repeat("k", 65)}, strings.Repeat("k", 65), "", strings.Repeat("k", 65)},
		"data":             {channels.Message{Data: json.RawMessage(`{"a":1}`)}, "", "", ""},
		"data with a key":  {channels.Message{Data: json.RawMessage(`{"a":1}`), CollapseKey: "k"}, "", "k", "k"},
		"silent":           {channels.Message{Title: "x", Silent: true}, "", "", ""},
		"own":              {channels.Message{Title: "x", Override: json.RawMessage(`{"android":{"notification":{"tag":"own"}},"apns":{"headers":{"apns-collapse-id":"mine"}}}`)}, "own", "mine", ""},
		"shown on Android": {channels.Message{Override: json.RawMessage(`{"android":{"notification":{"title":"x"}}}`)}, id, "", ""},
		"shown on iOS":     {channels.Message{Override: json.RawMessage(`{"apns":{"payload":{"aps":{"alert":"x"}}}}`)}, "", id, ""},
	} {
		var got struct {
			Message struct {
				Android struct {
					CollapseKey  string `json:"collapse_key"`
					Notification struct{ Tag string }
				}
				APNs struct{ Headers map[string]string }
			}
		}
		c.m.Notification = id
		require.NoError(t, json.Unmarshal(prepare(t, c.m).Preview(testDelivery), &got), name)
		m := got.Message
		require.Equal(t, []string{c.tag, c.apns, c.key}, []string{m.Android.Notification.Tag, m.APNs.Headers["apns-collapse-id"], m.Android.CollapseKey}, name)
	}
	// What only the tag would make too long goes without it.
	fits := channels.Message{Title: strings.Repeat("x", 3900)}
	fits.Title += strings.Repeat("x", maxPayload-prepare(t, fits).Size())
	require.Equal(t, maxPayload, prepare(t, fits).Size())
	fits.Notification = id
	require.Equal(t, maxPayload, prepare(t, fits).Size())
	fits.Title += "x"
	_, err := (&Channel{}).Prepare(fits)
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}

func TestPrepareSilent(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	require.JSONEq(t, `{"message":{"token":"dGVzdA-token_1:APA91bExample",
		"data":{"carillon":"`+testDelivery+`","url":"mine"},
		"android":{"ttl":"0s","priority":"normal"},
		"apns":{"headers":{"apns-expiration":"0","apns-priority":"5","apns-push-type":"background"},"payload":{"aps":{"content-available":1}}},
		"webpush":{"headers":{"TTL":"0","Urgency":"normal"}}}}`,
		body(t, channels.Message{Title: "x", Badge: new(int), Silent: true, URL: "app://x", Data: json.RawMessage(`{"url":"mine"}`)}, channels.Life{ExpiresAt: at.Add(-time.Hour)}, at))
	long := body(t, channels.Message{Title: "x", CollapseKey: strings.Repeat("k", 65)}, channels.Life{ExpiresAt: at.Add(100 * 24 * time.Hour)}, at)
	require.Contains(t, long, `"ttl":"2419200s"`)
	require.NotContains(t, long, "apns-collapse-id")
}

// TestPriority: data alone do not wake a phone at once, unless the caller says so.
func TestPriority(t *testing.T) {
	t.Parallel()
	data := json.RawMessage(`{"a":1}`)
	over := func(s string) channels.Message { return channels.Message{Data: data, Override: json.RawMessage(s)} }
	for name, c := range map[string]struct {
		m    channels.Message
		want string // Android, APNs with its push type, web
	}{
		"shown":                   {channels.Message{Title: "x"}, "high 10 alert high"},
		"shown, normal":           {channels.Message{Title: "x", Priority: channels.Normal}, "normal 5 alert normal"},
		"data":                    {channels.Message{Data: data}, "normal 5 background normal"},
		"data, high":              {channels.Message{Data: data, Priority: channels.High}, "high 5 background high"},
		"data, low":               {channels.Message{Data: data, Priority: channels.Low}, "normal 5 background low"},
		"silent":                  {channels.Message{Silent: true, Priority: channels.Normal}, "normal 5 background normal"},
		"shown by override":       {over(`{"notification":{"title":"x"}}`), "high 10 alert high"},
		"shown on Android":        {over(`{"android":{"notification":{"title":"x"}}}`), "high 5 background normal"},
		"shown on iOS":            {over(`{"apns":{"payload":{"aps":{"alert":"x"}}}}`), "normal 10 alert normal"},
		"shown in browsers":       {over(`{"webpush":{"notification":{"title":"x"}}}`), "normal 5 background high"},
		"the override's priority": {over(`{"android":{"priority":"high"},"webpush":{"headers":{"Urgency":"very-low"}}}`), "high 5 background very-low"},
	} {
		var got struct {
			Message struct {
				Android struct{ Priority string }
				APNs    struct{ Headers map[string]string }
				Webpush struct{ Headers map[string]string }
			}
		}
		require.NoError(t, json.Unmarshal(prepare(t, c.m).Preview(testDelivery), &got))
		m := got.Message
		require.Equal(t, c.want, strings.Join([]string{m.Android.Priority, m.APNs.Headers["apns-priority"], m.APNs.Headers["apns-push-type"], m.Webpush.Headers["Urgency"]}, " "), name)
	}
}

func TestPrepareOverride(t *testing.T) {
	t.Parallel()
	m := channels.Message{Title: "Hi", CollapseKey: "k", Override: json.RawMessage(`{
		"notification":{"title":"Only FCM"},
		"android":{"collapse_key":null,"priority":"NORMAL","notification":{"channel_id":"c","vibrate_timings":["0.5s"],"notification_count":123456789012345}},
		"apns":{"headers":{"apns-priority":"5"},"payload":{"aps":{"thread-id":"t"},"custom":{"a":1.10,"gone":null}}},
		"webpush":{"notification":{"icon":"https://example.com/i"}},"fcm_options":{"analytics_label":"l"}}`)}
	require.JSONEq(t, `{"message":{"notification":{"title":"Only FCM"},"data":{"carillon":"`+testDelivery+`"},
		"android":{"priority":"normal","notification":{"tag":"k","channel_id":"c","vibrate_timings":["0.5s"],"notification_count":123456789012345}},
		"apns":{"headers":{"apns-priority":"5","apns-push-type":"alert","apns-collapse-id":"k"},"payload":{"aps":{"thread-id":"t"},"custom":{"a":1.10}}},
		"webpush":{"headers":{"Urgency":"high"},"notification":{"icon":"https://example.com/i"}},"fcm_options":{"analytics_label":"l"}}}`,
		string(prepare(t, m).Preview(testDelivery)))

	// A notification that only the override has makes the message a shown one.
	shown := prepare(t, channels.Message{Silent: true, Override: json.RawMessage(`{"notification":{"title":"x"}}`)})
	require.Contains(t, string(shown.Preview(testDelivery)), `"apns-push-type":"alert"`)

	// Taking a whole part away leaves what Carillon itself puts there.
	bare := prepare(t, channels.Message{Title: "x", Override: json.RawMessage(`{"android":null,"apns":null,"webpush":null}`)})
	require.True(t, json.Valid(bare.(*payload).body(channels.Target{}, channels.Life{}, time.Now())))
}

// TestLiveActivity: as in "Get started with Live Activity" of Firebase.
func TestLiveActivity(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("ab", 80)
	const payload = `{"aps":{"timestamp":1,"event":"update","content-state":{"demo":1},"alert":{"title":"t","body":"b","sound":"s.caf"}}}`
	m := channels.Message{Data: json.RawMessage(`{"a":1}`), CollapseKey: "k",
		Override: json.RawMessage(`{"apns":{"live_activity_token":"` + token + `","headers":{"apns-priority":"5"},"payload":` + payload + `}}`)}
	require.JSONEq(t, `{"message":{"data":{"carillon":"`+testDelivery+`","a":"1"},"android":{"priority":"normal","collapse_key":"k"},
		"apns":{"live_activity_token":"`+token+`","headers":{"apns-priority":"5","apns-collapse-id":"k"},"payload":`+payload+`},
		"webpush":{"headers":{"Urgency":"normal"}}}}`, string(prepare(t, m).Preview(testDelivery)))
	m.Override = json.RawMessage(strings.Replace(string(m.Override), `"headers":{"apns-priority":"5"},`, "", 1))
	require.Contains(t, string(prepare(t, m).Preview(testDelivery)), `"apns-priority":"10"`)
}

// TestLenient: what Google adds passes; what routes and what is ours does not.
func TestLenient(t *testing.T) {
	t.Parallel()
	lenient := func(override string) channels.Message {
		return channels.Message{Title: "T", Validation: channels.Lenient, Override: json.RawMessage(override)}
	}
	const news = `{"harmony":{"a":1},"android":{"new_flag":true,"notification":{"glow":1,"visibility":"FRIENDS"}},
		"apns":{"headers":{"apns-channel-id":"c"},"wallet":{}},"webpush":{"headers":{"Priority":"u=1"}}}`
	require.JSONEq(t, `{"message":{"notification":{"title":"T"},"data":{"carillon":"`+testDelivery+`"},"harmony":{"a":1},
		"android":{"priority":"high","new_flag":true,"notification":{"glow":1,"visibility":"FRIENDS"}},
		"apns":{"headers":{"apns-priority":"10","apns-push-type":"alert","apns-channel-id":"c"},"payload":{"aps":{}},"wallet":{}},
		"webpush":{"headers":{"Urgency":"high","Priority":"u=1"}}}}`, string(prepare(t, lenient(news)).Preview(testDelivery)))
	for _, how := range []channels.Validation{"", channels.Strict} {
		strict := lenient(news)
		strict.Validation = how
		_, err := (&Channel{}).Prepare(strict)
		var e *problem.Error
		require.ErrorAs(t, err, &e)
		require.Len(t, e.Fields, 7)
	}
	for override, path := range map[string]string{
		`{"token":"x"}`: "token", `{"fid":"x"}`: "fid", `{"topic":"x"}`: "topic", `{"condition":"x"}`: "condition", `{"name":"x"}`: "name",
		`{"data":{}}`: "data", `{"data":null}`: "data", `{"validateOnly":true}`: "validateOnly", `{"fcmOptions":{}}`: "fcmOptions",
		`{"android":{"ttl":"3s"}}`: "android.ttl", `{"android":{"data":{}}}`: "android.data", `{"android":{"collapseKey":"x"}}`: "android.collapseKey",
		`{"android":{"priority":"urgent"}}`:              "android.priority",
		`{"android":{"notification":{"visibility":5}}}`:  "android.notification.visibility",
		`{"apns":{"headers":{"apns-topic":"x"}}}`:        "apns.headers.apns-topic",
		`{"apns":{"headers":{"APNS-ID":"x"}}}`:           "apns.headers.APNS-ID",
		`{"apns":{"headers":{"Apns-Expiration":"1"}}}`:   "apns.headers.Apns-Expiration",
		`{"apns":{"headers":{"apns-expiration":"1"}}}`:   "apns.headers.apns-expiration",
		`{"apns":{"headers":{"Apns-Collapse-Id":"x"}}}`:  "apns.headers.Apns-Collapse-Id",
		`{"apns":{"headers":{"apns-new":1}}}`:            "apns.headers.apns-new",
		`{"apns":{"liveActivityToken":"x"}}`:             "apns.liveActivityToken",
		`{"apns":{"payload":{"carillon":"x"}}}`:          "apns.payload.carillon",
		`{"webpush":{"headers":{"ttl":"5"}}}`:            "webpush.headers.ttl",
		`{"webpush":{"headers":{"Authorization":"x"}}}`:  "webpush.headers.Authorization",
		`{"webpush":{"headers":{"Content-Length":"0"}}}`: "webpush.headers.Content-Length",
		`{"webpush":{"data":{}}}`:                        "webpush.data",
	} {
		_, err := (&Channel{}).Prepare(lenient(override))
		var e *problem.Error
		require.ErrorAs(t, err, &e, override)
		require.Equal(t, []string{"overrides.fcm." + path}, []string{e.Fields[0].Path}, override)
	}
	_, err := (&Channel{}).Prepare(lenient(`{"new":"` + strings.Repeat("x", maxBody) + `"}`))
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	for path, m := range map[string]channels.Message{
		"data.from":         {Data: json.RawMessage(`{"from":"x"}`)},
		"data.message_type": {Data: json.RawMessage(`{"message_type":"x"}`)},
		"data.gcm.x":        {Data: json.RawMessage(`{"gcm.x":"x"}`)},
		"data.googlex":      {Data: json.RawMessage(`{"googlex":"x"}`)},
		"data.carillon":     {Data: json.RawMessage(`{"carillon":"x"}`)},
		"data":              {Data: json.RawMessage(`[1]`)},
		"image":             {Image: "http://example.com/i.png"},
		"overrides.fcm":     {Override: json.RawMessage(`null`)},
	} {
		_, err := (&Channel{}).Prepare(m)
		var e *problem.Error
		require.ErrorAs(t, err, &e, path)
		require.Equal(t, path, e.Fields[0].Path)
	}
}

func TestPrepareCountsSize(t *testing.T) {
	t.Parallel()
	small := prepare(t, channels.Message{Title: "x"}).Size()
	require.Equal(t, len(`{"title":"x"}`)+len(`{"carillon":""}`)+len(testDelivery)+len(`{"aps":{}}`), small)
	fits := channels.Message{Title: "x" + strings.Repeat("y", maxPayload-small)}
	require.Equal(t, maxPayload, prepare(t, fits).Size())
	fits.Title += "z"
	_, err := (&Channel{}).Prepare(fits)
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))

	// Each platform gets its own part only, so the largest counts.
	ios := prepare(t, channels.Message{Title: "x", Override: json.RawMessage(`{"apns":{"payload":{"a":"bcdef"}}}`)})
	require.Equal(t, small+len(`,"a":"bcdef"`), ios.Size())
}

// Whatever the text, the body is JSON and holds it unchanged.
func TestBodyIsJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringN(0, 40, 200)
		data := rapid.MapOfN(rapid.StringMatching(`[a-f]{1,5}`), word, 0, 4).Draw(t, "data")
		raw, err := json.Marshal(data)
		require.NoError(t, err)
		m := channels.Message{Title: word.Draw(t, "title"), Body: word.Draw(t, "body"), CollapseKey: word.Draw(t, "key"), Data: raw}
		p, err := (&Channel{}).Prepare(m)
		require.NoError(t, err)
		b := p.(*payload).body(channels.Target{Kind: channels.FCMFid, Address: "fid"}, channels.Life{Delivery: testDelivery}, time.Now())
		var got struct {
			Message struct {
				Fid          string
				Notification struct{ Title, Body string }
				Data         map[string]string
			}
		}
		require.NoError(t, json.Unmarshal(b, &got), "%s", b)
		data[channels.ReservedKey] = testDelivery
		require.Equal(t, data, got.Message.Data)
		require.Equal(t, m.Title, got.Message.Notification.Title)
		require.Equal(t, "fid", got.Message.Fid)
	})
}

// FuzzPrepare: whatever an override says, the message is JSON with the delivery in its
// data, or the caller is told what is wrong.
func FuzzPrepare(f *testing.F) {
	f.Add(`{"a":1}`, `{"android":{"priority":"HIGH","notification":{"tag":null}}}`, "title", false)
	f.Add(`{"u":"\u2028<"}`, `{"apns":{"payload":{"aps":{"alert":{"body":"x"}}},"live_activity_token":"t"}}`, "\xff", true)
	f.Add(`{"carillon":1}`, `{"data":{"carillon":"x"},"token":"y"}`, "", false)
	f.Add(`[]`, `{"webpush":{"headers":{"TTL":1}},"fcm_options":[]}`, "t", true)
	f.Fuzz(func(t *testing.T, data, override, title string, silent bool) {
		p, err := New(Options{}).Prepare(channels.Message{Title: title, Silent: silent, Data: json.RawMessage(data), Override: json.RawMessage(override)})
		if err != nil {
			require.NotEqual(t, problem.Internal, problem.CodeOf(err), "%v", err)
			return
		}
		var m struct {
			Message struct {
				Data map[string]string `json:"data"`
			} `json:"message"`
		}
		require.NoError(t, json.Unmarshal(p.Preview("dlv_x"), &m))
		require.Equal(t, "dlv_x", m.Message.Data[channels.ReservedKey])
	})
}
