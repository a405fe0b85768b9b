package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/cmd/carillon/bench"
	"github.com/carillonhq/carillon/store/db"
)

func newBenchCommand(c *cli) *cobra.Command {
	o := bench.Options{Clients: 64, Length: 5 * time.Second, Users: 64, Channels: []string{"fcm", "apns", "webpush", "webhook"},
		Progress: c.err, WriteConfig: writeSimulatorFiles, Client: benchClient}
	scenario := ""
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: accepts and deliveries a second, CPU, latency",
		Long: "Starts a server of its own on a fresh database, as a process of its own, and simulated providers that answer at\n" +
			"once; posts notifications for one target each, and measures, channel by channel. The load, the providers and the\n" +
			"server share the machine, so compare figures of one run with each other rather than with another machine's.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Postgres != "" {
				if why := db.CheckURL(o.Postgres); why != "" {
					return fmt.Errorf("--postgres %s", why)
				}
			}
			switch scenario {
			case "":
				results, err := bench.Run(cmd.Context(), o)
				if err != nil {
					return err
				}
				return c.printTable(bench.Table(results))
			case "neighbours":
				list, err := bench.Neighbours(cmd.Context(), o)
				if err != nil {
					return err
				}
				return c.printTable(bench.ComparisonTable(list))
			}
			return usageError{fmt.Errorf("--scenario %s is not known; use neighbours, or leave it out", scenario)}
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Clients, "clients", o.Clients, "callers that each wait for their answer")
	f.DurationVar(&o.Length, "for", o.Length, "how long to post to each channel")
	f.Float64Var(&o.Rate, "rate", 0, "notifications a second; 0: as fast as they are answered")
	f.StringSliceVar(&o.Channels, "channel", o.Channels, "the channels to measure")
	f.StringVar(&scenario, "scenario", "", "neighbours: how long a tenant waits beside one whose receivers hang, and an endpoint beside others that do, as ratios")
	f.StringVar(&o.Profile, "profile", "", "write a CPU profile of the server to this file, of the last channel measured")
	f.StringVar(&o.Postgres, "postgres", "", "URL of a PostgreSQL server to measure on, with a user who may make databases: one is made and dropped again. SQLite without it")
	f.DurationVar(&o.ProviderLatency, "provider-latency", 0, "how long the providers take to answer")
	return cmd
}

func benchClient(url, key string) func(ctx context.Context, method, path string, in, out any) error {
	x := &client{base: url, key: key, http: &http.Client{Timeout: time.Minute}}
	return x.call
}
