package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/delivery"
)

func newHealthcheckCommand(c *cli) *cobra.Command {
	timeout := 5 * time.Second
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the server on this machine whether it is alive",
		Long: "Asks /healthz of the server at the configured listen address, or of a worker at its admin address. The exit code\n" +
			"is 0 if it is alive and 1 if it is not, so it serves as the HEALTHCHECK of a container without a shell.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			at := cfg.Listen
			if cfg.Role == delivery.RoleWorker {
				if at = cfg.AdminListen; at == "off" {
					return usageError{errors.New("a worker answers at admin.listen alone, which is off")}
				}
			}
			return healthcheck(cmd.Context(), at, timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for the answer")
	return cmd
}

// healthcheck asks the server that listens at an address.
func healthcheck(ctx context.Context, listen string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialAddress(listen)+"/healthz", nil)
	if err != nil {
		return err
	}
	// The server is on this machine, whatever proxy the environment names.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the server is not well: it answers %s", res.Status)
	}
	return nil
}

// dialAddress turns an address to listen at into one to call: "every address" is
// reached over loopback.
func dialAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "":
		host = "localhost"
	case err == nil && addr.IsUnspecified() && addr.Is4():
		host = "127.0.0.1"
	case err == nil && addr.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
