package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestATenantIsDeletedBesideTheServer: its keys are refused within the time of
// the server's cache, and others go on.
func TestATenantIsDeletedBesideTheServer(t *testing.T) {
	t.Parallel()
	i := install(t)
	s := i.serve()
	key := func(tenant string) *client {
		i.must("tenant", "create", tenant)
		return &client{base: s.url, key: i.must("key", "create", "--tenant", tenant, "--scopes", "devices,send"), http: http.DefaultClient}
	}
	gone, stays := key("gone"), key("stays")
	list := func(x *client) error { return x.call(context.Background(), "GET", "/v1/devices", nil, nil) }
	require.NoError(t, list(gone))

	code, _, errs := i.command("tenant", "delete", "gone")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "0 active devices, 0 endpoints and 0 deliveries")
	require.NoError(t, list(gone), "nothing was done")
	require.Contains(t, i.must("tenant", "delete", "gone", "--yes"), "being deleted")
	require.Regexp(t, `(?m)^gone\s+deleting\s`, i.must("tenant", "list"))
	code, _, errs = i.command("key", "create", "--tenant", "gone", "--scopes", "send")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "being deleted")
	eventually(t, func() bool { return list(gone) != nil }, "the key is refused")
	require.ErrorContains(t, list(gone), "unauthenticated")
	require.NoError(t, list(stays))

	operator := &client{base: s.url, key: i.must("key", "create", "--operator"), http: http.DefaultClient}
	var shown struct{ State string }
	require.NoError(t, operator.call(context.Background(), "GET", "/v1/tenants/gone", nil, &shown))
	require.Equal(t, "deleting", shown.State)
}

// TestErasuresSurviveARestore: a backup from before an erasure is restored, and
// the log erases the user again.
func TestErasuresSurviveARestore(t *testing.T) {
	t.Parallel()
	i := install(t)
	db := filepath.Join(i.dir, "restored.db")
	i.environ = append(i.environ, "CARILLON_DATABASE_URL="+db)
	s := i.serve()
	i.must("tenant", "create", "acme")
	key := i.must("key", "create", "--tenant", "acme", "--scopes", "devices,erase")
	x := func(s *serving) *client { return &client{base: s.url, key: key, http: http.DefaultClient} }
	ctx := context.Background()
	devices := func(s *serving) (users []string) {
		var a listAnswer[struct{ User string }]
		require.NoError(t, x(s).call(ctx, "GET", "/v1/devices", nil, &a))
		for _, d := range a.Data {
			users = append(users, d.User)
		}
		return users
	}
	for _, user := range []string{"alice", "bob"} {
		require.NoError(t, x(s).call(ctx, "PUT", "/v1/devices", map[string]string{"user": user, "channel": "fcm", "token": user + "-token"}, nil))
	}
	require.Zero(t, s.stop())
	backup, err := os.ReadFile(db)
	require.NoError(t, err)

	s = i.serve()
	var receipt struct{ ID, State string }
	require.NoError(t, x(s).call(ctx, "DELETE", "/v1/users/alice", nil, &receipt))
	require.Equal(t, "running", receipt.State)
	require.Equal(t, []string{"bob"}, devices(s))
	require.NoError(t, x(s).call(ctx, "GET", "/v1/erasures/"+receipt.ID, nil, nil))
	require.Zero(t, s.stop())
	log, err := os.ReadFile(db + ".erasures")
	require.NoError(t, err)
	require.NotContains(t, string(log), "alice")
	require.Equal(t, 1, strings.Count(string(log), "\n"))

	require.NoError(t, os.WriteFile(db, backup, 0o600))
	require.Contains(t, i.must("erasures", "apply"), "1 users erased again, 0 tenants deleted again")
	require.Contains(t, i.must("erasures", "apply", db+".erasures"), "0 users erased again")
	require.Equal(t, []string{"bob"}, devices(i.serve()))
}
