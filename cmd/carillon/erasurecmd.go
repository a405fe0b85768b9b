package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
)

func newTenantDeleteCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete name", Short: "Delete a tenant with all that it has", Args: usage(cobra.ExactArgs(1)),
		Long: "Deletes a tenant. Its API keys are refused and its sealing keys destroyed before the command ends: what was sealed for it, such\n" +
			"as credentials and content, can never be read again. A running server notices within five seconds, sends nothing more, and removes\n" +
			"the rows in the background; without one, the next server does. The name is free when that is done.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return usageError{fmt.Errorf("this deletes the tenant %q for good, with its keys, devices and notifications; add --yes to do it", args[0])}
			}
			cfg, err := c.config()
			if err != nil {
				return err
			}
			return c.beside(cmd.Context(), func(_ *store.Store, s *tenants.Registry) error {
				t, err := s.DeleteTenant(cmd.Context(), args[0], actorCLI)
				if problem.CodeOf(err) == problem.NotFound {
					return fmt.Errorf("there is no tenant %q; `carillon tenant list` shows those of this database", args[0])
				}
				if err != nil {
					return err
				}
				if cfg.ErasureLogPath() == "" && cfg.ErasureLog != erasureLogOff {
					_, _ = fmt.Fprintln(c.err, "carillon: there is no erasure log here, so the deletion is in none: the tenant comes back when an older backup is restored; see the setting erasure_log")
				}
				_, err = fmt.Fprintf(c.out, "%s is being deleted; its rows are removed by the server\n", t.Name)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really do it")
	return cmd
}

func newErasuresCommand(c *cli) *cobra.Command {
	cmd := group(&cobra.Command{Use: "erasures", Short: "Apply erasures again after a restore"})
	cmd.AddCommand(&cobra.Command{
		Use: "apply [file...]", Short: "Erase again whom the erasure log says to have been erased",
		Long: "Reads the erasure log, or the files that are named, and erases again the users, and deletes again the tenants, that a restored\n" +
			"backup has brought back. Users who came back by themselves after their erasure stay. Run it before the server starts; what is more\n" +
			"than a moment's work is done by the server. It may be repeated.",
		RunE: func(cmd *cobra.Command, files []string) error {
			if len(files) == 0 {
				cfg, err := c.config()
				if err != nil {
					return err
				}
				path := cfg.ErasureLogPath()
				if path == "" {
					return usageError{errors.New("no erasure log is set; name its file, or set erasure_log")}
				}
				files = []string{path}
			}
			return c.beside(cmd.Context(), func(s *store.Store, _ *tenants.Registry) error {
				for _, path := range files {
					if err := c.applyErasures(cmd, s, path); err != nil {
						return fmt.Errorf("%s: %w", path, err)
					}
				}
				return nil
			})
		},
	})
	return cmd
}

func (c *cli) applyErasures(cmd *cobra.Command, s *store.Store, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	done, err := s.ApplyErasures(cmd.Context(), f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if done.Unreadable > 0 {
		_, _ = fmt.Fprintf(c.err, "%s: %d of %d lines cannot be read. One at a time is what a crash leaves of an erasure that was never confirmed.\n",
			path, done.Unreadable, done.Lines)
	}
	_, err = fmt.Fprintf(c.out, "%s: %d lines; %d users erased again, %d tenants deleted again\n", path, done.Lines, done.Users, done.Tenants)
	return err
}
