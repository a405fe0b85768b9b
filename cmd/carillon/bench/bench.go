// Package bench measures this machine for `carillon bench`: how many notifications
// a server accepts and delivers in a second, and at what cost.
//
// Files: bench.go measures a channel, neighbours.go what one waits because of others, beside
// receivers of simulator.Hostile; server.go runs the server, load.go posts to
// it, measure.go computes the figures, report.go shows them, tempdb.go makes a
// database on a PostgreSQL server.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/carillonhq/carillon/simulator"
)

// Options are what the command line asks for, and what the measurement needs of
// the program. All functions are needed.
type Options struct {
	Clients         int           // callers that each wait for their answer
	Users           int           // with one target each
	Length          time.Duration // of the load on each channel
	Rate            float64       // notifications a second; 0: as fast as they are answered
	Channels        []string
	ProviderLatency time.Duration
	Profile         string // file for a CPU profile of the server; "": none
	Postgres        string // URL of a PostgreSQL server; "": SQLite
	Progress        io.Writer

	// WriteConfig writes carillon.yaml to dir: the settings of a server that takes
	// the simulator for the providers.
	WriteConfig func(dir string, a simulator.Access) error
	// Client calls the API at url with a key.
	Client func(url, key string) func(ctx context.Context, method, path string, in, out any) error
}

// Result is what one channel showed.
type Result struct {
	Channel                      string
	Accepted, Refused, Delivered int
	Posting                      time.Duration // how long was posted
	Draining                     time.Duration // from then until everything had arrived
	CPU                          time.Duration // of the server
	API, EndToEnd                Latency
}

// Run measures one channel after the other, each with a server of its own.
func Run(ctx context.Context, o Options) ([]Result, error) {
	var results []Result
	for _, channel := range o.Channels {
		r, err := measureChannel(ctx, channel, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", channel, err)
		}
		results = append(results, r)
		_, _ = fmt.Fprintf(o.Progress, "%s: %d accepted in %s, all delivered %s later\n",
			channel, r.Accepted, r.Posting.Round(time.Millisecond), r.Draining.Round(time.Millisecond))
	}
	return results, nil
}

func measureChannel(ctx context.Context, channel string, o Options) (r Result, err error) {
	dir, err := os.MkdirTemp("", "carillon-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sim, err := simulator.Start(simulator.Options{Listen: "127.0.0.1:0", Keep: 1})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	if o.ProviderLatency > 0 {
		sim.SetFault(channel, simulator.Fault{Latency: o.ProviderLatency})
	}
	if err := o.WriteConfig(dir, sim.Access()); err != nil {
		return r, err
	}
	database, drop, err := makeDatabase(ctx, o, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	s, err := startServer(ctx, filepath.Join(dir, "carillon.yaml"), database, "bench")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return measureServer(ctx, s, sim, channel, o)
}

// makeDatabase names one to measure on, and tells how it is dropped.
func makeDatabase(ctx context.Context, o Options, dir string) (database string, drop func() error, err error) {
	if o.Postgres == "" {
		return filepath.Join(dir, "bench.db"), func() error { return nil }, nil
	}
	return createTempDatabase(ctx, o.Postgres)
}

// measureServer posts to a server until the time is over, and waits until all that
// was accepted has arrived at the simulator.
func measureServer(ctx context.Context, s *server, sim *simulator.Simulator, channel string, o Options) (r Result, err error) {
	bodies, err := registerTargets(ctx, o.Client(s.url, s.key), sim, channel, o.Users)
	if err != nil {
		return r, err
	}
	before := s.cpu()
	profiled := make(chan error, 1)
	go func() { profiled <- s.writeProfile(ctx, o.Profile, o.Length) }()
	r, err = load(ctx, s, bodies, o)
	if err := errors.Join(err, <-profiled); err != nil {
		return r, err
	}
	r.Channel = channel
	ended := time.Now()
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ch := simulator.Channel(channel)
	if err := sim.Wait(wait, func(x simulator.Report) bool { return int(x.Channels[ch].Accepted) >= r.Accepted }); err != nil {
		return r, fmt.Errorf("not everything that was accepted arrived: %w", err)
	}
	r.Draining = time.Since(ended)
	r.CPU = s.cpu() - before
	report := sim.Report().Channels[ch]
	r.Delivered = int(report.Accepted)
	r.EndToEnd = Latency{P50: float64(report.Latency.P50), P99: float64(report.Latency.P99)}
	return r, nil
}
