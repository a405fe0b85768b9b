package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestARefusalDoesNotWaitForTheBody: what is refused, and what takes no body, is
// answered before the body that was announced has come. net/http would wait for it
// as long as a request may take.
func TestARefusalDoesNotWaitForTheBody(t *testing.T) {
	t.Parallel()
	w := setup(t)
	server := httptest.NewUnstartedServer(w.Server)
	server.Config.ReadTimeout = time.Hour
	server.Start()
	t.Cleanup(server.Close)
	for name, x := range map[string]struct {
		head   string
		status int
	}{
		"without a key":    {"POST /v1/notifications HTTP/1.1\r\nContent-Length: 100", 401},
		"in chunks":        {"POST /v1/notifications HTTP/1.1\r\nTransfer-Encoding: chunked", 401},
		"a wrong token":    {"PUT /v1/me/devices HTTP/1.1\r\nAuthorization: Bearer x\r\nContent-Length: 100", 401},
		"too large":        {"PUT /v1/me/devices HTTP/1.1\r\nAuthorization: Bearer " + tokenUser + "\r\nContent-Type: application/json\r\nContent-Length: 40000", 413},
		"no such path":     {"POST /nope HTTP/1.1\r\nContent-Length: 100", 404},
		"takes no body":    {"GET /v1/keys HTTP/1.1\r\nAuthorization: Bearer " + keyAdmin + "\r\nContent-Length: 100", 200},
		"nor does a probe": {"GET /healthz HTTP/1.1\r\nContent-Length: 100", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, err = fmt.Fprintf(conn, "%s\r\nHost: x\r\n\r\n", x.head)
			require.NoError(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, x.status, res.StatusCode)
			require.NoError(t, res.Body.Close())
		})
	}
}

// TestARefusalKeepsTheConnection when the body was there with the headers: a caller
// who is told to wait does not have to connect again.
func TestARefusalKeepsTheConnection(t *testing.T) {
	t.Parallel()
	w := setup(t)
	server := httptest.NewServer(w.Server)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	answers := bufio.NewReader(conn)
	for range 3 {
		for head, status := range map[string]int{"POST /v1/notifications HTTP/1.1": 401, "GET /v1/keys HTTP/1.1\r\nAuthorization: Bearer " + keyAdmin: 200} {
			_, err = fmt.Fprintf(conn, "%s\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", head)
			require.NoError(t, err)
			res, err := http.ReadResponse(answers, nil)
			require.NoError(t, err)
			require.Equal(t, status, res.StatusCode)
			require.False(t, res.Close)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
		}
	}
}
