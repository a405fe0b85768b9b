package simulator

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options of a simulator. The zero value listens on free loopback ports.
type Options struct {
	// Listen is the plain HTTP address: FCM, OAuth, push service, webhook
	// receiver, report. Default 127.0.0.1:0.
	Listen string
	// APNsListen is the TLS address of APNs production, which serves everything
	// else too. Default 127.0.0.1:0.
	APNsListen string
	// SandboxListen is the TLS address of the APNs sandbox. Default: the port
	// after APNsListen's, or a free one where that is free.
	SandboxListen string
	// Project is the Firebase project. Default carillon-sim.
	Project string
	// Topics are the bundle ids that APNs accepts. Default com.example.carillon.
	Topics []string
	Log    *slog.Logger     // default: silent
	Now    func() time.Time // default time.Now
	// Keep is how many arrivals are kept in full; all are counted. Default 10,000.
	Keep int
	// Blind leaves push messages encrypted: they are checked, but not opened, so
	// they have neither payload nor delivery. It saves most of the cost of a push
	// message in benchmarks.
	Blind bool
}

const (
	defaultListen  = "127.0.0.1:0"
	defaultProject = "carillon-sim"
	defaultTopic   = "com.example.carillon"
	defaultKeep    = 10_000
)

// Simulator is running providers. Its methods are safe for concurrent use.
type Simulator struct {
	opts   Options
	core   *core
	stop   context.CancelFunc
	plain  *port
	prod   *port
	dev    *port
	gate   gate
	served sync.WaitGroup // the ports' accept loops

	fcm   *fcmService
	apns  *apnsService
	push  *pushService
	hooks *hookService
	page  http.Handler
}

// Start listens and serves until Close.
func Start(o Options) (*Simulator, error) {
	o.Listen = cmp.Or(o.Listen, defaultListen)
	o.APNsListen = cmp.Or(o.APNsListen, defaultListen)
	o.SandboxListen = cmp.Or(o.SandboxListen, nextPort(o.APNsListen))
	o.Project = cmp.Or(o.Project, defaultProject)
	o.Keep = cmp.Or(max(o.Keep, 0), defaultKeep)
	if len(o.Topics) == 0 {
		o.Topics = []string{defaultTopic}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &core{ctx: ctx, now: o.Now, log: o.Log, rec: newRecorder(o.Now, o.Keep), faults: &faults{}}
	s := &Simulator{opts: o, core: c, stop: stop, hooks: newHookService(c)}
	if err := s.build(); err != nil {
		s.Close()
		return nil, err
	}
	for _, p := range s.ports() {
		s.served.Go(p.serve)
	}
	o.Log.Info("the simulator is running", "plain", s.plain.url(), "apns", s.prod.url(), "sandbox", s.dev.url())
	return s, nil
}

func (s *Simulator) build() error {
	ca, err := newAuthority(s.core.now)
	if err != nil {
		return err
	}
	if s.apns, err = newAPNsService(s.core, ca, s.opts.Topics); err != nil {
		return err
	}
	listen := func(address string, tlsConfig *tls.Config) (*port, error) {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("the simulator cannot listen: %w", err)
		}
		return newPort(s, ln, tlsConfig), nil
	}
	if s.plain, err = listen(s.opts.Listen, nil); err != nil {
		return err
	}
	if s.prod, err = listen(s.opts.APNsListen, ca.config); err != nil {
		return err
	}
	if s.dev, err = listen(s.opts.SandboxListen, ca.config); err != nil {
		return err
	}
	s.fcm = newFCMService(s.core, s.opts.Project, s.plain.url(), s.prod.url())
	s.push = newPushService(s.core, s.plain.url(), s.prod.url(), s.opts.Blind)
	s.page = s.controls()
	return nil
}

func (s *Simulator) ports() []*port {
	var open []*port
	for _, p := range []*port{s.plain, s.prod, s.dev} {
		if p != nil {
			open = append(open, p)
		}
	}
	return open
}

// Close ends everything: listeners, connections, waiting requests. It returns
// when no goroutine of the simulator is left that could touch it.
func (s *Simulator) Close() error {
	s.stop()
	for _, p := range s.ports() {
		p.close()
	}
	s.served.Wait()
	s.gate.shut()
	return nil
}

// handle serves every port. The paths are few and hot, so they are told apart
// without a pattern matcher.
func (s *Simulator) handle(p *port, w http.ResponseWriter, r *http.Request) {
	if !s.gate.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.gate.leave()
	path := r.URL.Path
	switch {
	case p.tls && strings.HasPrefix(path, "/3/"):
		s.apns.serve(p, w, r, p == s.dev)
	case strings.HasPrefix(path, fcmPath):
		s.fcm.serveSend(p, w, r)
	case path == tokenPath:
		s.fcm.serveToken(p, w, r)
	case strings.HasPrefix(path, pushPath):
		s.push.serve(p, w, r)
	case path == socketPath:
		s.push.serveSocket(w, r)
	case strings.HasPrefix(path, hookPath):
		s.hooks.serve(p, w, r)
	default:
		s.page.ServeHTTP(w, r)
	}
}

// nextPort is the address with the port after that of address; 0 stays 0.
func nextPort(address string) string {
	host, number, err := net.SplitHostPort(address)
	n, convErr := strconv.Atoi(number)
	if err != nil || convErr != nil || n == 0 {
		return net.JoinHostPort(host, "0")
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1))
}

// gate counts the requests in progress, so that Close can wait for them.
type gate struct {
	mu     sync.Mutex
	n      int
	closed bool
	empty  chan struct{} // made by shut, closed by the last leave
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.closed {
		close(g.empty)
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed, g.empty = true, make(chan struct{})
	if g.n == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
}
