package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/carillonhq/carillon/api"
	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/clients/js"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/quota"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// server is the whole program as a value: built, run, and stopped in order.
type server struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	engine  *delivery.Engine
	jobs    *jobs.Runner
	tenants *tenants.Registry
	metrics *api.Metrics
	state   *stateCollector
	http    *http.Server
	admin   *http.Server // nil: no admin listener
	listen  net.Listener
	adminAt net.Listener
	stop    context.CancelFunc // of the base context of requests
}

// serverParts is what a server gets besides its configuration.
type serverParts struct {
	log     *slog.Logger
	keyRing *db.KeyRing
	demo    http.Handler // nil: none
	tune    func(*delivery.Options)
}

// newServer opens the database and listens. Nothing is sent before run.
func newServer(ctx context.Context, cfg Config, p serverParts) (_ *server, err error) {
	s := &server{cfg: cfg, log: p.log, metrics: api.NewMetrics()}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	s.store, err = store.Open(ctx, store.Options{URL: cfg.DatabaseURL, KeyRing: p.keyRing, Log: p.log, QueueSize: cfg.Limits.Queue,
		Connections: cfg.Connections, Migrate: cfg.Migrate == migrateAuto, Unchecked: cfg.Migrate == migrateOff, ErasureLog: cfg.ErasureLogPath()})
	if err != nil {
		return nil, err
	}
	if err := s.store.LockEngine(); err != nil {
		return nil, err
	}
	if err := s.store.CheckKeyRing(ctx); err != nil {
		return nil, err
	}
	if cfg.ErasureLogPath() == "" && cfg.ErasureLog != erasureLogOff {
		p.log.Warn("there is no erasure log: users who are erased come back when a backup is restored; see the setting erasure_log")
	}
	crashed, err := s.join(ctx)
	if err != nil {
		return nil, err
	}
	generator, now := s.store.IDs(), s.store.Now
	kinds, err := newChannels(cfg)
	if err != nil {
		return nil, err
	}
	s.jobs = jobs.NewRunner(jobs.Options{Store: s.store, IDs: generator, Now: now, Log: p.log, Who: s.who})
	o := delivery.Options{Store: s.store, Jobs: s.jobs, Channels: kinds, IDs: generator, Now: now, Role: cfg.Role, Log: p.log, Metrics: s.metrics.Registry(),
		Workers: cfg.Workers, MaxBacklog: cfg.Limits.Backlog, MaxStored: cfg.Limits.Unfinished, UrgentRate: cfg.Limits.UrgentPerSecond,
		Retention:  delivery.Retention{SentPayload: cfg.Retention.Sent, DeadPayload: cfg.Retention.Dead, Rows: cfg.Retention.Rows},
		StaleAfter: cfg.StaleAfter, OldCredentials: cfg.Retention.Credentials, AfterCrash: crashed}
	o.SendTimeout, o.ScheduleAfter = failpoint.Duration("send_timeout", o.SendTimeout), failpoint.Duration("marker_after", o.ScheduleAfter)
	if p.tune != nil {
		p.tune(&o)
	}
	s.engine = delivery.New(o)
	s.state = newStateCollector(s.store, s.engine, p.log)
	s.metrics.Registry().MustRegister(s.state)
	s.tenants = tenants.NewRegistry(tenants.Options{Store: s.store, Channels: kinds, IDs: generator, Now: now,
		Changed: s.engine.CredentialsChanged, Refused: s.engine.CredentialRefused})
	if err := s.serveHTTP(kinds, generator, p); err != nil {
		return nil, err
	}
	return s, nil
}

// join makes this server one of the database's nodes. On SQLite it is the only
// one, so that leases which are there were held by the life before, which crashed then.
func (s *server) join(ctx context.Context) (crashed bool, err error) {
	if err := s.store.Join(ctx, db.Node{Name: s.cfg.Node(), Role: s.cfg.Role, Version: versionText()}); err != nil {
		return false, err
	}
	if s.store.Shared() {
		return false, nil
	}
	taken, err := s.store.LapseLeases(ctx)
	if taken > 0 {
		s.log.Warn("the server did not stop in order last time; what it had in hand is taken over", "deliveries", taken)
	}
	return taken > 0, err
}

func (s *server) serveHTTP(kinds map[channels.Kind]channels.Channel, generator *ids.Generator, p serverParts) error {
	now := s.store.Now
	rules := s.cfg.Webhook.rules()
	owned := []*quota.Quota{quota.New("devices", s.cfg.Limits.Devices, s.store.CountDevices, now), quota.New("endpoints", s.cfg.Limits.Endpoints, s.store.CountEndpoints, now)}
	handler, err := api.New(api.Options{
		Engine: s.engine, Reads: s.store, Tenants: s.tenants, Jobs: s.store, Quotas: owned,
		Devices: devices.NewRegistry(devices.Options{Store: s.store, Quota: owned[0], Channels: kinds, IDs: generator, Now: now}),
		Endpoints: webhooks.NewRegistry(webhooks.Options{Store: s.store, Quota: owned[1], IDs: generator, Now: now,
			CheckURL: func(raw string) error { _, err := rules.CheckURL(raw); return err }}),
		Log: p.log, Now: now, MaxBody: s.cfg.Limits.BodyBytes, Metrics: s.metrics, Version: versionText(),
		Limits: api.Limits{PerSecond: s.cfg.Limits.RequestsPerSecond, InFlight: s.cfg.Limits.Requests, Bytes: s.cfg.Limits.RequestBytes},
		SDK:    js.Handler(), Demo: p.demo, HideDocs: !s.cfg.Docs,
	})
	if err != nil {
		return err
	}
	if b := handler.Requests(); b != nil {
		s.engine.Share(b)
	}
	if s.cfg.Role != delivery.RoleWorker {
		if s.listen, err = net.Listen("tcp", s.cfg.Listen); err != nil {
			return fmt.Errorf("the API cannot listen; see the setting listen: %w", err)
		}
	}
	base, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.http = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)}
	if s.cfg.AdminListen == "off" {
		return nil
	}
	if s.adminAt, err = net.Listen("tcp", s.cfg.AdminListen); err != nil {
		return fmt.Errorf("metrics cannot be served; see the setting admin.listen, which may be off: %w", err)
	}
	s.admin = &http.Server{Handler: s.adminRoutes(handler), ReadHeaderTimeout: 10 * time.Second}
	return nil
}

// adminRoutes is what must not be open to everybody: metrics and profiles.
func (s *server) adminRoutes(health http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	mux.Handle("GET /healthz", health)
	mux.Handle("GET /readyz", health)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// url is where the API answers.
func (s *server) url() string {
	if s.listen == nil {
		return "" // a worker
	}
	return "http://" + dialAddress(s.listen.Addr().String())
}

// metricsURL is where metrics are served, "" if they are not.
func (s *server) metricsURL() string {
	if s.adminAt == nil {
		return ""
	}
	return "http://" + dialAddress(s.adminAt.Addr().String()) + "/metrics"
}

// run serves until ctx ends, then stops in order: no new requests, no new
// claims, what is being sent may finish, every outcome is written.
func (s *server) run(ctx context.Context) error {
	if err := s.engine.Start(ctx); err != nil {
		s.release()
		return err
	}
	if s.cfg.Role != delivery.RoleAPI { // steps of jobs are work, as sending is
		s.jobs.Start()
	}
	s.log.Info("carillon serves", "url", s.url(), "version", versionText(), "database", s.store.Database(), "role", s.cfg.Role, "number", s.store.IDs().Node())
	g, gctx := errgroup.WithContext(ctx)
	if s.listen != nil {
		g.Go(func() error { return ignoreClosed(s.http.Serve(s.listen)) })
	}
	if s.admin != nil {
		s.log.Info("metrics and profiles", "url", s.metricsURL())
		g.Go(func() error { return ignoreClosed(s.admin.Serve(s.adminAt)) })
	}
	g.Go(func() error {
		<-gctx.Done()
		return s.shutdown()
	})
	return g.Wait()
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// stopMargin is how long after the grace a server ends at the latest.
const stopMargin = 10 * time.Second

// shutdown stops, and ends even if something does not.
func (s *server) shutdown() error {
	s.log.Info("carillon stops", "grace", s.cfg.ShutdownWait.String())
	stopped := make(chan error, 1)
	go func() { stopped <- s.stopInOrder() }()
	late := time.NewTimer(s.cfg.ShutdownWait + stopMargin)
	defer late.Stop()
	select {
	case err := <-stopped:
		return err
	case <-late.C:
	}
	_ = s.http.Close()
	if s.admin != nil {
		_ = s.admin.Close()
	}
	return fmt.Errorf("the server did not stop within %s; what it had in hand will be taken over", s.cfg.ShutdownWait+stopMargin)
}

func (s *server) stopInOrder() error {
	grace, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownWait)
	defer cancel()
	s.endRequests(grace)
	s.jobs.Stop()
	s.state.close()
	err := s.engine.Stop(grace)
	if s.admin != nil {
		err = errors.Join(err, s.admin.Close())
	}
	s.tenants.Wait()
	return errors.Join(err, s.store.Close())
}

// endRequests lets requests that are under way end, for half of the grace at
// most: the rest belongs to what is being sent. A connection on which nothing
// has come yet, as browsers open them ahead, is closed only then.
func (s *server) endRequests(grace context.Context) {
	ctx, cancel := context.WithTimeout(grace, s.cfg.ShutdownWait/2)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Info("connections are cut off that did not end in time", "error", err)
		_ = s.http.Close()
	}
	s.stop()
}

// release gives up what a server that never ran had taken.
func (s *server) release() {
	for _, l := range []net.Listener{s.listen, s.adminAt} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}

// who is how the log names a tenant.
func (s *server) who(ctx context.Context, id ids.ID) slog.Value {
	t, err := s.store.Tenant(ctx, id)
	if err != nil { // the log says that elsewhere, and the id will do
		return delivery.TenantInLog(id, "")
	}
	return delivery.TenantInLog(id, t.Name)
}
