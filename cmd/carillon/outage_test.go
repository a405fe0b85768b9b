package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/api"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestADatabaseThatIsAwayIsSaidOnce: callers are told to come back, whatever they ask
// for, and the log has its beginning and its end, not each request and each loop.
func TestADatabaseThatIsAwayIsSaidOnce(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	i := install(t)
	i.environ = append(i.environ, "CARILLON_DATABASE_URL="+server.URL("carillon"), "CARILLON_DATABASE_CONNECTIONS=8")
	k := i.kit()
	ask := func(method, path, body string) (int, http.Header, api.Problem) {
		req, err := http.NewRequestWithContext(t.Context(), method, k.server.url+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+k.key)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { require.NoError(t, res.Body.Close()) }()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		var p api.Problem
		_ = json.Unmarshal(b, &p)
		return res.StatusCode, res.Header, p
	}
	said := func(what string) int { return strings.Count(k.server.said(), `"msg":"`+what) }
	require.NoError(t, server.Kill())
	before := len(k.server.said())
	for range 5 {
		for _, x := range [][3]string{{"GET", "/v1/keys"}, {"GET", "/v1/devices"}, {"GET", "/v1/notifications/ntf_0d1kq3w8r000c"}, {"GET", "/v1/jobs"},
			{"PUT", "/v1/devices", `{"user":"u","channel":"fcm","token":"t"}`}, {"POST", "/v1/notifications", `{"to":{"users":["u"]},"title":"x"}`},
			{"POST", "/v1/notifications/batch", `{"notifications":[{"to":{"users":["u"]},"title":"x"}]}`}} {
			status, header, p := ask(x[0], x[1], x[2])
			require.Equal(t, 503, status, "%v %s", x, p.Detail)
			require.Equal(t, "unavailable", string(p.Code), x)
			require.Equal(t, "5", header.Get("Retry-After"), x)
		}
	}
	eventually(t, func() bool { return said("this node cannot reach the database") == 1 }, "the log says so")
	require.NoError(t, server.Start())
	eventually(t, func() bool { status, _, _ := ask("GET", "/v1/keys", ""); return status == 200 }, "it is served again")
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
