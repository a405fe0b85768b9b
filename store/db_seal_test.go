package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// TestSecretsAreNowhereInTheFiles writes one of everything that is secret and
// searches the database and its write-ahead log for it.
func TestSecretsAreNowhereInTheFiles(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	ctx, who := context.Background(), tenants.Change{Actor: "test", Action: "test"}
	tenant := o.IDs.Next()
	require.NoError(t, s.CreateTenant(ctx, tenants.Tenant{ID: tenant, Name: "seen-tenant-name"}, who))
	const credential, endpoint, address, userKey, content = "unseen-credential-secret", "unseen-endpoint-secret", "https://unseen-host.example/unseen-path", "unseen-user-key-secret", "unseen-content"
	c, err := s.PutCredential(ctx, tenants.Credential{Tenant: tenant, App: "default", Channel: channels.FCM},
		channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte(credential)}, tenants.PutOptions{Rotate: true}, who)
	require.NoError(t, err)
	e := webhooks.Endpoint{Tenant: tenant, ID: o.IDs.Next(), URL: address, Status: webhooks.Active, Secrets: []webhooks.Secret{{Key: []byte(endpoint)}}}
	require.NoError(t, s.CreateEndpoint(ctx, e, "test"))
	key := tenants.UserKey{ID: o.IDs.Next(), Tenant: tenant, Name: "k", Secret: []byte(userKey)}
	require.NoError(t, s.CreateUserKey(ctx, key, who))
	ntf := o.IDs.Next()
	_, err = s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{{ID: ntf, Tenant: tenant, CreatedAt: o.clock.Now(),
		Body: []byte(`{"title":"` + content + `"}`), Rows: []delivery.Row{{Tenant: tenant, Notification: ntf, Target: 1, State: delivery.Pending}}}}})
	require.NoError(t, err)

	var all []byte
	files, err := filepath.Glob(o.URL + "*")
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		all = append(all, b...)
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s is for its owner alone", f)
	}
	for _, seen := range []string{"seen-tenant-name"} {
		require.True(t, bytes.Contains(all, []byte(seen)), "the search works: %s is found", seen)
	}
	for _, secret := range []string{credential, endpoint, address, "unseen-host.example", userKey, content} {
		for _, form := range [][]byte{[]byte(secret), jsonOf(t, []byte(secret)), []byte(strconv.Quote(secret))} {
			require.False(t, bytes.Contains(all, form), "%s is found in the files", secret)
		}
	}

	opened, err := s.OpenCredential(ctx, tenant, c.ID)
	require.NoError(t, err)
	require.Equal(t, credential, string(opened.Secret))
	body, err := s.Content(ctx, tenant, ntf)
	require.NoError(t, err)
	require.Contains(t, string(body), content)
}

// jsonOf is how JSON writes bytes: in base64, without its quotes.
func jsonOf(t *testing.T, b []byte) []byte {
	t.Helper()
	out, err := json.Marshal(b)
	require.NoError(t, err)
	return bytes.Trim(out, `"`)
}

func TestAnotherKeyRingOpensNothing(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	ctx, who := context.Background(), tenants.Change{Actor: "test", Action: "test"}
	tenant := o.IDs.Next()
	require.NoError(t, s.CreateTenant(ctx, tenants.Tenant{ID: tenant, Name: "acme"}, who))
	key := tenants.UserKey{ID: o.IDs.Next(), Tenant: tenant, Secret: []byte("secret")}
	require.NoError(t, s.CreateUserKey(ctx, key, who))
	require.NoError(t, s.Close())

	ring, text, err := db.NewKeyRing()
	require.NoError(t, err)
	right := o.KeyRing
	o.KeyRing = ring
	s = open(t, o)
	_, err = s.UserKey(ctx, key.ID)
	require.ErrorContains(t, err, "do not open with this key ring")
	require.Error(t, s.CreateUserKey(ctx, tenants.UserKey{ID: o.IDs.Next(), Tenant: tenant, Secret: []byte("x")}, who), "nothing is sealed with it either")
	require.NoError(t, s.Close())

	o.KeyRing = right
	got, err := open(t, o).UserKey(ctx, key.ID)
	require.NoError(t, err)
	require.Equal(t, key.Secret, got.Secret)

	_, err = db.ParseKeyRing(" " + text + "\n")
	require.NoError(t, err)
	for _, bad := range []string{"", "?", text[4:], "AAAA"} {
		_, err = db.ParseKeyRing(bad)
		require.ErrorContains(t, err, "key ring", bad)
	}
	file := filepath.Join(t.TempDir(), "ring")
	_, err = db.ReadKeyRing(file)
	require.Error(t, err)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	_, err = db.ReadKeyRing(file)
	require.NoError(t, err)
}

// TestASealedValueOpensInItsRowOnly copies a sealed value to another row of the
// same tenant.
func TestASealedValueOpensInItsRowOnly(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	ctx, who := context.Background(), tenants.Change{Actor: "test", Action: "test"}
	tenant := o.IDs.Next()
	require.NoError(t, s.CreateTenant(ctx, tenants.Tenant{ID: tenant, Name: "acme"}, who))
	a, b := tenants.UserKey{ID: o.IDs.Next(), Tenant: tenant, Secret: []byte("a")}, tenants.UserKey{ID: o.IDs.Next(), Tenant: tenant, Secret: []byte("b")}
	require.NoError(t, s.CreateUserKey(ctx, a, who))
	require.NoError(t, s.CreateUserKey(ctx, b, who))
	raw(t, o, "UPDATE user_keys SET sealed=(SELECT sealed FROM user_keys WHERE id=?) WHERE id=?", a.ID, b.ID)
	_, err := s.UserKey(ctx, b.ID)
	require.ErrorContains(t, err, "copied from elsewhere")
	_, err = s.UserKey(ctx, a.ID)
	require.NoError(t, err)
}

func TestOneEngineAtATime(t *testing.T) {
	t.Parallel()
	o := options(t)
	first := open(t, o)
	require.NoError(t, first.LockEngine())
	second := open(t, o) // the CLI beside a server is fine
	err := second.LockEngine()
	require.ErrorContains(t, err, "pid "+strconv.Itoa(os.Getpid()))
	require.NoError(t, first.Close())
	require.NoError(t, second.LockEngine(), "the lock ends with its holder")
}
