package apns

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func TestPrepare(t *testing.T) {
	t.Parallel()
	badge := 0
	for name, c := range map[string]struct {
		m        channels.Message
		body     string // after the delivery's id
		headers  string // push type, priority, topic, collapse id
		override string
	}{
		"everything": {
			m: channels.Message{Title: "T", Body: "B", Image: "https://i/x.png", URL: "https://u/?a=1&b=2", Badge: &badge, Sound: "default",
				Priority: channels.High, CollapseKey: "c", Data: json.RawMessage(`{"order":{"id":12345678901234567890}}`)},
			body: `"aps":{"alert":{"body":"B","title":"T"},"badge":0,"mutable-content":1,"sound":"default"},` +
				`"image":"https://i/x.png","order":{"id":12345678901234567890},"url":"https://u/?a=1&b=2"`,
			headers: "alert 10 t c",
		},
		"no priority": {m: channels.Message{Body: "B"}, body: `"aps":{"alert":{"body":"B"}}`, headers: "alert 10 t "},
		"low":         {m: channels.Message{Body: "B", Priority: channels.Low}, body: `"aps":{"alert":{"body":"B"}}`, headers: "alert 1 t "},
		"silent": {
			m:       channels.Message{Title: "T", Sound: "s", Image: "https://i", URL: "https://u", Badge: &badge, Silent: true, Priority: channels.High, Data: json.RawMessage(`{"a":1}`)},
			body:    `"aps":{"content-available":1},"a":1,"url":"https://u"`,
			headers: "background 5 t ",
		},
		"data only":  {m: channels.Message{Data: json.RawMessage(`{"a":null}`)}, body: `"aps":{"content-available":1},"a":null`, headers: "background 5 t "},
		"badge only": {m: channels.Message{Badge: &badge}, body: `"aps":{"badge":0}`, headers: "alert 10 t "},
		"null data":  {m: channels.Message{Body: "B", Data: json.RawMessage(`null`)}, body: `"aps":{"alert":{"body":"B"}}`, headers: "alert 10 t "},
		"merged": {
			m: channels.Message{Title: "T", Body: "B", Sound: "s", Data: json.RawMessage(`{"a":1,"b":2}`), CollapseKey: strings.Repeat("k", 65)},
			override: `{"aps":{"alert":{"subtitle":"S","body":null},"sound":null,"thread-id":"th","category":"cat","interruption-level":"time-sensitive","relevance-score":0.50},
				"topic":"com.other","priority":5,"collapse_id":"own","custom":{"b":{"x":"<"}}}`,
			body:    `"aps":{"alert":{"subtitle":"S","title":"T"},"category":"cat","interruption-level":"time-sensitive","relevance-score":0.50,"thread-id":"th"},"a":1,"b":{"x":"<"}`,
			headers: "alert 5 com.other own",
		},
		"alert by override": {m: channels.Message{Silent: true}, override: `{"aps":{"alert":"hi"}}`, body: `"aps":{"alert":"hi","content-available":1}`, headers: "alert 10 t "},
		"voip":              {m: channels.Message{Title: "T"}, override: `{"push_type":"voip"}`, body: `"aps":{"alert":{"title":"T"}}`, headers: "voip 10 t.voip "},
		"suffix once":       {m: channels.Message{Title: "T"}, override: `{"push_type":"location","topic":"a.location-query"}`, body: `"aps":{"alert":{"title":"T"}}`, headers: "location 10 a.location-query "},
		"live activity": {
			m:        channels.Message{Priority: channels.Low},
			override: `{"push_type":"liveactivity","aps":{"event":"update","timestamp":1700000000,"content-state":{"s":1}}}`,
			body:     `"aps":{"content-state":{"s":1},"event":"update","timestamp":1700000000}`, headers: "liveactivity 5 t.push-type.liveactivity ",
		},
		"widgets": {
			override: `{"push_type":"widgets","aps":{"content-changed":true}}`,
			body:     `"aps":{"content-changed":true}`, headers: "widgets 10 t.push-type.widgets ",
		},
		"widgets, accepted before": {
			m: channels.Message{Accepted: true}, override: `{"push_type":"widgets"}`,
			body: `"aps":{"content-changed":true}`, headers: "widgets 10 t.push-type.widgets ",
		},
		"live activity with an alert": {
			override: `{"push_type":"liveactivity","aps":{"event":"update","timestamp":1,"content-state":{},
				"alert":{"title":{"loc-key":"T","loc-args":["a"]},"body":"B","sound":"hero.caf"}}}`,
			body:    `"aps":{"alert":{"body":"B","sound":"hero.caf","title":{"loc-args":["a"],"loc-key":"T"}},"content-state":{},"event":"update","timestamp":1}`,
			headers: "liveactivity 10 t.push-type.liveactivity ",
		},
	} {
		if c.override != "" {
			c.m.Override = json.RawMessage(c.override)
		}
		p, ok := prepare(t, c.m).(*payload)
		require.True(t, ok)
		require.Equal(t, `{"carillon":"`+testDelivery+`",`+c.body+`}`, string(p.Preview(testDelivery)), name)
		require.Equal(t, c.headers, fmt.Sprint(p.pushType, " ", p.priority, " ", p.topicFor("t"), " ", p.collapseID), name)
	}
}

// TestACopyReplacesTheFirst: what is sent again, since nobody knows whether it was
// received, is seen once.
func TestACopyReplacesTheFirst(t *testing.T) {
	t.Parallel()
	const id = "ntf_071480ft40400"
	for name, c := range map[string]struct {
		m    channels.Message
		want string
	}{
		"alert":      {channels.Message{Title: "x"}, id},
		"with a key": {channels.Message{Title: "x", CollapseKey: "k"}, "k"},
		"own":        {channels.Message{Title: "x", CollapseKey: "k", Override: json.RawMessage(`{"collapse_id":"own"}`)}, "own"},
		"background": {channels.Message{Data: json.RawMessage(`{"a":1}`)}, ""},
		"voip":       {channels.Message{Title: "x", Override: json.RawMessage(`{"push_type":"voip"}`)}, ""},
	} {
		c.m.Notification = id
		require.Equal(t, c.want, prepare(t, c.m).(*payload).collapseID, name)
	}
}

func TestPrepareNamesTheMember(t *testing.T) {
	t.Parallel()
	minus := -1
	for _, c := range []struct {
		m     channels.Message
		paths []string
	}{
		{channels.Message{Title: "T", CollapseKey: strings.Repeat("é", 33)}, []string{"collapse_key"}},
		{channels.Message{Title: "T", CollapseKey: "a\nb"}, []string{"collapse_key"}},
		{channels.Message{Badge: &minus}, []string{"badge"}},
		{channels.Message{Title: "T", Data: json.RawMessage(`[1]`)}, []string{"data"}},
		{channels.Message{Title: "T", Data: json.RawMessage(`{"aps":{},"carillon":1}`)}, []string{"data.aps", "data.carillon"}},
		{channels.Message{Title: "T", URL: "https://u", Data: json.RawMessage(`{"url":1,"image":2}`)}, []string{"data.url"}},
	} {
		_, err := New(Options{}).Prepare(c.m)
		requireFields(t, err, problem.Invalid, c.paths...)
	}
	for override, path := range map[string]string{
		`[]`:                                                "",
		`{"headers":{}}`:                                    ".headers",
		`{"aps":[]}`:                                        ".aps",
		`{"aps":{"my-key":1}}`:                              ".aps.my-key",
		`{"aps":{"my-key":null}}`:                           ".aps.my-key",
		`{"aps":{"alert":{"colour":"red"}}}`:                ".aps.alert.colour",
		`{"aps":{"alert":5}}`:                               ".aps.alert",
		`{"aps":{"sound":{"loud":1}}}`:                      ".aps.sound.loud",
		`{"aps":{"badge":-1}}`:                              ".aps.badge",
		`{"aps":{"badge":1.5}}`:                             ".aps.badge",
		`{"aps":{"thread-id":1}}`:                           ".aps.thread-id",
		`{"aps":{"content-available":2}}`:                   ".aps.content-available",
		`{"aps":{"interruption-level":"now"}}`:              ".aps.interruption-level",
		`{"aps":{"relevance-score":"1"}}`:                   ".aps.relevance-score",
		`{"aps":{"content-state":"x"}}`:                     ".aps.content-state",
		`{"aps":{"url-args":"x"}}`:                          ".aps.url-args",
		`{"topic":"a b"}`:                                   ".topic",
		`{"push_type":"mdm"}`:                               ".push_type",
		`{"push_type":"background"}`:                        ".push_type",
		`{"priority":7}`:                                    ".priority",
		`{"priority":0}`:                                    ".priority",
		`{"priority":"10"}`:                                 ".priority",
		`{"collapse_id":""}`:                                ".collapse_id",
		`{"collapse_id":"` + strings.Repeat("k", 65) + `"}`: ".collapse_id",
		`{"custom":null}`:                                   ".custom",
		`{"custom":{"carillon":1}}`:                         ".custom.carillon",
		`{"push_type":"liveactivity","aps":{"event":"end","timestamp":1,"content-state":{}},"priority":1}`: ".priority",
		`{"push_type":"widgets"}`:                                ".aps.content-changed",
		`{"push_type":"widgets","aps":{"content-changed":null}}`: ".aps.content-changed",
		`{"aps":{"content-changed":true}}`:                       ".aps.content-changed",
		`{"aps":{"alert":{"sound":"s"}}}`:                        ".aps.alert.sound",
		`{"push_type":"liveactivity","aps":{"event":"end","timestamp":1,"content-state":{},"alert":{"title":{"key":"x"}}}}`: ".aps.alert.title.key",
		`{"push_type":"liveactivity","aps":{"event":"end","timestamp":1}}`:                                                  ".aps.content-state",
	} {
		_, err := New(Options{}).Prepare(channels.Message{Title: "T", Override: json.RawMessage(override)})
		requireFields(t, err, problem.Invalid, "overrides.apns"+path)
	}
	for _, changed := range []string{"1", "false", `"true"`} {
		_, err := New(Options{}).Prepare(channels.Message{Override: json.RawMessage(`{"push_type":"widgets","aps":{"content-changed":` + changed + `}}`)})
		require.ErrorContains(t, err, "content-changed")
	}
	_, err := New(Options{}).Prepare(channels.Message{Silent: true, Override: json.RawMessage(`{"priority":10}`)})
	requireFields(t, err, problem.Invalid, "overrides.apns.priority")
	_, err = New(Options{}).Prepare(channels.Message{Silent: true, Override: json.RawMessage(`{"push_type":"alert"}`)})
	requireFields(t, err, problem.Invalid, "overrides.apns.push_type")
}

// TestLenient: what Apple adds passes; what routes and what is ours does not.
func TestLenient(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	lenient := func(override string) channels.Message {
		return channels.Message{Title: "T", Validation: channels.Lenient, Override: json.RawMessage(override)}
	}
	const news = `{"aps":{"haptics":{"n":1},"alert":{"colour":"red"},"sound":{"loud":1},"interruption-level":"gentle","gone":null}}`
	p, err := c.Prepare(lenient(news))
	require.NoError(t, err)
	require.JSONEq(t, `{"carillon":"`+testDelivery+`","aps":{"haptics":{"n":1},"alert":{"title":"T","colour":"red"},"sound":{"loud":1},"interruption-level":"gentle"}}`,
		string(p.Preview(testDelivery)))
	for _, how := range []channels.Validation{"", channels.Strict} {
		strict := lenient(news)
		strict.Validation = how
		_, err = c.Prepare(strict)
		requireFields(t, err, problem.Invalid, "overrides.apns.aps.alert.colour", "overrides.apns.aps.gone", "overrides.apns.aps.haptics",
			"overrides.apns.aps.interruption-level", "overrides.apns.aps.sound.loud")
	}
	for override, path := range map[string]string{
		`{"apns-topic":"x"}`: ".apns-topic", `{"apns-id":"x"}`: ".apns-id", `{"headers":{}}`: ".headers", `{"token":"x"}`: ".token",
		`{"topic":"a b"}`: ".topic", `{"push_type":"new"}`: ".push_type", `{"priority":7}`: ".priority", `{"collapse_id":""}`: ".collapse_id",
		`{"custom":{"carillon":1}}`: ".custom.carillon", `{"custom":{"aps":{}}}`: ".custom.aps", `{"aps":{"badge":"x"}}`: ".aps.badge",
		`{"aps":{"interruption-level":5}}`: ".aps.interruption-level", `{"aps":[]}`: ".aps",
	} {
		_, err := c.Prepare(lenient(override))
		requireFields(t, err, problem.Invalid, "overrides.apns"+path)
	}
	large := lenient(`{"aps":{"new":"` + strings.Repeat("x", maxPayload) + `"}}`)
	_, err = c.Prepare(large)
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}

func TestTheLimitIsExact(t *testing.T) {
	t.Parallel()
	empty := prepare(t, channels.Message{Body: "."}).Size() - 1
	for _, c := range []struct {
		override string
		limit    int
	}{{`{}`, 4096}, {`{"push_type":"voip"}`, 5120}} {
		m := channels.Message{Body: strings.Repeat("&", c.limit-empty), Override: json.RawMessage(c.override)}
		p := prepare(t, m)
		require.Equal(t, c.limit, p.Size())
		require.NotContains(t, string(p.Preview(testDelivery)), `\u0026`)
		m.Body += "&"
		_, err := New(Options{}).Prepare(m)
		require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
		require.ErrorContains(t, err, fmt.Sprint(c.limit+1))
	}
}

func TestAForeignPayloadIsRejected(t *testing.T) {
	t.Parallel()
	s := openAt(t, serve(t, answer(200, "")))
	require.Equal(t, "apns.foreign_payload", s.Send(context.Background(), device(), nil, life()).Code)
}

func FuzzPrepare(f *testing.F) {
	f.Add(`{"a":1}`, `{"aps":{"alert":{"body":null}},"custom":{"x":[1]}}`, "title")
	f.Add(`{"u":"\u2028<"}`, `{"push_type":"voip"}`, "\xff")
	f.Fuzz(func(t *testing.T, data, override, title string) {
		p, err := New(Options{}).Prepare(channels.Message{Title: title, Data: json.RawMessage(data), Override: json.RawMessage(override)})
		if err != nil {
			require.NotEqual(t, problem.Internal, problem.CodeOf(err), "%v", err)
			return
		}
		preview := p.Preview(testDelivery)
		var m map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(preview, &m))
		require.Equal(t, `"`+testDelivery+`"`, string(m["carillon"]))
		require.Len(t, preview, p.Size())
	})
}
