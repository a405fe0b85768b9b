package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeyRingInit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyring")
	code, out, errs := command(t, nil, "key-ring", "init", "--out", path)
	require.Zero(t, code, errs)
	require.Empty(t, out, "the key ring is in the file, not in a terminal's history")
	require.Contains(t, errs, "Keep a copy")
	first, err := os.ReadFile(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	code, _, errs = command(t, nil, "key-ring", "init", "--out", path)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "exists")
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, first, again, "an existing key ring is never overwritten")

	_, printed, _ := command(t, nil, "key-ring", "init")
	require.NotEmpty(t, strings.TrimSpace(printed))
	require.NotEqual(t, string(first), printed)
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	environ := []string{"CARILLON_DATABASE_URL=" + filepath.Join(t.TempDir(), "c.db")}
	states := regexp.MustCompile(`(?m)^\s*\d+\s+\S+\s+(applied|pending)$`)
	for _, x := range []struct{ command, says, saysNot string }{
		{"status", "pending", "applied"}, {"up", "applied", "pending"}, {"status", "applied", "pending"}, {"up", "applied", "pending"},
	} {
		code, out, errs := command(t, environ, "migrate", x.command)
		require.Zero(t, code, errs)
		require.Regexp(t, states, out)
		require.Contains(t, out, x.says, x.command)
		require.NotContains(t, out, x.saysNot, x.command)
	}
}

// TestCommandsBesideTheServer makes tenants and keys while the server runs: they
// count at once.
func TestCommandsBesideTheServer(t *testing.T) {
	t.Parallel()
	i := install(t)
	s := i.serve()
	try := func(key, tenant string) error {
		x := &client{base: s.url, key: key, tenant: tenant, http: http.DefaultClient}
		return x.call(context.Background(), "GET", "/v1/devices", nil, nil)
	}
	require.Equal(t, "acme", i.must("tenant", "create", "acme", "--title", "Acme Inc."))
	made := i.must("tenant", "create")
	require.Regexp(t, `^ten_\w{13}$`, made)
	list := i.must("tenant", "list")
	require.Regexp(t, `(?m)^acme\s+Acme Inc\.\s+active\s+\d{4}-`, list)
	require.Contains(t, list, made)

	code, key, said := i.command("key", "create", "--tenant", "acme", "--scopes", "devices, read", "--expires", "1h")
	require.Zero(t, code, said)
	key = strings.TrimSpace(key)
	require.Regexp(t, `^crl_`, key)
	require.NoError(t, try(key, ""))
	id := regexp.MustCompile(`key_\w+`).FindString(said)
	require.NotEmpty(t, id, "what revoke wants is said")

	operator := i.must("key", "create", "--operator")
	require.NoError(t, try(operator, "acme"))
	require.NoError(t, try(operator, made))

	i.must("key", "revoke", id)
	// The server reads a key again after 5 s at the latest.
	eventually(t, func() bool { return try(key, "") != nil }, "the revoked key is refused")
	require.ErrorContains(t, try(key, ""), "unauthenticated")
	require.NoError(t, try(operator, "acme"))
}

func TestCommandsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.must("tenant", "create", "acme")
	for _, x := range []struct {
		args string
		code int
		says string
	}{
		{"tenant create acme", exitFailed, "acme"},
		{"tenant create Not+A+Name", exitFailed, "name"},
		{"tenant create a b", exitUsage, "at most 1"},
		{"key create", exitUsage, "--tenant NAME"},
		{"key create --tenant acme --operator", exitUsage, "--operator"},
		{"key create --tenant nobody", exitFailed, "tenant"},
		{"key create --tenant acme --scopes all", exitFailed, "scopes"},
		{"key create --tenant acme --scopes read --expires -1h", exitFailed, "expires_at"},
		{"key revoke", exitUsage, "1 arg"},
		{"tenant delete acme", exitUsage, "--yes"},
		{"tenant delete nobody --yes", exitFailed, "nobody"},
		{"erasures apply", exitFailed, ".erasures"},
		{"erasures apply --erasure-log off", exitUsage, "erasure_log"},
		{"key revoke acme", exitUsage, "key_"},
		{"key revoke key_0000000000001", exitFailed, "key"},
		{"send --title x", exitUsage, "CARILLON_KEY"},
		{"send --key k --url ftp://x --title x", exitUsage, "https://"},
		{"send --key k --url http://127.0.0.1:1 --title x", exitFailed, "cannot be reached"},
		{"send --key k --data {", exitUsage, "--data"},
		{"dead replay", exitUsage, "give a delivery"},
	} {
		code, _, errs := i.command(strings.Fields(x.args)...)
		require.Equal(t, x.code, code, "%s: %s", x.args, errs)
		require.Contains(t, errs, x.says, x.args)
	}
}
