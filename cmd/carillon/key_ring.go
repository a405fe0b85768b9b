package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/store/db"
)

func newKeyRingCommand(c *cli) *cobra.Command {
	ring := group(&cobra.Command{Use: "key-ring", Short: "Make and rotate the key ring that seals secrets"})
	var out string
	initialise := &cobra.Command{
		Use: "init", Short: "Make a new key ring", Args: noArgs,
		Long: "Makes the key ring of an installation. It is needed to start the server and to read any backup of its database,\n" +
			"so keep a copy apart from both. An existing file is never overwritten.",
		RunE: func(*cobra.Command, []string) error {
			_, text, err := db.NewKeyRing()
			if err != nil {
				return err
			}
			return c.giveKeyRing(text, out, "Keep a copy apart from the database.")
		},
	}
	addKeyRingOut(initialise, &out)
	ring.AddCommand(initialise, newKeyRingRotateCommand(c), newKeyRingResealCommand(c), newKeyRingShowCommand(c), newKeyRingPruneCommand(c))
	return ring
}

func addKeyRingOut(cmd *cobra.Command, out *string) {
	cmd.Flags().StringVar(out, "out", "", "the file to write; without it the key ring is printed")
}

// giveKeyRing writes a key ring to a file that is not there yet, or prints it, and
// says how to go on.
func (c *cli) giveKeyRing(text, out, next string) error {
	if out == "" {
		if _, err := fmt.Fprintln(c.out, text); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(c.err, next)
		return nil
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is never overwritten; use it, or give another file to --out", out)
	}
	if err != nil {
		return fmt.Errorf("write the key ring: %w", err)
	}
	_, err = fmt.Fprintln(f, text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the key ring: %w", err)
	}
	_, _ = fmt.Fprintf(c.err, "The key ring is in %s. %s\n", out, next)
	return nil
}

// keyRing reads the key ring that is configured; without one nothing is sealed,
// so nothing runs.
func keyRing(cfg Config) (*db.KeyRing, error) {
	text, err := cfg.KeyRingText()
	if err != nil {
		return nil, usageError{err}
	}
	if text == "" {
		return nil, usageError{errors.New("there is no key ring. Make one with `carillon key-ring init --out carillon.keyring` and " +
			"name it by --key-ring-file, CARILLON_KEY_RING_FILE or key_ring_file. Keep a copy apart from the database: without it a backup cannot be read")}
	}
	ring, err := db.ParseKeyRing(text)
	if err != nil {
		return nil, usageError{err}
	}
	return ring, nil
}
