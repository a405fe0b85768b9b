package main

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// credentialAnswer is a credential as the API shows it.
type credentialAnswer struct {
	ID, App, Channel, Qualifier, Status, Reason string
	Version                                     int
	ProvenAt                                    time.Time `json:"proven_at"`
	ExpiresAt                                   time.Time `json:"expires_at"`
	Verification                                struct{ Status, Code, Detail string }
	Subscriptions                               *struct{ Percent int }
}

func newCredentialsCommand(c *cli) *cobra.Command {
	var f clientFlags
	cmd := group(&cobra.Command{Use: "credentials", Short: "List credentials and their versions, and go back to an earlier one"})
	f.add(cmd)
	cmd.AddCommand(newCredentialsListCommand(c, &f), newCredentialsVersionsCommand(c, &f), newCredentialsRollbackCommand(c, &f), newCredentialsVerifyCommand(c, &f))
	return cmd
}

func newCredentialsListCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List credentials, with what their providers say, and how many browsers have moved to a VAPID pair", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a listAnswer[credentialAnswer]
			if err := x.call(cmd.Context(), "GET", "/v1/credentials", nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, d := range a.Data {
				rows[i] = []string{d.ID, d.App, d.Channel, d.Qualifier, strconv.Itoa(d.Version), d.Status, d.Verification.Status, day(d.ExpiresAt), "", d.Reason}
				if d.Channel != "webpush" {
					continue
				}
				if err := x.call(cmd.Context(), "GET", "/v1/credentials/"+d.ID, nil, &d); err != nil {
					return err
				}
				if d.Subscriptions != nil {
					rows[i][8] = strconv.Itoa(d.Subscriptions.Percent) + " %"
				}
			}
			return c.printTable([]string{"CREDENTIAL", "APP", "CHANNEL", "FOR", "VERSION", "STATUS", "VERIFICATION", "EXPIRES", "MOVED", "REASON"}, rows)
		},
	}
}

// day is a date; "" where there is none.
func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}

func newCredentialsVersionsCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "versions crd_...", Short: "List the versions of a credential, newest first", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a listAnswer[struct {
				Version       int
				Current, Kept bool
				Actor         string
				CreatedAt     time.Time `json:"created_at"`
				ProvenAt      time.Time `json:"proven_at"`
				Verification  struct{ Status string }
			}]
			if err := x.call(cmd.Context(), "GET", "/v1/credentials/"+url.PathEscape(args[0])+"/versions", nil, &a); err != nil {
				return err
			}
			rows := make([][]string, len(a.Data))
			for i, v := range a.Data {
				state, worked := "replaced", "never"
				switch {
				case v.Current:
					state = "current"
				case !v.Kept:
					state = "destroyed"
				}
				if !v.ProvenAt.IsZero() {
					worked = v.ProvenAt.Format(time.RFC3339)
				}
				rows[i] = []string{strconv.Itoa(v.Version), state, v.CreatedAt.Format(time.RFC3339), v.Actor, v.Verification.Status, worked}
			}
			return c.printTable([]string{"VERSION", "STATE", "PUT", "BY", "VERIFICATION", "FIRST SUCCESS"}, rows)
		},
	}
}

func newCredentialsVerifyCommand(c *cli, f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "verify crd_...", Short: "Ask the provider now whether it takes a credential", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			var a credentialAnswer
			if err := x.call(cmd.Context(), "POST", "/v1/credentials/"+url.PathEscape(args[0])+"/verify", nil, &a); err != nil {
				return err
			}
			said := slices.DeleteFunc([]string{a.Verification.Status, a.Verification.Code, a.Verification.Detail}, func(s string) bool { return s == "" })
			_, err = fmt.Fprintf(c.out, "%s: %s\n", a.ID, strings.Join(said, ", "))
			return err
		},
	}
}

func newCredentialsRollbackCommand(c *cli, f *clientFlags) *cobra.Command {
	version, unverified := 0, false
	cmd := &cobra.Command{
		Use: "rollback crd_...", Short: "Make a new version with the content of an earlier one", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := f.client(c)
			if err != nil {
				return err
			}
			body := map[string]any{}
			if version != 0 {
				body["version"] = version
			}
			var a credentialAnswer
			if err := x.call(cmd.Context(), "POST", "/v1/credentials/"+url.PathEscape(args[0])+"/rollback?verify="+strconv.FormatBool(!unverified), body, &a); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s is at version %d now, %s, %s\n", a.ID, a.Version, a.Status, a.Verification.Status)
			return err
		},
	}
	cmd.Flags().IntVar(&version, "version", 0, "the one to go back to; where absent the newest of another content that was neither refused nor gone back from")
	cmd.Flags().BoolVar(&unverified, "unverified", false, "do not ask the provider first")
	return cmd
}
