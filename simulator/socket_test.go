package simulator_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// firefox speaks the browser's side of the push socket.
type firefox struct {
	conn *websocket.Conn
	ctx  context.Context
}

func dialPush(t testing.TB, r *rig) *firefox {
	t.Helper()
	f := &firefox{ctx: withTimeout(t)}
	var err error
	f.conn, _, err = websocket.Dial(f.ctx, r.Push().SocketURL, &websocket.DialOptions{Subprotocols: []string{"push-notification"}})
	require.NoError(t, err)
	require.Equal(t, "push-notification", f.conn.Subprotocol())
	t.Cleanup(func() { _ = f.conn.CloseNow() })
	return f
}

func (f *firefox) say(t testing.TB, text string) {
	t.Helper()
	require.NoError(t, f.conn.Write(f.ctx, websocket.MessageText, []byte(text)))
}

func (f *firefox) hear(t testing.TB) map[string]any {
	t.Helper()
	_, text, err := f.conn.Read(f.ctx)
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(text, &m))
	return m
}

// hello greets and gives the uaid.
func (f *firefox) hello(t testing.TB, uaid string) string {
	t.Helper()
	f.say(t, `{"messageType":"hello","broadcasts":{"remote-settings/monitor_changes":"v"},"use_webpush":true,"uaid":"`+uaid+`"}`)
	m := f.hear(t)
	require.Equal(t, "hello", m["messageType"])
	require.EqualValues(t, 200, m["status"])
	require.Equal(t, true, m["use_webpush"])
	return m["uaid"].(string)
}

const channelID = "3f0e4c5a-0b1f-4a6f-8d1e-0123456789ab"

func (f *firefox) register(t testing.TB, key string) string {
	t.Helper()
	f.say(t, `{"messageType":"register","channelID":"`+channelID+`","key":"`+key+`"}`)
	m := f.hear(t)
	require.EqualValues(t, 200, m["status"])
	require.Equal(t, channelID, m["channelID"])
	return m["pushEndpoint"].(string)
}

func (f *firefox) ack(t testing.TB, version any, code string) {
	t.Helper()
	f.say(t, `{"messageType":"ack","updates":[{"channelID":"`+channelID+`","version":"`+version.(string)+`","code":`+code+`}]}`)
}

func delivered(n int64) func(simulator.Report) bool {
	return func(r simulator.Report) bool { return r.Browser.Delivered == n }
}

func TestPushSocket(t *testing.T) {
	t.Parallel()
	p := setupPush(t)
	f := dialPush(t, p.rig)
	uaid := f.hello(t, "")
	require.NotEmpty(t, uaid)
	f.say(t, `{}`)
	require.Empty(t, f.hear(t), "a ping")
	f.say(t, `{"messageType":"broadcast_subscribe","broadcasts":{}}`)
	f.say(t, `{"messageType":"register","channelID":"c","key":"AAAA"}`)
	require.EqualValues(t, 400, f.hear(t)["status"])
	endpoint := f.register(t, p.vapid.public+"=") // Firefox pads

	require.Equal(t, 401, p.post(t, endpoint, p.body, "Authorization", "-").status)
	require.Equal(t, 201, p.post(t, endpoint, p.body).status)
	m := f.hear(t)
	require.Equal(t, "notification", m["messageType"])
	require.Equal(t, channelID, m["channelID"])
	require.Equal(t, map[string]any{"encoding": "aes128gcm"}, m["headers"])
	body, err := base64.RawURLEncoding.DecodeString(m["data"].(string))
	require.NoError(t, err)
	require.Equal(t, p.body, body)
	f.ack(t, m["version"], "100")
	require.NoError(t, p.Wait(f.ctx, delivered(1)))

	require.Equal(t, 201, p.post(t, endpoint, nil, "Content-Encoding", "-").status)
	m = f.hear(t)
	require.NotContains(t, m, "data")
	f.ack(t, m["version"], "101")
	require.NoError(t, p.Wait(f.ctx, func(r simulator.Report) bool { return r.Browser.Undecryptable == 1 }))
	f.say(t, `{"messageType":"nack","version":"x","code":302}`)
	require.NoError(t, p.Wait(f.ctx, func(r simulator.Report) bool { return r.Browser.Failed == 1 }))

	require.Equal(t, 503, p.post(t, endpoint+"/sim-503", p.body).status)
	f.say(t, `{"messageType":"unregister","channelID":"`+channelID+`","code":200}`)
	require.EqualValues(t, 200, f.hear(t)["status"], "and nothing before it: what met a fault is not delivered")
	require.Equal(t, 410, p.post(t, endpoint, p.body).status)
}

// TestPushSocketKeepsMessages: what a browser has not acknowledged comes again
// at its next hello, unless its time is over or another took its place.
func TestPushSocketKeepsMessages(t *testing.T) {
	t.Parallel()
	p := setupPush(t)
	f := dialPush(t, p.rig)
	uaid := f.hello(t, "")
	endpoint := f.register(t, p.vapid.public)
	require.Equal(t, 201, p.post(t, endpoint, p.body).status)
	first := f.hear(t)["version"]
	p.Push().Disconnect()
	gone := func(r simulator.Report) bool { return r.Browser.Connected == 0 }
	require.NoError(t, p.Wait(f.ctx, gone))
	require.Equal(t, 201, p.post(t, endpoint, p.body, "TTL", "0").status, "for now or never")
	require.Equal(t, 201, p.post(t, endpoint, p.body, "Topic", "news", "TTL", "3600").status)
	require.Equal(t, 201, p.post(t, endpoint, nil, "Topic", "news", "TTL", "3600", "Content-Encoding", "-").status)

	f = dialPush(t, p.rig)
	require.Equal(t, uaid, f.hello(t, uaid))
	require.Equal(t, first, f.hear(t)["version"])
	m := f.hear(t)
	require.NotContains(t, m, "data", "the second with the topic replaced the first")
	f.ack(t, m["version"], "100")
	require.NoError(t, p.Wait(f.ctx, delivered(1)))

	p.clock.Advance(2 * time.Minute) // longer than the TTL of the first message
	p.Push().Disconnect()
	require.NoError(t, p.Wait(f.ctx, gone))
	f = dialPush(t, p.rig)
	require.Equal(t, uaid, f.hello(t, uaid))
	f.say(t, `{}`)
	require.Empty(t, f.hear(t), "nothing waits any more")

	p.Push().Forget()
	require.NoError(t, p.Wait(f.ctx, gone), "and is disconnected")
	require.Equal(t, 410, p.post(t, endpoint, p.body).status)
	f = dialPush(t, p.rig)
	require.NotEqual(t, uaid, f.hello(t, uaid))
}

func TestPushSocketWantsHello(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"messageType":"register","channelID":"c"}`, `no JSON`} {
		f := dialPush(t, setup(t))
		f.say(t, text)
		_, _, err := f.conn.Read(f.ctx)
		require.Error(t, err)
		require.NoError(t, f.ctx.Err())
	}
}
