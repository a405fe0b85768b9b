package store

import (
	"context"
	"errors"
	"fmt"
	urls "net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Scratch makes a database on a PostgreSQL server, for a measurement. url names
// the server and a user who may make databases; drop removes it again.
func Scratch(ctx context.Context, url string) (own string, drop func() error, err error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return "", nil, fmt.Errorf("the URL cannot be read: %w", err) // pgx hides the password
	}
	name := "scratch_of_carillon_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	say := func(ctx context.Context, statement string) error {
		conn, err := pgx.ConnectConfig(ctx, c.Copy())
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, statement+" "+pgx.Identifier{name}.Sanitize())
		return errors.Join(err, conn.Close(ctx))
	}
	if err := say(ctx, "CREATE DATABASE"); err != nil {
		return "", nil, fmt.Errorf("make a database: %w", err)
	}
	drop = func() error { return say(context.WithoutCancel(ctx), "DROP DATABASE") }
	u, err := urls.Parse(url)
	if err != nil { // several hosts, which package url does not know
		return "", nil, errors.Join(fmt.Errorf("give one host: %w", err), drop())
	}
	u.Path = "/" + name
	return u.String(), drop, nil
}
