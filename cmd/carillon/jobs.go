package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// jobAnswer is what the commands show of a job.
type jobAnswer struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"`
	State     string    `json:"state"`
	Total     int       `json:"total"`
	Done      int       `json:"done"`
	Skipped   int       `json:"skipped"`
	Failed    int       `json:"failed"`
	Error     string    `json:"error"`
	CreatedAt time.Time `json:"created_at"`
}

// progress is how far a job is, such as 120 of 300 (40%).
func (j jobAnswer) progress() string {
	n := j.Done + j.Skipped + j.Failed
	if j.Total == 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d of %d (%d%%)", n, j.Total, min(n*100/j.Total, 100))
}

func newJobsCommand(c *cli) *cobra.Command {
	var f clientFlags
	cmd := group(&cobra.Command{Use: "jobs", Short: "List, show and cancel background jobs"})
	f.add(cmd)
	cmd.AddCommand(newJobsListCommand(c, &f), newJobsShowCommand(c, &f), newJobsCancelCommand(c, &f))
	return cmd
}

func newJobsListCommand(c *cli, f *clientFlags) *cobra.Command {
	var state, kind string
	limit := 50
	cmd := &cobra.Command{
		Use: "list", Short: "List jobs, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, v := range map[string]string{"state": state, "kind": kind} {
				if v != "" {
					q.Set(name, v)
				}
			}
			var a listAnswer[jobAnswer]
			if err := x.call(cmd.Context(), "GET", "/v1/jobs?"+q.Encode(), nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, j := range a.Data {
				rows[i] = []string{j.ID, j.Kind, j.State, j.progress(), strconv.Itoa(j.Done), strconv.Itoa(j.Skipped), strconv.Itoa(j.Failed),
					j.CreatedAt.Format(time.RFC3339), j.Error}
			}
			return c.printTable([]string{"JOB", "KIND", "STATE", "PROGRESS", "DONE", "SKIPPED", "FAILED", "CREATED", "ERROR"}, rows)
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only in this state: queued, running, done, canceled, failed")
	cmd.Flags().StringVar(&kind, "kind", "", "only of this kind, such as dead_letter_replay")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most this many, up to 200")
	return cmd
}

func newJobsShowCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show job_...", Short: "Show everything about a job", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a json.RawMessage
			if err := x.call(cmd.Context(), "GET", "/v1/jobs/"+url.PathEscape(args[0]), nil, &a); err != nil {
				return err
			}
			return c.printJSON(a)
		},
	}
}

func newJobsCancelCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "cancel job_...", Short: "Stop a job before its next step", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a jobAnswer
			if err := x.call(cmd.Context(), "POST", "/v1/jobs/"+url.PathEscape(args[0])+"/cancel", nil, &a); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s is %s after %s\n", a.ID, a.State, a.progress())
			return err
		},
	}
}

// jobOrder is a call that makes a job, or with dry only counts what it would do.
type jobOrder struct {
	path       string
	body       map[string]any
	dry        bool
	items      string // such as dead letters
	done, does string // such as replayed and replays
}

func (c *cli) orderJob(ctx context.Context, x *client, o jobOrder) error {
	if o.dry {
		o.body["dry_run"] = true
		var p struct {
			Matching   int  `json:"matching"`
			LowerBound bool `json:"lower_bound"`
		}
		if err := x.call(ctx, "POST", o.path, o.body, &p); err != nil {
			return err
		}
		least := ""
		if p.LowerBound {
			least = "at least "
		}
		_, err := fmt.Fprintf(c.out, "%s%d %s would be %s\n", least, p.Matching, o.items, o.done)
		return err
	}
	var j jobAnswer
	if err := x.call(ctx, "POST", o.path, o.body, &j); err != nil {
		return err
	}
	of := ""
	if j.Total > 0 {
		of = fmt.Sprintf(" %d %s", j.Total, o.items)
	}
	_, err := fmt.Fprintf(c.out, "%s %s%s; `carillon jobs show %s` tells how far it is\n", j.ID, o.does, of, j.ID)
	return err
}
