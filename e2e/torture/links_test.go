package torture_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/url"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// link is a connection between two parts that a round may hurt.
type link struct {
	name  string
	proxy *toxiproxy.Proxy
	up    bool
	toxic bool
}

func newLink(t testing.TB, name, upstream string) *link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	l := &link{name: name, proxy: toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)}
	l.mend(t)
	t.Cleanup(l.cut)
	return l
}

// address is where the link begins.
func (l *link) address() string { return l.proxy.Listen }

// through is a URL that leads over the link instead of to its own host.
func (l *link) through(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	u.Host = l.address()
	return u.String()
}

// upstreamOf is the address of a URL.
func upstreamOf(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	_, _, err = net.SplitHostPort(u.Host)
	require.NoError(t, err)
	return u.Host
}

// cut ends every connection and refuses new ones.
func (l *link) cut() {
	if l.up {
		l.proxy.Stop()
		l.up = false
	}
}

func (l *link) mend(t testing.TB) {
	t.Helper()
	if !l.up {
		require.NoError(t, l.proxy.Start())
		l.up = true
	}
}

// hurt adds a fault to a share of the connections, in both directions.
func (l *link) hurt(t testing.TB, kind string, share float64, attributes map[string]any) {
	t.Helper()
	l.toxic = true
	for _, stream := range []string{"upstream", "downstream"} {
		raw, err := json.Marshal(map[string]any{"name": kind + "-" + stream, "type": kind, "stream": stream, "toxicity": share, "attributes": attributes})
		require.NoError(t, err)
		_, err = l.proxy.Toxics.AddToxicJson(bytes.NewReader(raw))
		require.NoError(t, err)
	}
}

// heal makes the link whole.
func (l *link) heal(t testing.TB) {
	t.Helper()
	if l.toxic {
		l.proxy.Toxics.ResetToxics(context.Background())
		l.cut() // what a toxic has caught
		l.toxic = false
	}
	l.mend(t)
}
