package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/simulator"
)

func newSimulateCommand(c *cli) *cobra.Command {
	o := simulator.Options{Listen: "127.0.0.1:8090", APNsListen: "127.0.0.1:8091", SandboxListen: "127.0.0.1:8092"}
	dir := ""
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Play FCM, APNs, a push service and a webhook receiver",
		Long: "Plays the providers on this machine, so that the whole path of a notification can be tried and tested without an\n" +
			"account anywhere. It checks requests as strictly as they do, and fails on demand: an FCM token sim-503x2-a is\n" +
			"answered 503 twice, then accepted. The page at the plain address explains everything.",
		Example: "  carillon simulate --dir /tmp/sim        # writes credentials and carillon.yaml there\n" +
			"  carillon serve --config /tmp/sim/carillon.yaml",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			o.Log = newLogger(cfg.Log, c.err)
			s, err := simulator.Start(o)
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			if dir != "" {
				if err := writeSimulatorFiles(dir, s.Access()); err != nil {
					return err
				}
				_, _ = fmt.Fprintf(c.out, "Credentials are in %s. A server on them: carillon serve --config %s\n", dir, filepath.Join(dir, "carillon.yaml"))
			}
			a := s.Access()
			_, _ = fmt.Fprintf(c.out, "FCM, push service, webhooks   %s\nAPNs production, sandbox      %s  %s\nWhat it does and what came    %s/\n",
				a.FCM.URL, a.APNs.URL, a.APNs.SandboxURL, a.FCM.URL)
			<-cmd.Context().Done()
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", o.Listen, "address for FCM, OAuth, push service, webhooks and the page")
	f.StringVar(&o.APNsListen, "listen-apns", o.APNsListen, "address for APNs production (TLS)")
	f.StringVar(&o.SandboxListen, "listen-apns-sandbox", o.SandboxListen, "address for the APNs sandbox (TLS)")
	f.StringVar(&dir, "dir", "", "folder to write credentials and a server configuration to")
	return cmd
}

// writeSimulatorFiles writes what a server needs to talk to the simulator: the
// credentials as the providers hand them out, as bodies for the API (fcm.json,
// apns.json), and a configuration that works from any folder.
func writeSimulatorFiles(dir string, a simulator.Access) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	ca := filepath.Join(dir, "apns-ca.pem")
	settings := fmt.Sprintf(`# Points a server at the simulator. Never use it with real devices: it opens loopback to tenants.
database:
  url: %s
channels:
  fcm:
    endpoint: %s
    token_uris: [%s]
  apns:
    production_url: %s
    sandbox_url: %s
    ca_file: %s
  webpush:
    any_host: true
    allow: [127.0.0.0/8]
    allow_http: true
    any_port: true
  webhook:
    allow: [127.0.0.0/8]
    allow_http: true
    any_port: true
`, filepath.Join(dir, "carillon.db"), a.FCM.URL, a.FCM.TokenURI, a.APNs.URL, a.APNs.SandboxURL, ca)
	fcmInput, err := json.MarshalIndent(map[string]json.RawMessage{"service_account": a.FCM.ServiceAccount}, "", "  ")
	if err != nil {
		return err
	}
	apnsInput, err := json.MarshalIndent(map[string]any{"key": a.APNs.P8, "key_id": a.APNs.KeyID, "team_id": a.APNs.TeamID,
		"topics": []string{a.APNs.Topic}}, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"service-account.json": a.FCM.ServiceAccount, "fcm.json": fcmInput,
		"apns.json": apnsInput, "apns.p8": []byte(a.APNs.P8),
		"apns-ca.pem": []byte(a.APNs.CA), "carillon.yaml": []byte(settings)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write what a server needs: %w", err)
		}
	}
	return nil
}
