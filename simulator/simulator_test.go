package simulator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/simulator"
)

func (r *rig) hook(t testing.TB, name, id string) got {
	t.Helper()
	return r.do(t, http.MethodPost, r.Webhook().URL(name), map[string]string{"webhook-id": id}, []byte("{}"))
}

func TestResetsAndCuts(t *testing.T) {
	t.Parallel()
	r := setup(t)
	require.Error(t, r.hook(t, "sim-reset", "ntf_1").err)
	a := r.hook(t, "sim-cut", "ntf_1")
	require.Equal(t, 200, a.status)
	require.Error(t, a.err, "the body broke off")
	a = r.hook(t, "sim-500-cut", "ntf_2")
	require.Equal(t, 500, a.status)
	require.Error(t, a.err)

	over := newApple(t, r)
	reset, _ := over.push(t, simulator.Token(simulator.APNs, simulator.Fault{Reset: true}, 1), nil, alert)
	require.Error(t, reset.err)
	cut, _ := over.push(t, simulator.Token(simulator.APNs, simulator.Fault{Status: 410, CutBody: true}, 1), nil, alert)
	require.Equal(t, 410, cut.status)
	require.Error(t, cut.err)
	_, said := over.push(t, over.APNs().NewToken(), nil, alert)
	require.Equal(t, "200 ", said, "a new connection is fine")

	report := r.Report()
	require.Equal(t, map[string]uint64{"reset": 1, "200 cut": 1, "500 cut": 1}, report.Channels[simulator.Webhook].Answers)
	require.EqualValues(t, 1, report.Channels[simulator.Webhook].Accepted, "a reset was not accepted, a cut answer was")
	require.Equal(t, map[string]uint64{"reset": 1, "410 Unregistered": 1, "200": 1}, report.Channels[simulator.APNs].Answers)
}

// TestLatency: a slow answer comes, a client that gives up ends its own request
// only, and Close does not wait for the hour.
func TestLatency(t *testing.T) {
	t.Parallel()
	judged := make(chan struct{}, 1) // APNs asks for the time after it has read a request
	r := setup(t, func(o *simulator.Options) {
		o.Now = func() time.Time {
			select {
			case judged <- struct{}{}:
			default:
			}
			return time.Now()
		}
	})
	require.Equal(t, 204, r.hook(t, "sim-slow-1ms", "ntf_1").status)
	a := newApple(t, r)
	_, said := a.push(t, r.APNs().NewToken(), nil, alert)
	require.Equal(t, "200 ", said)

	slow := r.APNs().URL + "/3/device/" + simulator.Token(simulator.APNs, simulator.Fault{Latency: 999 * time.Second}, 1)
	ask := func(ctx context.Context) <-chan error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, slow, strings.NewReader(alert))
		require.NoError(t, err)
		req.Header = http.Header{"Authorization": {"bearer " + a.token}, "Apns-Topic": {r.APNs().Topic}}
		select {
		case <-judged:
		default:
		}
		failed := make(chan error, 1)
		go func() {
			_, err := a.client.Do(req)
			failed <- err
		}()
		<-judged
		return failed
	}
	ctx, cancel := context.WithCancel(withTimeout(t))
	failed := ask(ctx)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.NoError(t, r.Wait(withTimeout(t), func(rep simulator.Report) bool {
		return rep.Channels[simulator.APNs].Answers["canceled"] == 1
	}))
	_, said = a.push(t, r.APNs().NewToken(), nil, alert)
	require.Equal(t, "200 ", said, "the connection goes on")

	failed = ask(withTimeout(t))
	require.NoError(t, r.Close())
	require.Error(t, <-failed)
}

// TestLog: a line at the start, a line per request for those who want to see
// them, and in neither an address or a payload.
func TestLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s, err := simulator.Start(simulator.Options{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	a := send(t, &http.Client{Transport: transport}, http.MethodPost, s.Webhook().URL("sim-503-anna"), map[string]string{"webhook-id": "ntf_1"},
		[]byte("the payload"))
	require.Equal(t, 503, a.status)
	require.NoError(t, s.Close())
	require.Contains(t, out.String(), "the simulator is running")
	require.Contains(t, out.String(), "delivery=ntf_1 status=503")
	require.NotContains(t, out.String(), "anna")
	require.NotContains(t, out.String(), "payload")
}

func TestReportCountsDuplicates(t *testing.T) {
	t.Parallel()
	r := setup(t)
	id := func(n ids.ID) string { return n.Format(ids.Notification) }
	made := ids.NewGenerator(1, func() time.Time { return r.clock.Now().Add(-100 * time.Millisecond) })
	a, b := made.Next(), made.Next()
	for range 3 {
		r.hook(t, "orders", id(a))
	}
	r.hook(t, "others", id(a)) // another receiver: another delivery
	r.hook(t, "sim-503x1-late", id(b))
	r.hook(t, "sim-503x1-late", id(b)) // a retry is no duplicate
	r.hook(t, "orders", "")            // without an id: counted, but nothing more
	c := r.Report().Channels[simulator.Webhook]
	require.EqualValues(t, 7, c.Requests)
	require.EqualValues(t, 6, c.Accepted)
	require.EqualValues(t, 3, c.Distinct)
	require.EqualValues(t, 2, c.Duplicates)
	require.EqualValues(t, 3, c.Latency.Count)
	require.GreaterOrEqual(t, c.Latency.P50, int64(100))
	require.GreaterOrEqual(t, c.Latency.Max, c.Latency.P99)
	require.Equal(t, 3, r.Accepted(simulator.Webhook, "orders", id(a)))
	require.Equal(t, 3, r.Accepted(simulator.Webhook, r.Webhook().URL("orders"), id(a)))
	require.Equal(t, 1, r.Accepted(simulator.Webhook, "sim-503x1-late", id(b)))
	require.Zero(t, r.Accepted(simulator.Webhook, "orders", id(b)))

	token := r.bearer(t)
	delivery := ids.FormatDelivery(a, b)
	for _, target := range []string{"anna", "bert"} {
		r.sendFCM(t, token, r.FCM().Project, fmt.Sprintf(`{"message":{"token":%q,"data":{"carillon":%q}}}`, target, delivery))
	}
	f := r.Report().Channels[simulator.FCM]
	require.EqualValues(t, 1, f.Distinct, "one delivery, whatever the address")
	require.EqualValues(t, 1, f.Duplicates)
	require.EqualValues(t, 1, f.Latency.Count)
	require.Equal(t, 2, r.Accepted(simulator.FCM, "", delivery))

	r.Reset()
	require.Zero(t, r.Report().Requests)
	require.Empty(t, r.Arrivals(simulator.Filter{}))
	require.Zero(t, r.Accepted(simulator.FCM, "", delivery))
	require.Equal(t, 503, r.hook(t, "sim-503x1-late", id(b)).status, "faults begin anew")
}

func TestArrivals(t *testing.T) {
	t.Parallel()
	r := setup(t, func(o *simulator.Options) { o.Keep = 5 })
	for i := range 8 {
		r.hook(t, fmt.Sprint("r", i%2), fmt.Sprint("ntf_", i))
	}
	names := func(f simulator.Filter) (out []string) {
		for _, a := range r.Arrivals(f) {
			out = append(out, a.Delivery)
		}
		return out
	}
	require.Equal(t, []string{"ntf_3", "ntf_4", "ntf_5", "ntf_6", "ntf_7"}, names(simulator.Filter{}), "the newest are kept")
	require.Equal(t, []string{"ntf_6", "ntf_7"}, names(simulator.Filter{Limit: 2}))
	require.Equal(t, []string{"ntf_3", "ntf_5", "ntf_7"}, names(simulator.Filter{Target: "r1", Channel: simulator.Webhook}))
	require.Equal(t, []string{"ntf_4"}, names(simulator.Filter{Delivery: "ntf_4"}))
	require.Empty(t, names(simulator.Filter{Channel: simulator.APNs}))
	require.EqualValues(t, 8, r.Report().Requests, "all are counted")
	require.Len(t, r.Report().Last, 5)
}

func TestWait(t *testing.T) {
	t.Parallel()
	r := setup(t)
	const n = 50
	var senders sync.WaitGroup
	for i := range n {
		senders.Go(func() { r.hook(t, "orders", fmt.Sprint("ntf_", i)) })
	}
	require.NoError(t, r.Wait(withTimeout(t), func(rep simulator.Report) bool { return rep.Accepted == n }))
	senders.Wait()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	never := func(simulator.Report) bool { return false }
	require.ErrorIs(t, r.Wait(ctx, never), why)
	done := make(chan error, 1)
	go func() { done <- r.Wait(context.Background(), never) }()
	require.NoError(t, r.Close())
	require.ErrorIs(t, <-done, http.ErrServerClosed)
}

func TestStart(t *testing.T) {
	t.Parallel()
	r := setup(t)
	host := strings.TrimPrefix(r.FCM().URL, "http://")
	_, err := simulator.Start(simulator.Options{Listen: host})
	require.ErrorContains(t, err, "cannot listen")
	require.NoError(t, r.Close())
	require.NoError(t, r.Close(), "again is harmless")
	require.Error(t, r.hook(t, "orders", "ntf_1").err)
	again, err := simulator.Start(simulator.Options{Topics: []string{"org.example.bell"}, Project: "bell-1"})
	require.NoError(t, err)
	require.Equal(t, "bell-1", again.FCM().Project)
	require.Equal(t, "org.example.bell", again.APNs().Topic)
	require.NoError(t, again.Close())
}
