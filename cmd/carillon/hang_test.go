package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// switching is a receiver that answers 101 to everything and leaves the connection
// open.
func switching(t *testing.T) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var ended sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); ended.Wait() })
	ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			ended.Go(func() {
				defer func() { _ = c.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
					_, _ = io.Copy(io.Discard, c)
				}
			})
		}
	})
	return "http://" + l.Addr().String() + "/hook"
}

// TestAReceiverThatHangsStopsNobody: a tenant's endpoints answer 101 and leave the
// connection open. There are fewer workers than such requests, and another tenant's
// deliveries go on; those of the first end, explained; and the server stops.
func TestAReceiverThatHangsStopsNobody(t *testing.T) {
	t.Parallel()
	k := startServer(t, "CARILLON_WORKERS=4")
	const endpoints, notifications = 5, 4
	hangs := switching(t)
	for i := range endpoints {
		k.do("POST", "/v1/endpoints", map[string]any{"url": fmt.Sprintf("%s/%d", hangs, i), "event_types": []string{"*"}}, nil)
	}
	for range notifications {
		k.do("POST", "/v1/notifications", map[string]any{"type": "order.shipped", "channels": []string{"webhook"}}, nil)
	}

	k.must("tenant", "create", "other")
	other := *k
	other.key = k.must("key", "create", "--tenant", "other", "--scopes", "admin")
	other.api = &client{base: k.server.url, key: other.key, http: k.api.http}
	other.do("POST", "/v1/endpoints", map[string]any{"url": k.sim.Webhook().URL("other"), "event_types": []string{"*"}}, nil)
	other.do("POST", "/v1/notifications", map[string]any{"type": "order.shipped", "channels": []string{"webhook"}}, nil)
	eventually(t, func() bool { l := other.deliveries(); return len(l) == 1 && l[0].State == "sent" }, "the other tenant's is sent")

	eventually(t, func() bool {
		list := k.deliveries()
		for _, d := range list {
			if d.State != "dead" {
				return false
			}
		}
		return len(list) == endpoints*notifications
	}, "all end")
	for _, d := range k.deliveries() {
		require.Equal(t, "exhausted", d.Reason)
		require.Equal(t, "webhook.unexpected_status", d.Last.Code)
	}
	_, body := get(t, k.server.url+"/readyz")
	require.JSONEq(t, `{"status":"ready"}`, body)
	require.Zero(t, k.server.stop(), k.server.said())
}
