package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
)

func newBenchCommand(c *cli) *cobra.Command {
	o := benchOptions{clients: 64, length: 5 * time.Second, users: 64, channels: []string{"fcm", "apns", "webpush", "webhook"}}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: accepts and deliveries a second, CPU, latency",
		Long: "Starts a server of its own on a fresh database, as a process of its own, and simulated providers that answer at\n" +
			"once; posts notifications for one target each, and measures, channel by channel. The load, the providers and the\n" +
			"server share the machine, so compare figures of one run with each other rather than with another machine's.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.bench(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.clients, "clients", o.clients, "callers that each wait for their answer")
	f.DurationVar(&o.length, "for", o.length, "how long to post to each channel")
	f.Float64Var(&o.rate, "rate", 0, "notifications a second; 0: as fast as they are answered")
	f.StringSliceVar(&o.channels, "channel", o.channels, "the channels to measure")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of the server to this file, of the last channel measured")
	f.StringVar(&o.postgres, "postgres", "", "URL of a PostgreSQL server to measure on, with a user who may make databases: one is made and dropped again. SQLite without it")
	f.DurationVar(&o.latency, "provider-latency", 0, "how long the providers take to answer")
	return cmd
}

type benchOptions struct {
	clients, users int
	length         time.Duration
	rate           float64
	channels       []string
	latency        time.Duration
	profile        string
	postgres       string
}

// benchResult is what one channel showed.
type benchResult struct {
	accepted, refused, delivered int
	took, drained                time.Duration
	cpu                          time.Duration // of the server
	api, endToEnd                latency
}

func (c *cli) bench(ctx context.Context, o benchOptions) error {
	rows := make([][]string, 0, len(o.channels))
	for _, ch := range o.channels {
		r, err := benchChannel(ctx, ch, o)
		if err != nil {
			return fmt.Errorf("%s: %w", ch, err)
		}
		per := func(n int, d time.Duration) string { return fmt.Sprintf("%.0f", float64(n)/d.Seconds()) }
		ms := func(v float64) string { return fmt.Sprintf("%.1f", v) }
		rows = append(rows, []string{ch, per(r.accepted, r.took), per(r.delivered, r.took+r.drained), fmt.Sprint(r.refused),
			fmt.Sprintf("%d", r.cpu.Microseconds()/int64(max(r.delivered, 1))),
			ms(r.api.p50), ms(r.api.p99), ms(r.endToEnd.p50), ms(r.endToEnd.p99)})
		_, _ = fmt.Fprintf(c.err, "%s: %d accepted in %s, all delivered %s later\n", ch, r.accepted, r.took.Round(time.Millisecond), r.drained.Round(time.Millisecond))
	}
	return c.table([]string{"CHANNEL", "ACCEPTED/S", "DELIVERED/S", "REFUSED", "SERVER CPU US", "POST P50 MS", "P99", "POST TO PROVIDER P50 MS", "P99"}, rows)
}

// benchChannel measures one channel with a server of its own.
func benchChannel(ctx context.Context, channel string, o benchOptions) (r benchResult, err error) {
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
	if o.latency > 0 {
		sim.SetFault(channel, simulator.Fault{Latency: o.latency})
	}
	database := filepath.Join(dir, "bench.db")
	if o.postgres != "" {
		var drop func() error
		if database, drop, err = store.Scratch(ctx, o.postgres); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, drop()) }()
	}
	p, err := startBenchServer(ctx, dir, database, sim)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	targets, err := p.prepare(ctx, sim, channel, o.users)
	if err != nil {
		return r, err
	}
	before := p.cpu()
	profiled := make(chan error, 1)
	go func() { profiled <- p.writeProfile(ctx, o) }()
	r, err = p.load(ctx, targets, o)
	err = errors.Join(err, <-profiled)
	if err != nil {
		return r, err
	}
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ch := simulator.Channel(channel)
	if err := sim.Wait(wait, func(x simulator.Report) bool { return int(x.Channels[ch].Accepted) >= r.accepted }); err != nil {
		return r, fmt.Errorf("not everything that was accepted arrived: %w", err)
	}
	r.drained = time.Since(began)
	r.cpu = p.cpu() - before
	report := sim.Report().Channels[ch]
	r.delivered = int(report.Accepted)
	r.endToEnd = latency{p50: float64(report.Latency.P50), p99: float64(report.Latency.P99)}
	return r, nil
}

// benchServer is a server in its own process, so that its CPU time is its own.
type benchServer struct {
	cmd   *exec.Cmd
	api   *client
	admin string
}

func startBenchServer(ctx context.Context, dir, database string, sim *simulator.Simulator) (*benchServer, error) {
	if err := writeSimulatorFiles(dir, sim.Access()); err != nil {
		return nil, err
	}
	_, ring, err := db.NewKeyRing()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{"CARILLON_CONFIG=" + filepath.Join(dir, "carillon.yaml"), "CARILLON_KEY_RING=" + ring,
		"CARILLON_DATABASE_URL=" + database, "CARILLON_LISTEN=127.0.0.1:0",
		"CARILLON_ADMIN_LISTEN=127.0.0.1:0", "CARILLON_LOG_FORMAT=json"}
	p := &benchServer{cmd: exec.CommandContext(ctx, self, "serve")} //nolint:gosec // this program itself
	p.cmd.Env = env
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	key := func(args ...string) (string, error) {
		k := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program itself
		k.Env = env
		out, err := k.Output()
		return strings.TrimSpace(string(out)), err
	}
	if _, err := key("tenant", "create", "bench"); err != nil {
		return nil, fmt.Errorf("make a tenant: %w", err)
	}
	secret, err := key("key", "create", "--tenant", "bench", "--scopes", "send,devices,read,webhooks,credentials")
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	out, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch line.Msg {
		case "carillon serves":
			p.api = &client{base: line.URL, key: secret, http: &http.Client{Timeout: time.Minute,
				Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}}
		case "metrics and profiles":
			p.admin = strings.TrimSuffix(line.URL, "/metrics")
			go func() {
				for lines.Scan() { // keep the pipe empty
				}
			}()
			return p, nil
		}
	}
	return nil, errors.Join(errors.New("the server did not start"), p.cmd.Wait())
}

// writeProfile writes a CPU profile of the server while it is under load.
func (p *benchServer) writeProfile(ctx context.Context, o benchOptions) (err error) {
	if o.profile == "" {
		return nil
	}
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", p.admin, max(1, int(o.length.Seconds())))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile the server: %w", err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	f, err := os.Create(o.profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, res.Body)
	return err
}

func (p *benchServer) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.cmd.Wait()
}

// cpu is the processor time that the server has used.
func (p *benchServer) cpu() time.Duration { return processCPU(p.cmd.Process.Pid) }

// prepare registers one target of the channel per user and returns the bodies
// to post.
func (p *benchServer) prepare(ctx context.Context, sim *simulator.Simulator, channel string, users int) ([]string, error) {
	var vapid struct {
		Settings struct {
			PublicKey string `json:"public_key"`
		} `json:"settings"`
	}
	apns := sim.APNs()
	input := map[string]any{
		"fcm":     map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)},
		"apns":    map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}},
		"webpush": map[string]any{"generate": true, "subject": "mailto:ops@example.com"},
	}[channel]
	if input != nil {
		if err := p.api.call(ctx, "PUT", "/v1/apps/default/credentials/"+channel, input, &vapid); err != nil {
			return nil, err
		}
	}
	var bodies []string
	for i := range users {
		user := fmt.Sprintf("user-%d", i)
		body := map[string]any{"user": user, "channel": channel}
		switch channel {
		case "fcm":
			body["token"] = fmt.Sprintf("bench-token-%d", i)
		case "apns":
			body["token"], body["environment"] = apns.NewToken(), "production"
		case "webpush":
			sub, err := sim.Push().NewSubscription(vapid.Settings.PublicKey)
			if err != nil {
				return nil, err
			}
			body["subscription"] = sub
		case "webhook":
			if err := p.api.call(ctx, "POST", "/v1/endpoints", map[string]any{"url": sim.Webhook().URL(user), "event_types": []string{"*"}, "user": user}, nil); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("there is no channel %q", channel)
		}
		if channel != "webhook" {
			if err := p.api.call(ctx, "PUT", "/v1/devices", body, nil); err != nil {
				return nil, err
			}
		}
		bodies = append(bodies, fmt.Sprintf(`{"to":{"users":[%q]},"title":"Your order has shipped","body":"It arrives tomorrow between nine and eleven.","type":"order.shipped","data":{"order":%d}}`, user, i))
	}
	return bodies, nil
}

// load posts until the time is over: closed loop, or at a fixed rate with
// latency counted from when each post was due.
func (p *benchServer) load(ctx context.Context, bodies []string, o benchOptions) (r benchResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.length)
	defer cancel()
	var (
		wg                sync.WaitGroup
		accepted, refused atomic.Int64
		next              atomic.Int64
		mu                sync.Mutex
		took              []time.Duration
	)
	began := time.Now()
	for range o.clients {
		wg.Go(func() {
			var own []time.Duration
			for {
				n := next.Add(1) - 1
				due := time.Now()
				if o.rate > 0 {
					due = began.Add(time.Duration(float64(n) / o.rate * float64(time.Second)))
					if !sleepUntil(ctx, due) {
						break
					}
				}
				if ctx.Err() != nil {
					break
				}
				// A post that has begun is answered, so that all is counted.
				if p.post(context.WithoutCancel(ctx), bodies[int(n)%len(bodies)]) {
					accepted.Add(1)
					own = append(own, time.Since(due))
				} else {
					refused.Add(1)
				}
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	r.took, r.accepted, r.refused = time.Since(began), int(accepted.Load()), int(refused.Load())
	if r.accepted == 0 {
		return r, errors.New("no notification was accepted")
	}
	r.api = quantiles(took)
	return r, nil
}

func (p *benchServer) post(ctx context.Context, body string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.api.base+"/v1/notifications", strings.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+p.api.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := p.api.http.Do(req)
	if err != nil {
		return false
	}
	var drain [4096]byte
	for {
		if _, err := res.Body.Read(drain[:]); err != nil {
			break
		}
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusAccepted
}

func sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
