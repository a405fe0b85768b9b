package delivery

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
)

// Options make an Engine. Zero values have the defaults named beside them.
type Options struct {
	Store    Store
	Jobs     *jobs.Runner // takes the steps of jobs; nil: another node does
	Channels map[channels.Kind]channels.Channel
	IDs      *ids.Generator
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: not registered anywhere
	Now      func() time.Time
	Jitter   func() float64 // 0 to 1; a test may fix it

	// Role is what this node does: "" or all, api (it accepts and sends nothing), or
	// worker.
	Role string
	// AfterCrash: the process before this one ended with deliveries in its hands.
	AfterCrash    bool
	Workers       int           // concurrent requests; 512
	LaneSize      int           // most deliveries of a lane in memory; 4,000
	MaxBacklog    int           // deliveries that are due, which tenants share; 1,000,000
	MaxStored     int           // deliveries that are not final, which they share too; 10,000,000
	UrgentRate    int           // urgent notifications of a tenant in a second; 100
	SendTimeout   time.Duration // of one request; 30 s
	GiveUp        time.Duration // after the grace of Stop, until what has not ended is left behind; 5 s
	Lease         time.Duration // of a claim; 90 s
	Poll          time.Duration // most time between two claims; 1 s
	ScheduleAfter time.Duration // a send_at further ahead is resolved when it is due; 1 min
	Beat          time.Duration // between two looks at leases and lanes; 5 s
	Retention     Retention     // 24 h and 30 days
	PurgeEvery    time.Duration // 1 min
	CountEvery    time.Duration // between two counts of the backlog; 10 s
	ProbeEvery    time.Duration // of refused credentials; 15 min
	VerifyEvery   time.Duration // how often it is looked which credentials are due to be verified; 10 min
	// StaleAfter is after how long without a sign of life a device is retired, where
	// the tenant does not say; 0: never.
	StaleAfter time.Duration
	// OldCredentials is how long the secret of a replaced credential is kept; 0: 30 days.
	OldCredentials time.Duration
	CleanupEvery   time.Duration // between two rounds of the slow loop; 1 h
}

func (o *Options) defaults() {
	set(&o.Workers, 512)
	set(&o.LaneSize, 4000)
	set(&o.MaxBacklog, 1_000_000)
	set(&o.MaxStored, 10_000_000)
	set(&o.UrgentRate, 100)
	set(&o.SendTimeout, 30*time.Second)
	set(&o.GiveUp, 5*time.Second)
	set(&o.Lease, 90*time.Second)
	set(&o.Poll, time.Second)
	set(&o.ScheduleAfter, time.Minute)
	set(&o.Beat, 5*time.Second)
	set(&o.PurgeEvery, time.Minute)
	set(&o.CountEvery, 10*time.Second)
	set(&o.ProbeEvery, 15*time.Minute)
	set(&o.VerifyEvery, 10*time.Minute)
	set(&o.OldCredentials, 30*24*time.Hour)
	set(&o.CleanupEvery, time.Hour)
	if o.Retention == (Retention{}) {
		o.Retention = DefaultRetention()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.IDs == nil {
		o.IDs = ids.NewGenerator(0, o.Now)
	}
}

func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// The roles of a node.
const (
	RoleAll    = "all"
	RoleAPI    = "api"
	RoleWorker = "worker"
)
