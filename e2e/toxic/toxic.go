// Package toxic puts a proxy between two ends of a TCP connection, for tests of
// what a network does to them: delay, silence, resets, nobody there. It is
// https://github.com/Shopify/toxiproxy with the few faults that are used here.
package toxic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy passes on connections to one address. Its faults add up until Heal. Its
// methods are for one goroutine at a time, except Addr and Through.
type Proxy struct {
	addr  string
	proxy *toxiproxy.Proxy
}

// New starts a healthy proxy to an address, such as 127.0.0.1:5432, on loopback.
// It ends with the test, and its connections with it.
func New(t testing.TB, upstream string) *Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	// Not a port that the system gives to outgoing connections: somebody could have
	// it when Refuse ends, even whoever dials the proxy in vain.
	const low, high, tries = 10000, 20000, 100
	var err error
	for range tries {
		p := &Proxy{addr: fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))}
		p.proxy = toxiproxy.NewProxy(server, t.Name(), p.addr, upstream)
		if err = p.proxy.Start(); err == nil {
			t.Cleanup(p.proxy.Stop)
			return p
		}
	}
	t.Fatalf("start a proxy: %v", err)
	return nil
}

// Addr is the host and port where the proxy listens.
func (p *Proxy) Addr() string { return p.addr }

// Through is a URL with the proxy's host and port instead of its own.
func (p *Proxy) Through(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatalf("a URL by way of the proxy: %v", err)
	}
	u.Host = p.addr
	return u.String()
}

// Latency delays everything that comes back from the upstream, so that every
// answer takes that much longer.
func (p *Proxy) Latency(d time.Duration) error {
	return p.add("latency", "downstream", fmt.Sprintf(`{"latency": %d}`, d.Milliseconds()))
}

// Cut loses everything on both ways. Connections stay open, and new ones are
// accepted: neither end learns anything, as when a cable is cut. Connections that
// were open end with Heal.
func (p *Proxy) Cut() error {
	return errors.Join(p.add("timeout", "upstream", `{"timeout": 0}`), p.add("timeout", "downstream", `{"timeout": 0}`))
}

// CutAnswers loses what comes back: the upstream does what it was asked, and
// nobody learns of it. Otherwise it is as Cut.
func (p *Proxy) CutAnswers() error { return p.add("timeout", "downstream", `{"timeout": 0}`) }

// Reset ends open connections, and resets every new one at its first byte.
func (p *Proxy) Reset() error {
	if err := p.add("reset_peer", "upstream", `{"timeout": 0}`); err != nil {
		return err
	}
	p.proxy.Stop()
	return p.proxy.Start()
}

// Refuse ends open connections and listens no longer, so that new ones are refused.
func (p *Proxy) Refuse() { p.proxy.Stop() }

// Heal ends all faults.
func (p *Proxy) Heal() error {
	p.proxy.Toxics.ResetToxics(context.Background())
	if err := p.proxy.Start(); !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		return err
	}
	return nil
}

// add adds a fault, instead of one of its kind if there is one.
func (p *Proxy) add(kind, direction, attributes string) error {
	err := p.proxy.Toxics.RemoveToxic(context.Background(), kind+"_"+direction)
	if err != nil && !errors.Is(err, toxiproxy.ErrToxicNotFound) {
		return err
	}
	_, err = p.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"type": %q, "stream": %q, "attributes": %s}`, kind, direction, attributes)))
	return err
}
