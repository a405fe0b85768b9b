package main

import (
	"context"
	"errors"

	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// actorCLI is who changes things in the audit when a command does.
const actorCLI = "cli"

// withDatabase opens the database for a command that may run beside the server.
func (c *cli) withDatabase(ctx context.Context, run func(*store.Store, *tenants.Registry) error) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	ring, err := keyRing(cfg)
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Options{URL: cfg.DatabaseURL, KeyRing: ring, Connections: cfg.Connections, Migrate: cfg.Migrate == migrateAuto,
		Unchecked: cfg.Migrate == migrateOff, ErasureLog: cfg.ErasureLogPath()})
	if err != nil {
		return err
	}
	if err := s.Join(ctx, db.Node{Name: cfg.Node(), Role: db.RoleCommand, Version: versionText()}); err != nil {
		return errors.Join(err, s.Close())
	}
	kinds, err := newChannels(cfg)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	service := tenants.NewRegistry(tenants.Options{Store: s, Channels: kinds, IDs: s.IDs(), Now: s.Now})
	err = run(s, service)
	service.Wait()
	return errors.Join(err, s.Close())
}

// withStore does the same for a command that needs no tenants.
func (c *cli) withStore(ctx context.Context, run func(*store.Store) error) error {
	return c.withDatabase(ctx, func(s *store.Store, _ *tenants.Registry) error { return run(s) })
}
