package main

import (
	"errors"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// deviceAnswer is a device as the API shows it.
type deviceAnswer struct {
	ID, User, App, Channel, Kind, Purpose, Status, Reason string
	StatusAt                                              time.Time `json:"status_at"`
}

func newDevicesCommand(c *cli) *cobra.Command {
	var f clientFlags
	cmd := group(&cobra.Command{Use: "devices", Short: "List, import and export devices, tell what has happened to one, restore and retire many"})
	f.add(cmd)
	cmd.AddCommand(newDevicesListCommand(c, &f), newDevicesSuspectsCommand(c, &f), newDevicesHistoryCommand(c, &f),
		newDevicesImportCommand(c, &f), newDevicesExportCommand(c, &f), newDevicesChangeCommand(c, &f, true), newDevicesChangeCommand(c, &f, false))
	return cmd
}

func (c *cli) listDevices(cmd *cobra.Command, f *clientFlags, q url.Values) error {
	x, err := f.client(c)
	if err != nil {
		return err
	}
	var a listAnswer[deviceAnswer]
	if err := x.call(cmd.Context(), "GET", "/v1/devices?"+q.Encode(), nil, &a); err != nil {
		return err
	}
	rows := make([][]string, len(a.Data))
	for i, d := range a.Data {
		rows[i] = []string{d.ID, d.User, d.App, d.Channel, d.Purpose, d.Status, d.Reason, ""}
		if !d.StatusAt.IsZero() {
			rows[i][7] = d.StatusAt.Format(time.RFC3339)
		}
	}
	return c.printTable([]string{"DEVICE", "USER", "APP", "CHANNEL", "PURPOSE", "STATUS", "REASON", "SINCE"}, rows)
}

func newDevicesListCommand(c *cli, f *clientFlags) *cobra.Command {
	texts, limit := map[string]*string{}, 50
	cmd := &cobra.Command{
		Use: "list", Short: "List devices, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, v := range texts {
				if *v != "" {
					q.Set(name, *v)
				}
			}
			return c.listDevices(cmd, f, q)
		},
	}
	for _, t := range []struct{ name, help string }{{"user", "only of this user"}, {"app", "only of this app"},
		{"channel", "only of this channel: fcm, apns, webpush"}, {"status", "only with this status: active, suspect, retired"}} {
		texts[t.name] = cmd.Flags().String(t.name, "", t.help)
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "at most this many, up to 200")
	return cmd
}

func newDevicesSuspectsCommand(c *cli, f *clientFlags) *cobra.Command {
	limit := 50
	cmd := &cobra.Command{
		Use: "suspects", Short: "List devices whose address may be dead, or whose credential may be wrong", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.listDevices(cmd, f, url.Values{"status": {"suspect"}, "limit": {strconv.Itoa(limit)}})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "at most this many, up to 200")
	return cmd
}

// newDevicesHistoryCommand tells what has happened to a device.
func newDevicesHistoryCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "history dev_...", Short: "Show what has happened to a device, newest first: by whom, and by which verdict", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a listAnswer[struct {
				At                                     time.Time
				Event, User, Reason, Credential, Actor string
				Version                                int
			}]
			if err := x.call(cmd.Context(), "GET", "/v1/devices/"+url.PathEscape(args[0])+"/history", nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, e := range a.Data {
				rows[i] = []string{e.At.Format(time.RFC3339), e.Event, e.User, e.Reason, "", e.Actor}
				if e.Credential != "" {
					rows[i][4] = e.Credential + " version " + strconv.Itoa(e.Version)
				}
			}
			return c.printTable([]string{"AT", "EVENT", "USER", "REASON", "CREDENTIAL", "ACTOR"}, rows)
		},
	}
}

// newDevicesChangeCommand makes devices active again, or retires suspects, by a job.
func newDevicesChangeCommand(c *cli, f *clientFlags, restores bool) *cobra.Command {
	var (
		texts   = map[string]*string{}
		version int
		dry     bool
	)
	cmd := &cobra.Command{
		Use: "restore", Short: "Make devices active again that were retired, or made suspect, by mistake", Args: noArgs,
		Example: "  carillon devices restore --reason fcm.unregistered --since 2026-01-31T12:00:00Z --dry-run\n" +
			"  carillon devices restore --credential crd_0d1kq3w8r000c --version 3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter := map[string]any{}
			for name, v := range texts {
				if *v != "" {
					filter[name] = *v
				}
			}
			if version != 0 {
				filter["version"] = version
			}
			if len(filter) == 0 || len(filter) == 1 && filter["status"] != nil {
				return usageError{errors.New("give at least one flag that selects devices, such as --reason or --since")}
			}
			x, err := f.client(c)
			if err != nil {
				return err
			}
			o := jobOrder{path: "/v1/devices/restore", body: map[string]any{"filter": filter}, dry: dry, items: "devices", done: "restored", does: "restores"}
			if !restores {
				o.path, o.items, o.done, o.does = "/v1/devices/retire", "suspect devices", "retired", "retires"
			}
			return c.orderJob(cmd.Context(), x, o)
		},
	}
	flags := cmd.Flags()
	if restores {
		texts["status"] = flags.String("status", "", "retired, or suspect; retired where absent")
	} else {
		cmd.Use, cmd.Short = "retire", "Retire suspect devices whose addresses are known to be dead"
		cmd.Example = "  carillon devices retire --reason fcm.unregistered --until 2026-01-31T12:00:00Z --dry-run"
	}
	for _, t := range []struct{ name, help string }{
		{"reason", "only with this reason, such as fcm.unregistered"},
		{"channel", "only of this channel: fcm, apns, webpush"}, {"app", "only of this app"}, {"user", "only of this user"},
		{"credential", "only by a verdict of this credential (crd_...)"},
		{"since", "only what came to the status then or later, such as 2026-01-31T12:00:00Z"}, {"until", "only what came to it before"},
	} {
		texts[t.name] = flags.String(t.name, "", t.help)
	}
	flags.IntVar(&version, "version", 0, "only of this version of the credential")
	flags.BoolVar(&dry, "dry-run", false, "only count what the flags select")
	return cmd
}
