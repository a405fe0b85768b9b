package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/cmd/carillon/demo"
	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

func newDemoCommand(c *cli) *cobra.Command {
	o := demo.Options{Out: c.out, Table: renderTable, StartServer: startDemoServer, Client: demoClient}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole thing: a server, simulated providers, and notifications on their way",
		Long: "Starts a server on a fresh database with simulated providers, sends notifications through its API and shows what\n" +
			"becomes of every delivery. Then it stays up with calls to try, until Ctrl-C. Nothing leaves this machine, unless you\n" +
			"open its page in a browser: its push service is the browser's own.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo.Run(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.Once, "once", false, "exit when the story is told: 0 only if everything came out as said")
	cmd.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:8080", "where the demo's server listens; a free port where this one is taken")
	return cmd
}

// startDemoServer makes a server with a key for an operator. It is configured by
// the demo alone, whatever the environment says.
func startDemoServer(ctx context.Context, o demo.ServerOptions) (demo.Server, error) {
	cfg, err := demoConfig(o.Simulator, o.Dir, o.Listen)
	if err != nil {
		return demo.Server{}, err
	}
	ring, _, err := db.NewKeyRing()
	if err != nil {
		return demo.Server{}, err
	}
	s, err := newServer(ctx, cfg, serverParts{keyRing: ring, demo: o.Page,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return demo.Server{}, err
	}
	_, key, err := s.tenants.CreateKey(ctx, 0, tenants.NewKey{Name: "demo", Scopes: []tenants.Scope{tenants.Operator}}, actorCLI)
	if err != nil {
		s.release()
		return demo.Server{}, err
	}
	return demo.Server{URL: s.url(), MetricsURL: s.metricsURL(), OperatorKey: key, Run: s.run}, nil
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

func demoClient(url, key, tenant string) demo.Call {
	x := &client{base: url, key: key, tenant: tenant, http: &http.Client{Timeout: 30 * time.Second}}
	return x.call
}
