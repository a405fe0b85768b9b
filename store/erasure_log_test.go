package store_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/erasure"
	"github.com/carillonhq/carillon/tenants"
)

// restorable is a store with a log of erasures, which can be set back to a copy.
type restorable struct {
	*testing.T
	*store.Store
	o   testOptions
	log string
}

func newRestorable(t *testing.T) *restorable {
	t.Helper()
	o := options(t)
	o.ErasureLog = filepath.Join(t.TempDir(), "logs", "c.erasures")
	return &restorable{T: t, Store: open(t, o), o: o, log: o.ErasureLog}
}

func (r *restorable) tenant(name string) ids.ID {
	r.Helper()
	x := tenants.Tenant{ID: r.o.IDs.Next(), Name: name, CreatedAt: r.o.clock.Now(), UpdatedAt: r.o.clock.Now()}
	require.NoError(r, r.CreateTenant(r.Context(), x, tenants.Change{Actor: "test", Action: "tenant.create"}))
	return x.ID
}

func (r *restorable) user(tenant ids.ID, name string) {
	r.Helper()
	_, err := r.UpsertDevice(r.Context(), devices.Device{Tenant: tenant, ID: r.o.IDs.Next(), User: name, App: "default", Channel: channels.FCM,
		Target: channels.Target{Kind: channels.FCMToken, Address: name + "-token"}}, devices.Caller{Actor: "key_test"})
	require.NoError(r, err)
}

func (r *restorable) erase(tenant ids.ID, user string) {
	r.Helper()
	_, _, err := r.EraseUser(r.Context(), tenant, user, "key_1")
	require.NoError(r, err)
}

func (r *restorable) users(tenant ids.ID) []string {
	r.Helper()
	list, err := r.Devices(r.Context(), tenant, devices.Filter{Limit: 500})
	require.NoError(r, err)
	names := []string{}
	for _, d := range list {
		names = append(names, d.User)
	}
	return names
}

// backup copies the database; restore puts the copy in its place.
func (r *restorable) backup() (restore func()) {
	r.Helper()
	copied := filepath.Join(r.TempDir(), "copy.db")
	exec(r.T, r.o.URL, "VACUUM INTO '"+copied+"'")
	return func() {
		r.Helper()
		require.NoError(r, r.Close())
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(r.o.URL + suffix)
		}
		b, err := os.ReadFile(copied)
		require.NoError(r, err)
		require.NoError(r, os.WriteFile(r.o.URL, b, 0o600))
		r.Store = open(r.T, r.o)
	}
}

func (r *restorable) apply() erasure.Reapplied {
	r.Helper()
	f, err := os.Open(r.log)
	require.NoError(r, err)
	defer func() { _ = f.Close() }()
	done, err := r.ApplyErasures(r.Context(), f)
	require.NoError(r, err)
	return done
}

func TestARestoredBackupForgetsWhoWasErasedSince(t *testing.T) {
	t.Parallel()
	r := newRestorable(t)
	acme, other, gone := r.tenant("acme"), r.tenant("other"), r.tenant("gone")
	for _, name := range []string{"alice", "bob", "carol"} {
		r.user(acme, name)
	}
	r.user(other, "alice")
	r.user(gone, "dave")
	scheduled := delivery.Accepted{ID: r.o.IDs.Next(), Tenant: acme, Scheduled: true, SendAt: r.o.clock.Now().Add(time.Hour), Body: []byte(`{"to":{"users":["erin"]},"title":"Hello"}`)}
	_, err := r.Accept(r.Context(), delivery.Batch{Tenant: acme, Accepted: []delivery.Accepted{scheduled}})
	require.NoError(t, err)
	restoreOld := r.backup()

	r.o.clock.Advance(time.Minute)
	r.erase(acme, "alice")
	r.erase(acme, "carol")
	r.erase(acme, "erin") // whom nothing but the scheduled notification names
	_, err = r.DeleteTenant(r.Context(), gone, tenants.Change{Actor: "test", Action: "tenant.delete"})
	require.NoError(t, err)
	r.o.clock.Advance(time.Minute)
	r.user(acme, "carol") // who comes back
	restoreNew := r.backup()

	text, err := os.ReadFile(r.log)
	require.NoError(t, err)
	for _, name := range []string{"alice", "carol", "erin"} {
		require.NotContains(t, string(text), name)
	}
	info, err := os.Stat(r.log)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.Equal(t, erasure.Reapplied{Lines: 4}, r.apply(), "here everything has been done")
	require.ElementsMatch(t, []string{"bob", "carol"}, r.users(acme))

	restoreNew()
	require.Equal(t, erasure.Reapplied{Lines: 4}, r.apply(), "this backup is newer than all of it")
	require.ElementsMatch(t, []string{"bob", "carol"}, r.users(acme))

	restoreOld()
	require.ElementsMatch(t, []string{"alice", "bob", "carol"}, r.users(acme))
	require.Equal(t, erasure.Reapplied{Lines: 4, Users: 3, Tenants: 1}, r.apply())
	require.Equal(t, []string{"bob"}, r.users(acme))
	require.Equal(t, []string{"alice"}, r.users(other), "another tenant's user of the same name")
	left, err := r.Tenant(r.Context(), gone)
	require.NoError(t, err)
	require.True(t, left.Deleting())
	require.Equal(t, 0, r.apply().Tenants, "once")
	again, err := os.ReadFile(r.log)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again), "what comes from the log is not written into it again")
	list, err := r.Erasures(r.Context(), acme, 0, 10)
	require.NoError(t, err)
	require.Equal(t, delivery.ErasureRepeated, list[0].Origin)
}

func TestNothingIsErasedThatTheLogDoesNotHave(t *testing.T) {
	t.Parallel()
	r := newRestorable(t)
	acme := r.tenant("acme")
	r.user(acme, "alice")
	require.NoError(t, os.MkdirAll(r.log, 0o700)) // a folder: it cannot be written
	_, _, err := r.EraseUser(r.Context(), acme, "alice", "key_1")
	require.Equal(t, problem.Unavailable, problem.CodeOf(err))
	_, err = r.DeleteTenant(r.Context(), acme, tenants.Change{Actor: "test", Action: "tenant.delete"})
	require.Equal(t, problem.Unavailable, problem.CodeOf(err))
	require.Equal(t, []string{"alice"}, r.users(acme))
	list, err := r.Erasures(r.Context(), acme, 0, 10)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestALineThatACrashCutOffSpoilsNoOther(t *testing.T) {
	t.Parallel()
	r := newRestorable(t)
	acme := r.tenant("acme")
	r.user(acme, "alice")
	require.NoError(t, os.MkdirAll(filepath.Dir(r.log), 0o700))
	require.NoError(t, os.WriteFile(r.log, []byte(`{"v":1,"at":"2026-`), 0o600))
	restore := r.backup()
	r.o.clock.Advance(time.Minute)
	r.erase(acme, "alice")
	restore()
	require.Equal(t, erasure.Reapplied{Lines: 2, Unreadable: 1, Users: 1}, r.apply())

	line := func(v any) string { b, err := json.Marshal(v); require.NoError(t, err); return string(b) + "\n" }
	_, err := r.ApplyErasures(context.Background(), strings.NewReader(line(map[string]any{"v": 2, "tenant": "ten_x"})))
	require.ErrorContains(t, err, "newer version")
	done, err := r.ApplyErasures(context.Background(), bytes.NewReader([]byte(line(map[string]any{"v": 1, "tenant": "ten_x"})+line(map[string]any{"v": 1, "tenant": acme.Format(ids.Tenant)})+"\n")))
	require.NoError(t, err)
	require.Equal(t, erasure.Reapplied{Lines: 2, Unreadable: 2}, done)
}

// TestTheSubjectOfAUserNeverChanges: a log must find the same users in every
// version to come.
func TestTheSubjectOfAUserNeverChanges(t *testing.T) {
	t.Parallel()
	const (
		keyRing = "CJrhhtwHEmQKWAowdHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUuY3J5cHRvLnRpbmsuQWVzR2NtS2V5EiIaIM2e9AMzJqGfQlI8vPF47xi5DocWmOh8iiBDnft+DmuZGAEQARia4YbcByAB"
		keyset  = "Eo0BAXuBsJoG2bbsEG83xBVaGz7eMIrzDn8RhLJUt+zux8ZnsO8VSpr4hErfd8FfeWwj2WCs27f2D1Mpaq1GEDBygrlW3B8DzFfj+L/zxJEYOfgqMY/ZSHU9c2DlGX/zYt6JK2mSI9/0CyObyvdgJL3Kf6RagTyzKIKKjdAYjciHFfUy7Xj81mEsuR5G06wq"
		alice   = "6a5b93e2678fe265153053e84bad52b71bc5c621124954e57c53ac56474733be"
	)
	o := options(t)
	ring, err := db.ParseKeyRing(keyRing)
	require.NoError(t, err)
	sealed, err := base64.StdEncoding.DecodeString(keyset)
	require.NoError(t, err)
	o.KeyRing = ring
	s := open(t, o)
	exec(t, o.URL, fmt.Sprintf("INSERT INTO tenants (id,name,title,settings,keyset,created_at,updated_at) VALUES (4242,'acme','','{}',x'%x',1,1)", sealed))
	e, _, err := s.EraseUser(t.Context(), 4242, "alice", "test")
	require.NoError(t, err)
	require.Equal(t, alice, e.Subject)
}
