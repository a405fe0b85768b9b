package webpush

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func TestDeclarativeMessage(t *testing.T) {
	t.Parallel()
	badge := 3
	p := prepare(t, channels.Message{
		Title: "Parcel <1> & more", Body: "Shipped", Image: "https://example.com/i.png", URL: "https://example.com/o/1",
		Data: json.RawMessage(`{ "order": 12345678901234567890 }`), Badge: &badge, CollapseKey: "order-1", Priority: channels.High,
		Override: json.RawMessage(`{"notification":{"icon":"/icon.png","badge":"/b.png","require_interaction":true,"renotify":true,
			"vibrate":[100,50,100],"lang":"en","dir":"ltr","timestamp":1700000000000,
			"actions":[{"action":"track","title":"Track","navigate":"https://example.com/t"}]}}`),
	}).(*payload)
	const want = `{"web_push":8030,"mutable":true,"app_badge":3,"notification":{` +
		`"actions":[{"action":"track","navigate":"https://example.com/t","title":"Track"}],"badge":"/b.png","body":"Shipped","dir":"ltr",` +
		`"icon":"/icon.png","image":"https://example.com/i.png","lang":"en","navigate":"https://example.com/o/1","renotify":true,` +
		`"requireInteraction":true,"tag":"order-1","timestamp":1700000000000,"title":"Parcel <1> & more","vibrate":[100,50,100],` +
		`"data":{"carillon":"` + deliveryID + `","order":12345678901234567890}},"carillon":"` + deliveryID + `"}`
	require.Equal(t, want, string(p.Preview(deliveryID)))
	require.Equal(t, len(want), p.Size())
	require.EqualValues(t, "high", p.urgency)
	require.Equal(t, "order-1", p.topic)
}

// TestACopyReplacesTheFirst: what is sent again, since nobody knows whether it was
// received, is seen once, and heard once. The Topic stays out of it: it would drop
// other messages that wait for the browser.
func TestACopyReplacesTheFirst(t *testing.T) {
	t.Parallel()
	const id = "ntf_071480ft40400"
	for name, c := range map[string]struct {
		m   channels.Message
		tag any
	}{
		"shown":      {channels.Message{Title: "x"}, id},
		"with a key": {channels.Message{Title: "x", CollapseKey: "news"}, "news"},
		"own":        {channels.Message{Title: "x", Override: json.RawMessage(`{"notification":{"tag":"own"}}`)}, "own"},
		"nothing":    {channels.Message{Data: json.RawMessage(`{"a":1}`)}, nil},
	} {
		c.m.Notification = id
		p := prepare(t, c.m).(*payload)
		n := object(t, p.Preview(deliveryID))["notification"].(map[string]any)
		require.Equal(t, c.tag, n["tag"], name)
		require.Equal(t, c.tag == any(id), n["renotify"] == false, name)
		if c.m.CollapseKey == "" {
			require.Empty(t, p.topic, name)
		}
	}
	fits := channels.Message{Title: "x"}
	fits.Title += strings.Repeat("x", MaxPlaintext-prepare(t, fits).Size())
	fits.Notification = id
	require.Equal(t, MaxPlaintext, prepare(t, fits).Size(), "what only the tag would make too long goes without it")
	fits.Title += "x"
	_, err := (&Channel{}).Prepare(fits)
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}

func TestPlainForm(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]channels.Message{
		"no URL":   {Title: "Hi", Body: "there"},
		"no title": {Body: "there", URL: "https://example.com"},
		"silent":   {Title: "Hi", URL: "https://example.com", Silent: true},
		"nothing":  {},
		"action without a URL": {Title: "Hi", URL: "https://example.com",
			Override: json.RawMessage(`{"notification":{"actions":[{"action":"a","title":"A"}]}}`)},
	} {
		got := object(t, prepare(t, m).Preview(deliveryID))
		require.NotContains(t, got, "web_push", name)
		require.NotContains(t, got, "mutable", name)
		require.Equal(t, deliveryID, got["carillon"], name)
		n := got["notification"].(map[string]any)
		require.Equal(t, map[string]any{"carillon": deliveryID}, n["data"], name)
		require.Equal(t, m.Silent, n["silent"] == true, name)
		if m.Title != "" {
			require.Equal(t, m.Title, n["title"], name)
		}
	}
	bare := prepare(t, channels.Message{}).(*payload)
	require.Equal(t, `{"notification":{"data":{"carillon":"x"}},"carillon":"x"}`, string(bare.Preview("x")))
	require.EqualValues(t, "normal", bare.urgency)
	require.Empty(t, bare.topic)
}

func TestUrgency(t *testing.T) {
	t.Parallel()
	for want, all := range map[string][]channels.Message{
		"high":   {{Title: "Hi"}, {Body: "x"}, {Data: json.RawMessage(`{"a":1}`), Priority: channels.High}, {Silent: true, Priority: channels.High}},
		"normal": {{}, {Data: json.RawMessage(`{"a":1}`)}, {Data: json.RawMessage(`{"a":1}`), URL: "https://example.com"}, {Silent: true, Title: "Hi"}, {Title: "Hi", Priority: channels.Normal}},
		"low":    {{Title: "Hi", Priority: channels.Low}, {Priority: channels.Low}},
	} {
		for _, m := range all {
			require.EqualValues(t, want, prepare(t, m).(*payload).urgency, "%+v", m)
		}
	}
}

func TestOverride(t *testing.T) {
	t.Parallel()
	p := prepare(t, channels.Message{
		Title: "Hi", URL: "https://example.com", Image: "https://example.com/a.png", CollapseKey: "k", Silent: true, Priority: channels.Low,
		Override: json.RawMessage(`{"urgency":"very-low","topic":"own_topic-1","notification":{"image":"https://example.com/b.png","tag":"t","silent":false,"requireInteraction":false}}`),
	}).(*payload)
	require.EqualValues(t, "very-low", p.urgency)
	require.Equal(t, "own_topic-1", p.topic)
	got := object(t, p.Preview(deliveryID))
	n := got["notification"].(map[string]any)
	require.Equal(t, "https://example.com/b.png", n["image"])
	require.Equal(t, "t", n["tag"])
	require.Equal(t, false, n["silent"])
	require.EqualValues(t, 8030, got["web_push"])
}

// TestEveryAttemptHasTheSameTopic: a retry prepares the stored content again.
func TestEveryAttemptHasTheSameTopic(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"ab", "orders", strings.Repeat("a", 31), strings.Repeat("a", 32)} {
		m := channels.Message{Title: "Hi", Override: json.RawMessage(`{"topic":"` + topic + `"}`)}
		require.Equal(t, topic, prepare(t, m).(*payload).topic)
		m.Accepted = true
		require.Equal(t, topic, prepare(t, m).(*payload).topic)
	}
}

func TestOverrideRefused(t *testing.T) {
	t.Parallel()
	const at = "overrides.webpush."
	for raw, want := range map[string][]string{
		`[]`:                     {"overrides.webpush"},
		`null`:                   {"overrides.webpush"},
		`{`:                      {"overrides.webpush"},
		`{"ttl":1,"headers":{}}`: {at + "headers", at + "ttl"},
		`{"urgency":"urgent"}`:   {at + "urgency"},
		`{"urgency":null}`:       {at + "urgency"},
		`{"topic":""}`:           {at + "topic"},
		`{"topic":"a.b"}`:        {at + "topic"},
		`{"topic":"order"}`:      {at + "topic"}, // 4n+1 characters: Apple answers BadWebPushTopic
		`{"topic":7}`:            {at + "topic"},
		`{"notification":[]}`:    {at + "notification"},
		`{"notification":null}`:  {at + "notification"},
		`{"notification":{"title":"x","data":{},"navigate":"x"}}`: {at + "notification.data", at + "notification.navigate", at + "notification.title"},
		`{"notification":{"icon":"","badge":3,"image":null}}`:     {at + "notification.badge", at + "notification.icon", at + "notification.image"},
		`{"notification":{"dir":"up","lang":1,"silent":"no"}}`:    {at + "notification.dir", at + "notification.lang", at + "notification.silent"},
		`{"notification":{"timestamp":1.5}}`:                      {at + "notification.timestamp"},
		`{"notification":{"vibrate":100}}`:                        {at + "notification.vibrate"},
		`{"notification":{"vibrate":[1,-1]}}`:                     {at + "notification.vibrate"},
		`{"notification":{"renotify":true}}`:                      {at + "notification.renotify"},
		`{"notification":{"silent":true,"vibrate":[1]}}`:          {at + "notification.vibrate"},
		`{"notification":{"actions":{}}}`:                         {at + "notification.actions"},
		`{"notification":{"actions":[1,{"action":"a"},{"action":"a","title":2,"x":"y"}]}}`: {
			at + "notification.actions[0]", at + "notification.actions[1].title", at + "notification.actions[2].title", at + "notification.actions[2].x"},
	} {
		_, err := (&Channel{}).Prepare(channels.Message{Title: "Hi", Override: json.RawMessage(raw)})
		require.Equal(t, problem.Invalid, problem.CodeOf(err), raw)
		require.Equal(t, want, paths(t, err), raw)
	}
	accepted := prepare(t, channels.Message{Title: "Hi", Override: json.RawMessage(`{"topic":"order"}`), Accepted: true})
	require.Equal(t, topicOf("order"), accepted.(*payload).topic, "accepted by a version that did not know of this rule")
	_, err := (&Channel{}).Prepare(channels.Message{Override: json.RawMessage(`{"topic":"` + strings.Repeat("a", 33) + `"}`)})
	require.Equal(t, []string{at + "topic"}, paths(t, err))
}

// TestLenient: what browsers add passes; what routes and what is ours does not.
func TestLenient(t *testing.T) {
	t.Parallel()
	lenient := func(override string) channels.Message {
		return channels.Message{Title: "Hi", Validation: channels.Lenient, Override: json.RawMessage(override)}
	}
	const news = `{"notification":{"badgeCount":{"n":1},"actions":[{"action":"a","title":"A","type":"text","placeholder":3}]}}`
	require.JSONEq(t, `{"notification":{"title":"Hi","badgeCount":{"n":1},"actions":[{"action":"a","title":"A","type":"text","placeholder":3}],
		"data":{"carillon":"x"}},"carillon":"x"}`, string(prepare(t, lenient(news)).Preview("x")))
	for _, how := range []channels.Validation{"", channels.Strict} {
		strict := lenient(news)
		strict.Validation = how
		_, err := (&Channel{}).Prepare(strict)
		require.Len(t, paths(t, err), 3, "%v", err)
	}
	const at = "overrides.webpush."
	for override, path := range map[string]string{
		`{"ttl":1}`: "ttl", `{"headers":{}}`: "headers", `{"topic":"order"}`: "topic", `{"urgency":"now"}`: "urgency", `{"carillon":"x"}`: "carillon",
		`{"notification":{"data":{}}}`: "notification.data", `{"notification":{"carillon":1}}`: "notification.carillon",
		`{"notification":{"navigate":1}}`: "notification.navigate", `{"notification":{"title":"x"}}`: "notification.title",
		`{"notification":{"icon":5}}`: "notification.icon", `{"notification":{"actions":[{"action":"a"}]}}`: "notification.actions[0].title",
	} {
		_, err := (&Channel{}).Prepare(lenient(override))
		require.Equal(t, []string{at + path}, paths(t, err), override)
	}
	_, err := (&Channel{}).Prepare(lenient(`{"notification":{"new":"` + strings.Repeat("x", MaxPlaintext) + `"}}`))
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}

func TestData(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{`[1]`: "data", `"x"`: "data", `null`: "data", `{"a":`: "data",
		`{"carillon":1}`: "data.carillon", `{"\u0063arillon":1}`: "data.carillon"} {
		_, err := (&Channel{}).Prepare(channels.Message{Data: json.RawMessage(raw)})
		require.Equal(t, []string{want}, paths(t, err), raw)
	}
}

func TestSizeLimit(t *testing.T) {
	t.Parallel()
	bare := prepare(t, channels.Message{Body: "x"}).Size()
	fits := strings.Repeat("x", MaxPlaintext-bare+1)
	p := prepare(t, channels.Message{Body: fits})
	require.Equal(t, MaxPlaintext, p.Size())
	body, err := encrypt(p.(*payload).plaintext(deliveryID), newBrowser(t).target(""), padding(p.Size()))
	require.NoError(t, err)
	require.Len(t, body, MaxBody)
	_, err = (&Channel{}).Prepare(channels.Message{Body: fits + "x"})
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}

func TestTopic(t *testing.T) {
	t.Parallel()
	for _, kept := range []string{"", "order-1_XY", "ab", strings.Repeat("a", 31)} {
		require.Equal(t, kept, topicOf(kept))
	}
	for _, key := range []string{"order/1", "order 1", "order", "a", "order-1_X", strings.Repeat("a", 32), strings.Repeat("a", 33), "bestellt €"} {
		topic := topicOf(key)
		require.True(t, isTopic(topic), topic)
		require.Len(t, topic, 32)
		require.Equal(t, topic, topicOf(key))
		require.NotEqual(t, topic, topicOf(key+"x"))
		require.NotEqual(t, topic, topicOf(topic), "a key that looks like another's hash")
	}
	for length := range 2 * maxTopic {
		topic := topicOf(strings.Repeat("k", length))
		require.NotEqual(t, 1, len(topic)%4, "Apple decodes topics as base64url")
	}
}

func FuzzPrepare(f *testing.F) {
	f.Add("Hi", "https://example.com", `{"a":[1,"<&>"]}`, `{"notification":{"icon":"/i","vibrate":[1]},"urgency":"low"}`)
	f.Add("", "", ``, ``)
	f.Add("\xff\x00", "\"", `{"":{}}`, `{"notification":{"actions":[{"action":"a","title":"b"}]}}`)
	f.Fuzz(func(t *testing.T, title, link, data, over string) {
		p, err := (&Channel{}).Prepare(channels.Message{Title: title, URL: link, Data: json.RawMessage(data), Override: json.RawMessage(over)})
		if err != nil {
			if problem.CodeOf(err) == problem.Internal {
				t.Fatalf("%v", err)
			}
			return
		}
		text := p.Preview(deliveryID)
		var got struct {
			Carillon     string
			Notification struct{ Data struct{ Carillon string } }
		}
		if err := json.Unmarshal(text, &got); err != nil || got.Carillon != deliveryID || got.Notification.Data.Carillon != deliveryID || len(text) != p.Size() {
			t.Fatalf("%s (%v)", text, err)
		}
	})
}
