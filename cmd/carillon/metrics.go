package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/tenants"
)

// stateCollector shows what the database holds. It reads at most every few
// seconds, however often it is asked.
type stateCollector struct {
	store  *store.Store
	engine *delivery.Engine
	log    *slog.Logger

	mu     sync.Mutex
	readAt time.Time
	kept   []prometheus.Metric
}

const stateAge = 5 * time.Second

var (
	descQueue     = desc("carillon_queue_deliveries", "Unfinished deliveries by lane and state.", "lane", "state")
	descOldest    = desc("carillon_queue_oldest_due_seconds", "How long the oldest due delivery has waited.")
	descHeld      = desc("carillon_held_deliveries", "Held deliveries by reason.", "reason")
	descDead      = desc("carillon_dead_deliveries", "Dead letters by reason.", "reason")
	descDevices   = desc("carillon_devices_not_active", "Retired and suspect devices.", "status")
	descUp        = desc("carillon_credential_up", "1: the credential is used; 0: it is paused or refused.", "tenant", "app", "channel", "credential")
	descVerified  = desc("carillon_credential_verified", "1: its provider took the credential when it was asked last, or something was sent with it; 0: it was refused since, or could not be asked and has sent nothing yet.", "tenant", "app", "channel", "credential")
	descExpiry    = desc("carillon_credential_expiry_seconds", "When the credential expires, in Unix seconds.", "tenant", "app", "channel", "credential")
	descBeat      = desc("carillon_loop_heartbeat_seconds", "When a loop of the engine last came round, in Unix seconds.", "loop")
	descWaiting   = desc("carillon_writes_waiting", "Writes that wait for the database.")
	descPaused    = desc("carillon_sending_paused", "1: sending is paused, and nothing is sent by any node; 0: it is not.")
	descJobs      = desc("carillon_jobs", "Background jobs by kind and state; those that have ended as long as rows are kept.", "kind", "state")
	descViolation = desc("carillon_invariant_violations", "Rows that break an invariant; anything but 0 is a fault.", "invariant")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func newStateCollector(s *store.Store, e *delivery.Engine, log *slog.Logger) *stateCollector {
	return &stateCollector{store: s, engine: e, log: log}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descQueue, descOldest, descHeld, descDead, descDevices, descUp, descVerified, descExpiry, descBeat, descWaiting, descPaused, descJobs, descViolation} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.readAt) > stateAge {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c.kept = c.kept[:0]
		for _, read := range []func(context.Context) error{c.depths, c.credentials, c.jobs, c.invariants} {
			if err := read(ctx); err != nil && problem.CodeOf(err) != problem.Unavailable { // the store says that
				c.log.Warn("read metrics", "error", err)
			}
		}
		c.readAt = time.Now()
	}
	for _, m := range c.kept {
		out <- m
	}
	written, waiting := c.store.WriteBeat()
	out <- gauge(descBeat, float64(written.UnixMilli())/1000, "write")
	out <- gauge(descBeat, float64(c.engine.ClaimBeat().UnixMilli())/1000, "claim")
	out <- gauge(descWaiting, float64(waiting))
	paused := 0.0
	if c.engine.Sending().On() {
		paused = 1
	}
	out <- gauge(descPaused, paused)
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c *stateCollector) keep(d *prometheus.Desc, v float64, labels ...string) {
	c.kept = append(c.kept, gauge(d, v, labels...))
}

func (c *stateCollector) depths(ctx context.Context) error {
	d, err := c.store.Depths(ctx)
	if err != nil {
		return err
	}
	lanes := []string{"urgent", "normal", "bulk"}
	for lane, name := range lanes {
		for _, s := range delivery.States() {
			if s.Unfinished() {
				c.keep(descQueue, float64(d.Rows[doctor.DepthKey{Lane: delivery.Lane(lane), State: s}]), name, s.String())
			}
		}
	}
	c.keep(descOldest, d.OldestDue.Seconds())
	for reason, n := range d.Held {
		c.keep(descHeld, float64(n), reason.String())
	}
	for reason, n := range d.Dead {
		c.keep(descDead, float64(n), reason.String())
	}
	c.keep(descDevices, float64(d.Retired), "retired")
	c.keep(descDevices, float64(d.Suspect), "suspect")
	return nil
}

func (c *stateCollector) credentials(ctx context.Context) error {
	list, err := c.store.AllCredentials(ctx)
	if err != nil {
		return err
	}
	for _, x := range list {
		up := 0.0
		if x.Status == tenants.CredentialActive {
			up = 1
		}
		labels := []string{x.TenantName, x.App, x.Channel.String(), x.Label()}
		c.keep(descUp, up, labels...)
		if x.Verification.State != tenants.NotChecked && x.Verification.State != tenants.NotVerifiable {
			verified := 1.0
			if x.Doubted() {
				verified = 0
			}
			c.keep(descVerified, verified, labels...)
		}
		if !x.ExpiresAt.IsZero() {
			c.keep(descExpiry, float64(x.ExpiresAt.Unix()), labels...)
		}
	}
	return nil
}

// jobs has a series for every kind and state, so that an alert can tell 0 from
// absent.
func (c *stateCollector) jobs(ctx context.Context) error {
	counts, err := c.store.JobCounts(ctx)
	if err != nil {
		return err
	}
	type key struct {
		kind  jobs.Kind
		state jobs.State
	}
	n := map[key]int{}
	for _, x := range counts {
		n[key{x.Kind, x.State}] = x.Jobs
	}
	for _, k := range jobs.Kinds() {
		for _, s := range jobs.States() {
			c.keep(descJobs, float64(n[key{k, s}]), k.String(), s.String())
		}
	}
	return nil
}

func (c *stateCollector) invariants(ctx context.Context) error {
	broken, err := c.store.Check(ctx, false)
	if err != nil {
		return err
	}
	rows := map[string]int{}
	for _, v := range broken {
		rows[v.Name] = v.Rows
	}
	for _, i := range doctor.Invariants() {
		c.keep(descViolation, float64(rows[i.Name]), i.Name)
	}
	return nil
}
