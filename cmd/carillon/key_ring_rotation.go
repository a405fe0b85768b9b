package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

func newKeyRingRotateCommand(c *cli) *cobra.Command {
	var (
		out     string
		prepare bool
	)
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make a key ring that seals with a new key", Args: noArgs,
		Long: "Reads the key ring that is configured and gives one that seals with a new key and opens whatever the old one opens. The\n" +
			"database is not touched: `carillon key-ring reseal` seals the tenants' keys with the new one once the servers have it.\n\n" +
			"With more than one server do it in two steps, so that each can read what the others seal: with --prepare the new key is added\n" +
			"and does not seal yet; when every server runs with that key ring, rotate without --prepare makes it the one that seals.",
		Example: "  carillon key-ring rotate --prepare --out carillon.keyring.prepared   # to all servers first\n" +
			"  carillon key-ring rotate --key-ring-file carillon.keyring.prepared --out carillon.keyring.rotated",
		RunE: func(*cobra.Command, []string) error {
			ring, err := c.configuredKeyRing()
			if err != nil {
				return err
			}
			change, next := ring.Rotate, "Give it to every server and restart them one after the other; then run `carillon key-ring reseal`. "+
				"Keep the old one with the backups that were made with it."
			if prepare {
				change, next = ring.Prepare, "It seals as before. Give it to every server and restart them one after the other; then run `carillon key-ring rotate` with it."
			}
			text, err := change()
			if err != nil {
				return err
			}
			return c.giveKeyRing(text, out, next)
		},
	}
	addKeyRingOut(cmd, &out)
	cmd.Flags().BoolVar(&prepare, "prepare", false, "add the new key, and seal with the old one still")
	return cmd
}

func newKeyRingResealCommand(c *cli) *cobra.Command {
	var newKeys bool
	cmd := &cobra.Command{
		Use: "reseal", Short: "Seal the tenants' keys with the primary key of the key ring", Args: noArgs,
		Long: "Makes a job that a server takes: it seals each tenant's keys with the primary key of the key ring that is configured, and gives\n" +
			"a new key to tenants who still seal with AES-GCM. `carillon key-ring show` tells how far it is.\n\n" +
			"It also seals the URLs of endpoints that versions before have left in clear. Such a version cannot be started on the database\n" +
			"from then on. The job waits until all servers are of one version.\n\n" +
			"With --new-keys every tenant gets a new key for what is sealed from then on. Do it when somebody may have read both the database\n" +
			"and the key ring. What is sealed already stays as it is: replace the credentials and webhook secrets as well.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withStore(cmd.Context(), func(s *store.Store) error {
				j, err := s.CreateReseal(cmd.Context(), newKeys, actorCLI)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.out, "%s: the keys of %d tenants are sealed with key %d by the servers; see `carillon key-ring show`\n",
					j.ID.Format(ids.Job), j.Total, s.KeyRing().Primary())
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&newKeys, "new-keys", false, "give every tenant a new key as well")
	return cmd
}

func newKeyRingShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the keys of the key ring, and how many tenants need each", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, k, err := c.keysets(cmd.Context())
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, x := range ring.Keys() {
				rows = append(rows, []string{strconv.FormatUint(uint64(x.ID), 10), x.Algorithm, string(x.Role), strconv.Itoa(k.By[x.ID])})
				delete(k.By, x.ID)
			}
			for id, n := range k.By {
				rows = append(rows, []string{strconv.FormatUint(uint64(id), 10), "", "missing", strconv.Itoa(n)})
			}
			return c.printTable([]string{"KEY", "ALGORITHM", "ROLE", "TENANTS"}, rows)
		},
	}
}

func newKeyRingPruneCommand(c *cli) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "prune", Short: "Make a key ring without the old keys that no tenant needs", Args: noArgs,
		Long: "Reads the key ring that is configured and gives one without the old keys that seal nothing in this database. A backup from\n" +
			"before the tenants' keys were sealed anew needs them: keep the old key ring as long as such a backup.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, k, err := c.keysets(cmd.Context())
			if err != nil {
				return err
			}
			text, removed, err := ring.Prune(func(id uint32) bool { return k.By[id] > 0 })
			if errors.Is(err, db.ErrNothingToPrune) {
				return c.nothingToPrune(ring, k)
			}
			if err != nil {
				return err
			}
			return c.giveKeyRing(text, out, fmt.Sprintf("It lacks %s, which nothing in the database needs. Keep the old key ring with the backups that were made with it.", numbers(removed)))
		},
	}
	addKeyRingOut(cmd, &out)
	return cmd
}

// nothingToPrune says why there is none.
func (c *cli) nothingToPrune(ring *db.KeyRing, k registers.Keysets) error {
	for _, x := range ring.Keys() {
		if x.Role == db.RingOld {
			return fmt.Errorf("%d tenants' keys are still sealed with the old key %d: run `carillon key-ring reseal` and wait for its job", k.By[x.ID], x.ID)
		}
	}
	_, err := fmt.Fprintln(c.out, "The key ring has no old key.")
	return err
}

func numbers(list []uint32) string {
	slices.Sort(list)
	text := make([]string, len(list))
	for i, id := range list {
		text[i] = strconv.FormatUint(uint64(id), 10)
	}
	return "key " + strings.Join(text, ", ")
}

func (c *cli) configuredKeyRing() (*db.KeyRing, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	return keyRing(cfg)
}

// keysets reads the key ring, and what the database needs of it. Nothing is changed.
func (c *cli) keysets(ctx context.Context) (*db.KeyRing, registers.Keysets, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, registers.Keysets{}, err
	}
	ring, err := keyRing(cfg)
	if err != nil {
		return nil, registers.Keysets{}, err
	}
	s, err := store.Peek(ctx, store.Options{URL: cfg.DatabaseURL, KeyRing: ring, Connections: cfg.Connections})
	if err != nil {
		return nil, registers.Keysets{}, err
	}
	k, err := s.Keysets(ctx)
	return ring, k, errors.Join(err, s.Close())
}
