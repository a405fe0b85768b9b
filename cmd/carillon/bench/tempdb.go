package bench

import (
	"context"
	"errors"
	"fmt"
	urls "net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// createTempDatabase makes a database on a PostgreSQL server. url names the server
// and a user who may make databases; drop removes it again.
func createTempDatabase(ctx context.Context, url string) (temporary string, drop func() error, err error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return "", nil, errors.New("the URL cannot be read") // the error may show the password
	}
	name := "carillon_bench_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	execute := func(ctx context.Context, statement string) error {
		conn, err := pgx.ConnectConfig(ctx, c.Copy())
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, statement+" "+pgx.Identifier{name}.Sanitize())
		return errors.Join(err, conn.Close(ctx))
	}
	if err := execute(ctx, "CREATE DATABASE"); err != nil {
		return "", nil, fmt.Errorf("make a database: %w", err)
	}
	drop = func() error { return execute(context.WithoutCancel(ctx), "DROP DATABASE") }
	u, err := urls.Parse(url)
	if err != nil { // several hosts, which package url does not know
		return "", nil, errors.Join(errors.New("give a URL with one host"), drop())
	}
	u.Path = "/" + name
	return u.String(), drop, nil
}
