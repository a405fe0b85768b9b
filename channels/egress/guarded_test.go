package egress

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

func loopbackRules() Rules {
	return Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true, AnyPort: true}
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	return req
}

// counting serves 204 and counts requests.
func counting(t *testing.T) (*httptest.Server, *atomic.Int32) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s, &n
}

func TestGuardedRefusesLoopback(t *testing.T) {
	t.Parallel()
	s, n := counting(t)
	c := Guarded(Rules{AllowHTTP: true, AnyPort: true}, Limits{})
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"} {
		a := Exchange(c, get(t, "http://"+host+":"+port+"/"), 100)
		require.ErrorIs(t, a.Err, ErrRefused, host)
		require.False(t, a.Wrote)
		require.Zero(t, a.Status)
	}
	require.Zero(t, n.Load())
}

func TestGuardedAllowListOpensLoopback(t *testing.T) {
	t.Parallel()
	s, n := counting(t)
	a := Exchange(Guarded(loopbackRules(), Limits{}), get(t, s.URL), 100)
	require.NoError(t, a.Err)
	require.Equal(t, http.StatusNoContent, a.Status)
	require.True(t, a.Wrote)
	require.EqualValues(t, 1, n.Load())
}

func TestGuardedRefusesPlainHTTP(t *testing.T) {
	t.Parallel()
	s, n := counting(t)
	rules := loopbackRules()
	rules.AllowHTTP = false
	a := Exchange(Guarded(rules, Limits{}), get(t, s.URL), 100)
	require.ErrorIs(t, a.Err, ErrRefused)
	require.Zero(t, n.Load())
}

// A name that was public when the URL was registered and leads inside later.
func TestGuardedRefusesRebinding(t *testing.T) {
	t.Parallel()
	s, n := counting(t)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	url := "http://rebind.example:" + port + "/"
	closed := Rules{AllowHTTP: true, AnyPort: true}
	_, err = closed.CheckURL(url)
	require.NoError(t, err)

	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerLoopback(server)
		return client, nil
	}}
	a := Exchange(guarded(closed, Limits{}, resolver), get(t, url), 100)
	require.Zero(t, n.Load())
	require.NotErrorIs(t, a.Err, ErrRefused)
	var dns *net.DNSError
	require.ErrorAs(t, a.Err, &dns, "as of a name that does not exist")
	require.True(t, dns.IsNotFound)
	require.False(t, a.Wrote)

	// The same name works once the operator opens the range, so it was
	// the address that was refused and not the lookup.
	a = Exchange(guarded(loopbackRules(), Limits{}, resolver), get(t, url), 100)
	require.NoError(t, a.Err)
	require.EqualValues(t, 1, n.Load())
}

// answerLoopback answers one DNS query over a stream: A is 127.0.0.1.
func answerLoopback(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 1500)
	k, err := c.Read(buf)
	for err == nil && (k < 2 || k < 2+int(buf[0])<<8+int(buf[1])) {
		var more int
		more, err = c.Read(buf[k:])
		k += more
	}
	var m dnsmessage.Message
	if err != nil || m.Unpack(buf[2:k]) != nil {
		return
	}
	m.Response, m.Additionals = true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	out, err := m.Pack()
	if err == nil {
		_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...))
	}
}

func TestGuardedFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	inside, n := counting(t)
	s := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	t.Cleanup(s.Close)
	a := Exchange(Guarded(loopbackRules(), Limits{}), get(t, s.URL), 100)
	require.NoError(t, a.Err)
	require.Equal(t, http.StatusTemporaryRedirect, a.Status)
	require.Zero(t, n.Load())
}

// Not parallel: it changes the environment.
func TestGuardedIgnoresProxies(t *testing.T) {
	proxy, n := counting(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	for _, c := range []*http.Client{Guarded(Rules{AllowHTTP: true}, Limits{}), {Transport: Provider(ProviderOptions{})}} {
		// net/http never proxies loopback, so a name is needed; .invalid never resolves.
		a := Exchange(c, get(t, "http://nowhere.invalid/"), 100)
		require.Error(t, a.Err)
		var dns *net.DNSError
		require.ErrorAs(t, a.Err, &dns)
	}
	require.Zero(t, n.Load())
}

func TestGuardedLimitsBody(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat("x", 1<<20)))
	}))
	t.Cleanup(s.Close)
	a := Exchange(Guarded(loopbackRules(), Limits{BodyBytes: 1000}), get(t, s.URL), 1<<30)
	require.NoError(t, a.Err)
	require.NoError(t, a.BodyErr)
	require.Len(t, a.Body, 1000)

	a = Exchange(Guarded(loopbackRules(), Limits{}), get(t, s.URL), 10)
	require.NoError(t, a.BodyErr)
	require.Len(t, a.Body, 10)
}

func TestGuardedTimesOut(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	a := Exchange(Guarded(loopbackRules(), Limits{Timeout: 50 * time.Millisecond}), get(t, s.URL), 100)
	require.ErrorIs(t, a.Err, context.DeadlineExceeded)
	require.True(t, a.Wrote)
}

func TestExchangeBodyCut(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte("part"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(s.Close)
	a := Exchange(Guarded(loopbackRules(), Limits{}), get(t, s.URL), 1000)
	require.NoError(t, a.Err)
	require.Equal(t, http.StatusTeapot, a.Status)
	require.Error(t, a.BodyErr)
	require.Equal(t, "part", string(a.Body))
}

func TestGuardedSpeaksHTTP2(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := Guarded(loopbackRules(), Limits{RootCAs: roots(s)})
	t.Cleanup(c.CloseIdleConnections)
	a := Exchange(c, get(t, s.URL), 100)
	require.NoError(t, a.Err)
	require.Equal(t, "HTTP/2.0", a.Header.Get("X-Proto"))
}

// TestAbsentAndInnerNamesLookAlike: what is said of them is the same to the letter.
func TestAbsentAndInnerNamesLookAlike(t *testing.T) {
	t.Parallel()
	c := Guarded(Rules{AllowHTTP: true, AnyPort: true}, Limits{})
	inner := Exchange(c, get(t, "http://localhost:1/"), 100)
	absent := Exchange(c, get(t, "http://nowhere.invalid:1/"), 100)
	for _, a := range []Answer{inner, absent} {
		var dns *net.DNSError
		require.ErrorAs(t, a.Err, &dns)
		require.NotErrorIs(t, a.Err, ErrRefused)
	}
}
