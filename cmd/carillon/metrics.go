package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

// stateCollector shows what the database holds, as it was when it was looked at last.
// Looks cost what is unfinished: they are made when somebody asks, beside the answer,
// and the rarer the longer they take.
type stateCollector struct {
	store  *store.Store
	engine *delivery.Engine
	log    *slog.Logger

	ctx   context.Context
	close context.CancelFunc // ends a look that is under way

	mu    sync.Mutex
	looks []*look
}

// look is a part of what is shown, with a pace of its own.
type look struct {
	read  func(context.Context, *kept) error
	part  int // of the time, at most one in so many
	kept  kept
	ended time.Time
	next  time.Time
	under chan struct{} // closed when the look that is under way has ended; nil: none is
}

type kept []prometheus.Metric

const (
	stateAge    = 5 * time.Second // what is younger is not looked at again
	scrapeWaits = time.Second     // for looks: then it shows what they showed before
	lookLimit   = 10 * time.Minute
)

// laneNames are the values of the label lane.
var laneNames = [delivery.LanesCount]string{"urgent", "normal", "bulk"}

var (
	descQueue     = desc("carillon_queue_deliveries", "Unfinished deliveries by lane and state.", "lane", "state")
	descOldest    = desc("carillon_queue_oldest_due_seconds", "How long the oldest due delivery has waited.")
	descBusy      = desc("carillon_workers_busy", "Workers of this server that are busy, by the lane of what they send.", "lane")
	descWorkers   = desc("carillon_workers", "So many workers may be busy for another of a lane to begin.", "lane")
	descInHand    = desc("carillon_queue_oldest_in_hand_seconds", "How long the oldest delivery that this server has claimed and not begun to send has been in its hands.", "lane")
	descHeld      = desc("carillon_held_deliveries", "Held deliveries by reason.", "reason")
	descDead      = desc("carillon_dead_deliveries", "Dead letters by reason.", "reason")
	descDevices   = desc("carillon_devices_not_active", "Retired and suspect devices.", "status")
	descWaits     = desc("carillon_waits", "Credentials, push services and endpoints in trouble: throttled, unreachable or failing.", "channel", "cause")
	descUp        = desc("carillon_credential_up", "1: the credential is used; 0: it is paused, or refused, be it by one push service of several.", "tenant", "app", "channel", "credential")
	descVerified  = desc("carillon_credential_verified", "1: its provider took the credential when it was asked last, or something was sent with it; 0: it was refused since, or could not be asked and has sent nothing yet.", "tenant", "app", "channel", "credential")
	descExpiry    = desc("carillon_credential_expiry_seconds", "When the credential expires, in Unix seconds.", "tenant", "app", "channel", "credential")
	descBeat      = desc("carillon_loop_heartbeat_seconds", "When a loop of the engine last came round, in Unix seconds.", "loop")
	descWaiting   = desc("carillon_writes_waiting", "Writes that wait for the database.")
	descPaused    = desc("carillon_sending_paused", "1: sending is paused, and nothing is sent by any node; 0: it is not.")
	descJobs      = desc("carillon_jobs", "Background jobs by kind and state; those that have ended as long as rows are kept.", "kind", "state")
	descSize      = desc("carillon_database_bytes", "What the database takes on its disk.")
	descFree      = desc("carillon_disk_free_bytes", "How much room the volume of the SQLite file has; absent with PostgreSQL.")
	descAge       = desc("carillon_state_age_seconds", "How long ago the oldest look at the database was that these metrics show.")
	descViolation = desc("carillon_invariant_violations", "Rows that break an invariant, or that should have moved by now.", "invariant")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func newStateCollector(s *store.Store, e *delivery.Engine, log *slog.Logger) *stateCollector {
	c := &stateCollector{store: s, engine: e, log: log}
	c.ctx, c.close = context.WithCancel(context.Background())
	c.looks = []*look{{read: c.depths, part: 20}, {read: c.credentials, part: 20}, {read: c.jobs, part: 20}, {read: c.space, part: 20}, {read: c.invariants, part: 50}}
	return c
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descQueue, descOldest, descBusy, descWorkers, descInHand, descHeld, descDead, descDevices, descWaits, descUp, descVerified, descExpiry, descBeat, descWaiting, descPaused, descJobs, descSize, descFree, descAge, descViolation} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	late := time.NewTimer(scrapeWaits)
	defer late.Stop()
	oldest := time.Now()
	under := make([]<-chan struct{}, len(c.looks))
	for i, l := range c.looks {
		under[i] = c.begin(l)
	}
	for i, l := range c.looks {
		if under[i] != nil {
			select {
			case <-under[i]:
			case <-late.C:
				late.Reset(0) // nor for those that follow
			}
		}
		c.mu.Lock()
		for _, m := range l.kept {
			out <- m
		}
		if l.ended.Before(oldest) && !l.ended.IsZero() {
			oldest = l.ended
		}
		c.mu.Unlock()
	}
	out <- gauge(descAge, time.Since(oldest).Seconds())
	written, waiting := c.store.WriteBeat()
	out <- gauge(descBeat, float64(written.UnixMilli())/1000, "write")
	out <- gauge(descBeat, float64(c.engine.ClaimBeat().UnixMilli())/1000, "claim")
	out <- gauge(descWaiting, float64(waiting))
	for lane, load := range c.engine.Load() {
		out <- gauge(descBusy, float64(load.Busy), laneNames[lane])
		out <- gauge(descWorkers, float64(load.Limit), laneNames[lane])
		out <- gauge(descInHand, load.Longest.Seconds(), laneNames[lane])
	}
	paused := 0.0
	if c.engine.Sending().On() {
		paused = 1
	}
	out <- gauge(descPaused, paused)
}

// begin looks again where it is time, and tells what ends with that look.
func (c *stateCollector) begin(l *look) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.under != nil || time.Now().Before(l.next) || c.ctx.Err() != nil {
		return l.under
	}
	under := make(chan struct{})
	l.under = under
	go func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(c.ctx, lookLimit)
		defer cancel()
		var fresh kept
		err := l.read(ctx, &fresh)
		if err != nil && c.ctx.Err() == nil && problem.CodeOf(err) != problem.Unavailable { // the store says that
			c.log.Warn("read metrics", "error", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err == nil {
			l.kept, l.ended = fresh, time.Now()
		}
		l.next, l.under = time.Now().Add(max(stateAge, time.Duration(l.part)*time.Since(began))), nil
		close(under)
	}()
	return under
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (k *kept) keep(d *prometheus.Desc, v float64, labels ...string) {
	*k = append(*k, gauge(d, v, labels...))
}

func (c *stateCollector) depths(ctx context.Context, k *kept) error {
	d, err := c.store.Depths(ctx)
	if err != nil {
		return err
	}
	for lane, name := range laneNames {
		for _, s := range delivery.States() {
			if s.Unfinished() {
				k.keep(descQueue, float64(d.Rows[doctor.DepthKey{Lane: delivery.Lane(lane), State: s}]), name, s.String())
			}
		}
	}
	k.keep(descOldest, d.OldestDue.Seconds())
	for reason, n := range d.Held {
		k.keep(descHeld, float64(n), reason.String())
	}
	for reason, n := range d.Dead {
		k.keep(descDead, float64(n), reason.String())
	}
	for _, channel := range channels.Kinds() {
		for _, cause := range delivery.WaitCauses() {
			k.keep(descWaits, float64(d.Waits[registers.WaitKey{Channel: channel, Cause: cause}]), channel.String(), cause.String())
		}
	}
	k.keep(descDevices, float64(d.Retired), "retired")
	k.keep(descDevices, float64(d.Suspect), "suspect")
	return nil
}

func (c *stateCollector) credentials(ctx context.Context, k *kept) error {
	list, err := c.store.AllCredentials(ctx)
	if err != nil {
		return err
	}
	for _, x := range list {
		up := 0.0
		if x.Status == tenants.CredentialActive && x.HeldAt == 0 {
			up = 1
		}
		labels := []string{x.TenantName, x.App, x.Channel.String(), x.Label()}
		k.keep(descUp, up, labels...)
		if x.Verification.State != tenants.NotChecked && x.Verification.State != tenants.NotVerifiable {
			verified := 1.0
			if x.Doubted() {
				verified = 0
			}
			k.keep(descVerified, verified, labels...)
		}
		if !x.ExpiresAt.IsZero() {
			k.keep(descExpiry, float64(x.ExpiresAt.Unix()), labels...)
		}
	}
	return nil
}

// jobs has a series for every kind and state, so that an alert can tell 0 from
// absent.
func (c *stateCollector) jobs(ctx context.Context, k *kept) error {
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
	for _, kind := range jobs.Kinds() {
		for _, s := range jobs.States() {
			k.keep(descJobs, float64(n[key{kind, s}]), kind.String(), s.String())
		}
	}
	return nil
}

func (c *stateCollector) space(ctx context.Context, k *kept) error {
	s, err := c.store.Space(ctx)
	if err != nil {
		return err
	}
	k.keep(descSize, float64(s.Files))
	if s.Free >= 0 {
		k.keep(descFree, float64(s.Free))
	}
	return nil
}

func (c *stateCollector) invariants(ctx context.Context, k *kept) error {
	broken, err := c.store.Check(ctx, false)
	if err != nil {
		return err
	}
	rows := map[string]int{}
	for _, v := range broken {
		rows[v.Name] = v.Rows
	}
	for _, i := range doctor.Invariants() {
		k.keep(descViolation, float64(rows[i.Name]), i.Name)
	}
	return nil
}
