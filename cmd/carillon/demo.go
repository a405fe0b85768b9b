package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

func newDemoCommand(c *cli) *cobra.Command {
	once, listen := false, ""
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole thing: a server, simulated providers, and notifications on their way",
		Long: "Starts a server on a fresh database with simulated providers, sends notifications through its API and shows what\n" +
			"becomes of every delivery. Then it stays up with calls to try, until Ctrl-C. Nothing leaves this machine, unless you\n" +
			"open its page in a browser: its push service is the browser's own.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context(), listen, once) },
	}
	cmd.Flags().BoolVar(&once, "once", false, "exit when the story is told: 0 only if everything came out as said")
	cmd.Flags().StringVar(&listen, "at", "127.0.0.1:8080", "where the demo's server listens; a free port where this one is taken")
	return cmd
}

func (c *cli) demo(ctx context.Context, listen string, once bool) (err error) {
	dir, err := os.MkdirTemp("", "carillon-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sim, err := simulator.Start(simulator.Options{})
	if err != nil {
		return fmt.Errorf("start the simulator: %w", err)
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	d, err := startDemo(ctx, c.out, sim, dir, freePort(listen, once))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.story(ctx); err != nil {
		return err
	}
	if once {
		return nil
	}
	d.invite()
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.ended:
		d.ended <- nil
		return err
	}
}

// freePort is the wanted address, or a free port where it is taken. A run that
// nobody will call from outside does not need a certain one.
func freePort(listen string, anyPort bool) string {
	if anyPort {
		return "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close()
	return listen
}

// demo is a running server with a tenant in it.
type demo struct {
	out    io.Writer
	sim    *simulator.Simulator
	server *server
	stop   context.CancelFunc
	ended  chan error
	api    *client // with the tenant's key
	page   *demoPage
	bobs   string // the notification of which not everything arrived
	said   func(format string, args ...any)
}

// startDemo starts a server that talks to the simulator.
func startDemo(ctx context.Context, out io.Writer, sim *simulator.Simulator, dir, listen string) (*demo, error) {
	d := &demo{out: out, sim: sim, ended: make(chan error, 1), page: &demoPage{}}
	d.said = func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	cfg, err := demoConfig(sim, dir, listen)
	if err != nil {
		return nil, err
	}
	ring, _, err := db.NewKeyRing()
	if err != nil {
		return nil, err
	}
	d.server, err = newServer(ctx, cfg, serverParts{keyRing: ring, demo: d.page.handler(),
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	go func() { d.ended <- d.server.run(run) }()
	_, operator, err := d.server.tenants.CreateKey(ctx, 0, tenants.NewKey{Name: "demo", Scopes: []tenants.Scope{tenants.Operator}}, actorCLI)
	if err != nil {
		return nil, errors.Join(err, d.end())
	}
	d.api = &client{base: d.server.url(), key: operator, tenant: "demo", http: &http.Client{Timeout: 30 * time.Second}}
	return d, nil
}

func demoConfig(sim *simulator.Simulator, dir, listen string) (Config, error) {
	loopback := EgressConfig{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true, AnyPort: true, Timeout: 10 * time.Second}
	fcm, apns := sim.FCM(), sim.APNs()
	ca := filepath.Join(dir, "apns-ca.pem")
	if err := os.WriteFile(ca, apns.CAPEM, 0o600); err != nil {
		return Config{}, fmt.Errorf("write the simulator's certificate: %w", err)
	}
	cfg := defaultConfig()
	cfg.Listen, cfg.AdminListen = listen, "127.0.0.1:0"
	cfg.DatabaseURL = filepath.Join(dir, "carillon.db")
	cfg.FCM = FCMConfig{Endpoint: fcm.URL, TokenURIs: []string{fcm.TokenURI}}
	cfg.APNs = APNsConfig{ProductionURL: apns.URL, SandboxURL: apns.SandboxURL, CAFile: ca}
	cfg.WebPush = WebPushConfig{EgressConfig: loopback, AnyHost: true}
	cfg.Webhook = loopback
	cfg.ShutdownWait = 5 * time.Second
	return cfg, nil
}

// end stops the server and waits for it.
func (d *demo) end() error {
	d.stop()
	return <-d.ended
}

// invite prints calls to try, with the real key.
func (d *demo) invite() {
	x := d.api
	d.said(`
Now it is yours. Paste any of these (Ctrl-C ends the demo and forgets everything):

  # send a notification to all of alice's devices
  curl %[1]s/v1/notifications -H "Authorization: Bearer %[2]s" \
    -H "Content-Type: application/json" -d '{"to":{"users":["alice"]},"title":"Hello","body":"From curl."}'

  # what would be sent to each of them; nothing is sent
  curl %[1]s/v1/notifications -H "Authorization: Bearer %[2]s" \
    -H "Content-Type: application/json" -d '{"to":{"users":["alice"]},"title":"Hello","dry_run":true}'

  # what was there for bob, and what became of it on each of his devices, and why
  curl %[1]s/v1/users/bob/notifications -H "Authorization: Bearer %[2]s"
  curl %[1]s/v1/notifications/%[5]s/deliveries -H "Authorization: Bearer %[2]s"

  # dead letters, and what is on hold: nothing, unless you break something
  curl %[1]s/v1/dead-letters -H "Authorization: Bearer %[2]s"
  curl %[1]s/v1/holds -H "Authorization: Bearer %[2]s"

  A browser that gets notifications   %[1]s/demo/
  The API                             %[1]s/docs
  What the providers saw              %[3]s/
  Metrics                             http://%[4]s/metrics`,
		x.base, x.key, d.sim.FCM().URL, d.server.adminAt.Addr(), d.bobs)
}
