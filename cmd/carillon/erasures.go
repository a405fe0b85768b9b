package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/store"
)

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
			return c.withStore(cmd.Context(), func(s *store.Store) error {
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
