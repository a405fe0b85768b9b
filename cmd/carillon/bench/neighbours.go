package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/carillonhq/carillon/simulator"
)

// Sizes of the scenario.
const (
	probeRate        = 50 // notifications a second of whoever is measured
	neighbourHooks   = 600
	neighbourBatches = 20
	batchSize        = 500
	neighbourUrgent  = 5000
	ownHooks         = 100
	settle           = 3 * time.Second // until the load has taken what it can get
)

// Comparison is how long notifications took from the post to the provider, alone and
// beside a load.
type Comparison struct {
	Case          string
	Alone, Beside Latency
}

// Neighbours measures what a tenant has to wait because of another, whose receivers hang,
// answer late, trickle, upgrade or refuse, and what an endpoint has to wait because of
// others of its tenant that hang.
func Neighbours(ctx context.Context, o Options) ([]Comparison, error) {
	others, err := withServer(ctx, o, otherTenant)
	if err != nil {
		return nil, err
	}
	own, err := withServer(ctx, o, ownEndpoints)
	return append(others, own...), err
}

// scenario is what runs on a server of its own.
type scenario struct {
	Options
	sim     *simulator.Simulator
	server  *server
	hostile *simulator.Hostile
}

func withServer(ctx context.Context, o Options, run func(context.Context, *scenario) ([]Comparison, error)) (list []Comparison, err error) {
	dir, err := os.MkdirTemp("", "carillon-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sim, err := simulator.Start(simulator.Options{Listen: "127.0.0.1:0", Keep: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	if err := o.WriteConfig(dir, sim.Access()); err != nil {
		return nil, err
	}
	database, drop, err := makeDatabase(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	h, err := simulator.StartHostile()
	if err != nil {
		return nil, err
	}
	defer h.Stop()
	s, err := startServer(ctx, filepath.Join(dir, "carillon.yaml"), database, "bench", "neighbour")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return run(ctx, &scenario{Options: o, sim: sim, server: s, hostile: h})
}

func otherTenant(ctx context.Context, x *scenario) ([]Comparison, error) {
	bodies, err := registerTargets(ctx, x.Client(x.server.url, x.server.key), x.sim, "fcm", x.Users)
	if err != nil {
		return nil, err
	}
	list := []Comparison{{Case: "another tenant's receivers"}, {Case: "the same, urgent"}}
	measure := func(into func(*Comparison) *Latency) error {
		for i, of := range [][]string{bodies, urgent(bodies)} {
			l, err := x.probe(ctx, of, "fcm", probeRate)
			if err != nil {
				return fmt.Errorf("%s: %w", list[i].Case, err)
			}
			*into(&list[i]) = l
		}
		return nil
	}
	if err := measure(func(c *Comparison) *Latency { return &c.Alone }); err != nil {
		return nil, err
	}
	loaded, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	if err := x.flood(loaded, &load); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(x.Progress, "neighbours: %d endpoints that hurt, %d notifications in batches, %d urgent ones\n", neighbourHooks, neighbourBatches*batchSize, neighbourUrgent)
	sleepUntil(ctx, time.Now().Add(settle))
	return list, measure(func(c *Comparison) *Latency { return &c.Beside })
}

// flood has the neighbour send all that it can.
func (x *scenario) flood(ctx context.Context, load *sync.WaitGroup) error {
	as := *x.server
	as.key = x.server.keys[1]
	hooks, err := x.endpoints(ctx, as.key, neighbourHooks, x.hostile.URL)
	if err != nil {
		return err
	}
	poster := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	load.Go(func() {
		for n := range neighbourBatches {
			batch := make([]string, batchSize)
			for i := range batch {
				batch[i] = toHook(hooks[(n*batchSize+i)%len(hooks)], false)
			}
			for ctx.Err() == nil && !postTo(ctx, poster, &as, "/v1/notifications/batch", `{"notifications":[`+strings.Join(batch, ",")+`]}`) {
				sleepUntil(ctx, time.Now().Add(time.Second)) // it is told to send less
			}
		}
	})
	load.Go(func() {
		for i := range neighbourUrgent {
			for ctx.Err() == nil && !post(ctx, poster, &as, toHook(hooks[i%len(hooks)], true)) {
				sleepUntil(ctx, time.Now().Add(100*time.Millisecond))
			}
		}
	})
	return nil
}

// ownEndpoints measures those of a tenant that work, beside some that do not.
func ownEndpoints(ctx context.Context, x *scenario) ([]Comparison, error) {
	good, err := x.endpoints(ctx, x.server.key, ownHooks, func(i int) string { return x.sim.Webhook().URL(fmt.Sprint("own-", i)) })
	if err != nil {
		return nil, err
	}
	bad, err := x.endpoints(ctx, x.server.key, ownHooks/5, x.hostile.Hanging)
	if err != nil {
		return nil, err
	}
	bodies := func(hooks []string) (list []string) {
		for _, id := range hooks {
			list = append(list, toHook(id, false))
		}
		return list
	}
	alone, err := x.probe(ctx, bodies(good), "webhook", 2*probeRate)
	if err != nil {
		return nil, err
	}
	var list []Comparison
	for _, holes := range []int{1, len(bad)} {
		loaded, stop := context.WithCancel(ctx)
		var load sync.WaitGroup
		load.Go(func() { _ = x.paced(loaded, bodies(bad[:holes]), holes) }) // as much to each as to the others
		beside, err := x.probe(ctx, bodies(good[holes:]), "webhook", 2*probeRate)
		stop()
		load.Wait()
		if err != nil {
			return nil, err
		}
		list = append(list, Comparison{Case: fmt.Sprintf("%d of %d own endpoints hang", holes, ownHooks), Alone: alone, Beside: beside})
	}
	return list, nil
}

// paced posts so many a second until ctx ends.
func (x *scenario) paced(ctx context.Context, bodies []string, perSecond int) error {
	poster := &http.Client{Timeout: time.Minute}
	for i := 0; sleepUntil(ctx, time.Now().Add(time.Second/time.Duration(perSecond))); i++ {
		post(ctx, poster, x.server, bodies[i%len(bodies)])
	}
	return ctx.Err()
}

// endpoints makes n of them.
func (x *scenario) endpoints(ctx context.Context, key string, n int, url func(int) string) (list []string, err error) {
	api := x.Client(x.server.url, key)
	for i := range n {
		var e struct{ ID string }
		if err := api(ctx, "POST", "/v1/endpoints", map[string]any{"url": url(i), "event_types": []string{"*"}}, &e); err != nil {
			return nil, err
		}
		list = append(list, e.ID)
	}
	return list, nil
}

func toHook(id string, urgent bool) string {
	return fmt.Sprintf(`{"to":{"endpoints":[%q]},"type":"order.shipped","urgent":%t,"data":{"order":1}}`, id, urgent)
}

func urgent(bodies []string) []string {
	list := make([]string, len(bodies))
	for i, b := range bodies {
		list[i] = strings.Replace(b, `{`, `{"urgent":true,`, 1)
	}
	return list
}

// probe posts at a rate, and tells how long it took until the provider had it.
func (x *scenario) probe(ctx context.Context, bodies []string, channel string, rate float64) (Latency, error) {
	x.sim.Reset()
	o := x.Options
	o.Rate = rate
	r, err := load(ctx, x.server, bodies, o)
	if err != nil {
		return Latency{}, err
	}
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ch := simulator.Channel(channel)
	if err := x.sim.Wait(wait, func(r2 simulator.Report) bool { return int(r2.Channels[ch].Accepted) >= r.Accepted }); err != nil {
		return Latency{}, fmt.Errorf("not everything that was accepted arrived: %w", err)
	}
	l := x.sim.Report().Channels[ch].Latency
	return Latency{P50: float64(l.P50), P99: float64(l.P99)}, nil
}

// ComparisonTable shows comparisons as a table.
func ComparisonTable(list []Comparison) (head []string, rows [][]string) {
	ratio := func(beside, alone float64) string {
		if alone <= 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", beside/alone)
	}
	for _, c := range list {
		rows = append(rows, []string{c.Case, fmt.Sprintf("%.1f", c.Alone.P50), fmt.Sprintf("%.1f", c.Alone.P99),
			fmt.Sprintf("%.1f", c.Beside.P50), fmt.Sprintf("%.1f", c.Beside.P99), ratio(c.Beside.P50, c.Alone.P50), ratio(c.Beside.P99, c.Alone.P99)})
	}
	return []string{"BESIDE", "ALONE P50 MS", "P99", "BESIDE P50 MS", "P99", "RATIO P50", "P99"}, rows
}
