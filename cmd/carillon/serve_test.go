package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

func TestServeNeedsAKeyRing(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "c.db")
	code, _, errs := command(t, []string{"CARILLON_DATABASE_URL=" + db}, "serve")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "carillon key-ring init --out")
	require.Contains(t, errs, "CARILLON_KEY_RING_FILE")
	require.NoFileExists(t, db)

	code, _, errs = command(t, []string{"CARILLON_KEY_RING_FILE=" + db}, "serve")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "no such file")

	code, _, errs = command(t, []string{"CARILLON_KEY_RING=no-key-ring", "CARILLON_DATABASE_URL=" + db}, "serve")
	require.Equal(t, exitUsage, code)
	require.NotContains(t, errs, "no-key-ring", "what may be a secret is not repeated")
}

func TestFirstStartTellsHowToGoOn(t *testing.T) {
	t.Parallel()
	i := install(t)
	s := i.serve()
	for _, want := range []string{"carillon tenant create acme", "carillon key create --tenant acme", s.url + "/v1/notifications", s.url + "/docs"} {
		require.Contains(t, s.said(), want)
	}
	status, _ := get(t, s.url+"/docs")
	require.Equal(t, 200, status)
	i.must("tenant", "create", "acme")
	require.Zero(t, s.stop())

	s = i.serve("CARILLON_DOCS_ENABLED=false", "CARILLON_NODE_NAME=bell-1")
	require.NotContains(t, s.said(), "The database is empty")
	require.Contains(t, s.said(), `"node":"bell-1"`)
	status, _ = get(t, s.url+"/docs")
	require.Equal(t, 404, status)
}

func TestOneServerOnADatabase(t *testing.T) {
	t.Parallel()
	i := install(t)
	s := i.serve()
	code, _, errs := i.command("serve")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, fmt.Sprintf("another server (pid %d) runs on", os.Getpid()))
	status, _ := get(t, s.url+"/readyz")
	require.Equal(t, 200, status, "the first one is not disturbed")
	require.Zero(t, s.stop())
	i.serve()
}

func TestServeNeedsItsAddress(t *testing.T) {
	t.Parallel()
	i := install(t)
	taken := strings.TrimPrefix(i.sim.FCM().URL, "http://")
	for _, setting := range []string{"--listen", "--admin-listen"} {
		code, _, errs := i.command("serve", setting, taken)
		require.Equal(t, exitFailed, code)
		require.Contains(t, errs, taken)
	}
	i.serve() // nothing is left locked
}

// TestMetrics checks what is served to Prometheus after every channel was used.
func TestMetrics(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	sub, err := k.sim.Push().NewSubscription(k.pushKey)
	require.NoError(t, err)
	for _, d := range []map[string]any{
		{"channel": "fcm", "token": "phone"},
		{"channel": "apns", "token": k.sim.APNs().NewToken(), "environment": "production"},
		{"channel": "webpush", "subscription": sub},
	} {
		d["user"] = "alice"
		k.do("PUT", "/v1/devices", d, nil)
	}
	k.do("POST", "/v1/endpoints", map[string]any{"url": k.sim.Webhook().URL("x"), "event_types": []string{"*"}}, nil)
	k.must("send", "--user", "alice", "--type", "order.shipped", "--title", "Hello", "--channel", "fcm,apns,webpush,webhook", "--wait", "20s")

	status, text := get(t, k.server.admin)
	require.Equal(t, 200, status, text)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	for _, series := range []string{
		`carillon_attempts_total{channel="fcm",code="fcm.accepted",outcome="accepted"} 1`,
		`carillon_attempts_total{channel="webhook",code="webhook.accepted",outcome="accepted"} 1`,
		`carillon_attempt_duration_seconds_count{channel="apns"} 1`,
		`carillon_deliveries_total{channel="webpush",reason="",state="sent"} 1`,
		`carillon_takeovers_total 0`,
		`carillon_http_request_duration_seconds_count{method="POST",route="/v1/notifications",status="202"} 1`,
		`carillon_http_requests_in_flight 0`,
		`carillon_queue_deliveries{lane="urgent",state="pending"} 0`,
		`carillon_queue_oldest_due_seconds 0`,
		`carillon_workers_busy{lane="normal"} 0`,
		`carillon_workers{lane="normal"} `,
		`carillon_queue_oldest_in_hand_seconds{lane="bulk"} 0`,
		`carillon_devices_not_active{status="retired"} 0`,
		`carillon_waits{cause="throttled",channel="fcm"} 0`,
		`carillon_credential_up{app="default",channel="fcm",`,
		`carillon_loop_heartbeat_seconds{loop="claim"}`,
		`carillon_loop_heartbeat_seconds{loop="write"}`,
		`carillon_writes_waiting 0`,
		"carillon_database_bytes ",
		"carillon_disk_free_bytes ",
		`carillon_invariant_violations{invariant=`,
		`go_goroutines`,
	} {
		require.Contains(t, text, "\n"+series)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "carillon_invariant_violations") {
			require.Contains(t, line, "} 0\n")
		}
	}
	for _, secret := range []string{k.key, k.operator, "phone", sub.Keys.Auth} {
		require.NotContains(t, text, secret)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	for _, at := range []string{k.server.url, strings.TrimSuffix(k.server.admin, "/metrics")} {
		for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready"} {
			status, body := get(t, at+path)
			require.Equal(t, 200, status)
			require.JSONEq(t, `{"status":"`+want+`"}`, body)
		}
	}
	status, _ := get(t, k.server.url+"/metrics")
	require.Equal(t, 404, status, "metrics are for the administrator")
	status, _ = get(t, strings.TrimSuffix(k.server.admin, "/metrics")+"/debug/pprof/")
	require.Equal(t, 200, status)
	require.Zero(t, k.server.stop())
	code, _, _ := k.command("healthcheck", "--listen", strings.TrimPrefix(k.server.url, "http://"))
	require.Equal(t, exitFailed, code)
}

// TestStopInOrder stops a server whose one worker is in the middle of a slow
// send: that one is finished, what waits costs nothing, and the next start
// delivers it.
func TestStopInOrder(t *testing.T) {
	t.Parallel()
	k := startServer(t, "CARILLON_WORKERS=1", "CARILLON_SHUTDOWN_GRACE=20s")
	const n = 5
	for i := range n {
		k.phone("alice", simulator.Token(simulator.FCM, simulator.Fault{Latency: 400 * time.Millisecond}, i))
	}
	k.must("send", "--user", "alice", "--title", "Slow")
	require.NoError(t, k.sim.Wait(t.Context(), func(r simulator.Report) bool { return r.Channels["fcm"].Requests > 0 }))
	require.Zero(t, k.server.stop(), k.server.said())

	k.at(k.serve())
	require.NotContains(t, k.server.said(), "did not stop in order")
	eventually(t, func() bool {
		list := k.deliveries()
		sent := 0
		for _, d := range list {
			if d.State == "sent" {
				sent++
			}
		}
		return len(list) == n && sent == n
	}, "%d deliveries are sent", n)
	for _, d := range k.deliveries() {
		require.Equal(t, 1, d.Last.Number, "stopping costs no attempt")
		require.Equal(t, 1, k.sim.Accepted(simulator.FCM, "", d.ID), "and nothing is sent twice")
	}
}

// TestStopCutsOffWhatTakesTooLong: after the grace the request is given up, which
// costs no attempt, and the next start sends again.
func TestStopCutsOffWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	k := startServer(t, "CARILLON_SHUTDOWN_GRACE=1s")
	k.phone("alice", simulator.Token(simulator.FCM, simulator.Fault{Latency: time.Minute, Times: 1}, 1))
	k.must("send", "--user", "alice", "--title", "Slow")
	eventually(t, func() bool { l := k.deliveries(); return len(l) == 1 && l[0].State == "sending" }, "it is being sent")
	begin := time.Now()
	require.Zero(t, k.server.stop(), k.server.said())
	require.Less(t, time.Since(begin), time.Minute, "it does not wait for the provider")

	k.at(k.serve())
	eventually(t, func() bool { return k.deliveries()[0].State == "sent" }, "the next start delivers")
	require.Equal(t, 1, k.sim.Accepted(simulator.FCM, "", k.deliveries()[0].ID))
}

// TestStopDoesNotWaitForClients: a connection on which nothing comes, as browsers
// open them ahead, or half a request keeps no server from stopping in order.
func TestStopDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	k := startServer(t, "CARILLON_SHUTDOWN_GRACE=2s")
	for _, sent := range []string{"", "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + k.key +
		"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(k.server.url, "http://"))
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte(sent))
		require.NoError(t, err)
	}
	k.phone("alice", simulator.Token(simulator.FCM, simulator.Fault{Latency: 1500 * time.Millisecond}, 1))
	k.must("send", "--user", "alice", "--title", "Slow")
	require.Zero(t, k.server.stop(), k.server.said())
	require.Equal(t, uint64(1), k.sim.Report().Channels["fcm"].Accepted, "what was being sent was not cut off for their sake")
}
