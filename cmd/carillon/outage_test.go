package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/api"
	"github.com/carillonhq/carillon/store/pgtest"
)

// ask makes a call, whatever comes of it.
func (k *kit) ask(method, path, body string) (int, http.Header, api.Problem) {
	k.t.Helper()
	req, err := http.NewRequestWithContext(k.t.Context(), method, k.server.url+path, strings.NewReader(body))
	require.NoError(k.t, err)
	req.Header.Set("Authorization", "Bearer "+k.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	require.NoError(k.t, err)
	defer func() { require.NoError(k.t, res.Body.Close()) }()
	b, err := io.ReadAll(res.Body)
	require.NoError(k.t, err)
	var p api.Problem
	_ = json.Unmarshal(b, &p)
	return res.StatusCode, res.Header, p
}

// TestADatabaseThatIsAwayIsSaidOnce: callers are told to come back, whatever they ask
// for, and the log has its beginning and its end, not each request and each loop.
func TestADatabaseThatIsAwayIsSaidOnce(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	i := install(t)
	i.environ = append(i.environ, "CARILLON_DATABASE_URL="+server.URL("carillon"), "CARILLON_DATABASE_CONNECTIONS=8")
	k := i.kit()
	said := func(what string) int { return strings.Count(k.server.said(), `"msg":"`+what) }
	require.NoError(t, server.Kill())
	before := len(k.server.said())
	for range 5 {
		for _, x := range [][3]string{{"GET", "/v1/keys"}, {"GET", "/v1/devices"}, {"GET", "/v1/notifications/ntf_0d1kq3w8r000c"}, {"GET", "/v1/jobs"},
			{"PUT", "/v1/devices", `{"user":"u","channel":"fcm","token":"t"}`}, {"POST", "/v1/notifications", `{"to":{"users":["u"]},"title":"x"}`},
			{"POST", "/v1/notifications/batch", `{"notifications":[{"to":{"users":["u"]},"title":"x"}]}`}} {
			status, header, p := k.ask(x[0], x[1], x[2])
			require.Equal(t, 503, status, "%v %s", x, p.Detail)
			require.Equal(t, "unavailable", string(p.Code), x)
			require.Equal(t, "5", header.Get("Retry-After"), x)
		}
	}
	eventually(t, func() bool { return said("this node cannot reach the database") == 1 }, "the log says so")
	require.NoError(t, server.Start())
	eventually(t, func() bool { status, _, _ := k.ask("GET", "/v1/keys", ""); return status == 200 }, "it is served again")
	eventually(t, func() bool { return said("this node reaches the database again") == 1 }, "the log says that it is over")
	for line := range strings.Lines(k.server.said()[before:]) {
		var l struct{ Level, Msg string }
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		switch {
		case l.Level == "INFO", l.Msg == "this node cannot reach the database; it sends nothing until it can", l.Msg == "the database takes no writes":
		default:
			t.Errorf("the log has more of it: %s", line)
		}
	}
	require.Equal(t, 1, said("this node cannot reach the database"))
	require.LessOrEqual(t, said("the database takes no writes"), 1)
}

// TestAFileThatIsGoneAcceptsNothing: it is noticed with the first notification, and the
// server says that it is not ready, until the file is back.
func TestAFileThatIsGoneAcceptsNothing(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	const notification = `{"to":{"users":["u"]},"title":"x"}`
	status, _, _ := k.ask("POST", "/v1/notifications", notification)
	require.Equal(t, 202, status)
	file := filepath.Join(k.dir, "carillon.db")
	require.NoError(t, os.Rename(file, file+".aside"))
	status, _, p := k.ask("POST", "/v1/notifications", notification)
	require.Equal(t, 503, status)
	require.Contains(t, p.Detail, "nothing was changed")
	eventually(t, func() bool { status, _, _ := k.ask("GET", "/readyz", ""); return status == 503 }, "it is not ready")
	eventually(t, func() bool { return strings.Contains(k.server.said(), "the database is lost") }, "the log says so")
	require.NoError(t, os.Rename(file+".aside", file))
	eventually(t, func() bool { status, _, _ := k.ask("GET", "/readyz", ""); return status == 200 }, "it goes on")
	status, _, _ = k.ask("POST", "/v1/notifications", notification)
	require.Equal(t, 202, status)
	eventually(t, func() bool { return strings.Contains(k.server.said(), "the database is back where it was") }, "the log says so")
	require.Equal(t, 1, strings.Count(k.server.said(), "the database is lost"))
}

// TestAFullDiskIsNotReady: from the first write that fails on, so that a balancer sends
// requests elsewhere, until there is room again, though nobody writes meanwhile.
func TestAFullDiskIsNotReady(t *testing.T) {
	t.Parallel()
	disk := pgtest.NewDisk(t, 16)
	i := install(t)
	i.environ = append(i.environ, "CARILLON_DATABASE_URL="+filepath.Join(disk.Dir, "carillon.db"))
	k := i.kit()
	notification := `{"to":{"users":["u"]},"title":"` + strings.Repeat("x", 2000) + `"}`
	post := func() int { status, _, _ := k.ask("POST", "/v1/notifications", notification); return status }
	ready := func() int { status, _, _ := k.ask("GET", "/readyz", ""); return status }
	require.Equal(t, 202, post())
	require.Equal(t, 200, ready())
	require.NoError(t, disk.Fill())
	eventually(t, func() bool { return post() == 503 }, "nothing is accepted that cannot be stored")
	require.Equal(t, 503, ready())
	require.NoError(t, disk.Free())
	eventually(t, func() bool { return ready() == 200 }, "it goes on")
	require.Equal(t, 202, post())
	for _, line := range []string{"the database takes no writes", "the database takes writes again"} {
		require.Equal(t, 1, strings.Count(k.server.said(), line), line)
	}
}
