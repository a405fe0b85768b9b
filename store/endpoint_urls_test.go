package store_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

func (x *resealing) endpoint(s *store.Store, tenant ids.ID, url string) webhooks.Endpoint {
	x.Helper()
	now := x.o.clock.Now()
	e := webhooks.Endpoint{Tenant: tenant, ID: x.o.IDs.Next(), URL: url, Status: webhooks.Active, EventTypes: []string{"*"}, CreatedAt: now, UpdatedAt: now,
		Secrets: []webhooks.Secret{{Key: []byte("0123456789012345678901234"), CreatedAt: now}}}
	require.NoError(x, s.CreateEndpoint(x.Context(), e, "test"))
	return e
}

// stored is what the row of an endpoint holds.
func (x *resealing) stored(e webhooks.Endpoint) (plain string, sealed bool) {
	x.Helper()
	var b []byte
	require.NoError(x, rawDB(x.T, x.o).QueryRow(numbered(x.o, "SELECT url,url_sealed FROM endpoints WHERE id=?"), int64(e.ID)).Scan(&plain, &b))
	require.NotContains(x, string(b), "example")
	return plain, b != nil
}

// reads looks at an endpoint in every way.
func (x *resealing) reads(s *store.Store, e webhooks.Endpoint) {
	x.Helper()
	got, err := s.Endpoint(x.Context(), e.Tenant, e.ID)
	require.NoError(x, err)
	require.Equal(x, e.URL, got.URL)
	now, err := s.Target(x.Context(), e.Tenant, e.ID, channels.Webhook)
	require.NoError(x, err)
	require.Equal(x, e.URL, now.Target.Address)
	list, err := s.Endpoints(x.Context(), e.Tenant, e.ID-1, 1)
	require.NoError(x, err)
	require.Equal(x, e.URL, list[0].URL)
	for url, is := range map[string]bool{e.URL: true, "https://other.example": false} {
		_, current, err := s.PutWait(x.Context(), delivery.NoteWait{URL: url, Wait: delivery.Wait{Tenant: e.Tenant, Subject: e.ID, Channel: channels.Webhook,
			Cause: delivery.WaitFailing, Since: x.o.clock.Now(), NotedAt: x.o.clock.Now()}})
		require.NoError(x, err)
		require.Equal(x, is, current)
	}
}

// TestURLsAreSealedOnceNobodyReadsThemInClear: on a database that versions before may
// be on they are written as those read them; the job closes it to them and seals.
func TestURLsAreSealedOnceNobodyReadsThemInClear(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	s := x.as(x.o.KeyRing)
	tenant, gone := x.tenant(s, "a"), x.tenant(s, "gone")
	first := x.endpoint(s, tenant, "https://hooks.example/new-installation")
	plain, sealed := x.stored(first)
	require.Equal(t, " true", fmt.Sprint(plain, " ", sealed), "a new installation begins sealed")
	x.reads(s, first)

	x.exec("UPDATE schema_info SET min_reader=1")
	old, changed, lost := x.endpoint(s, tenant, "https://hooks.example/old"), x.endpoint(s, tenant, "https://hooks.example/changed"), x.endpoint(s, gone, "https://hooks.example/gone")
	plain, sealed = x.stored(old)
	require.Equal(t, old.URL+" false", fmt.Sprint(plain, " ", sealed))
	x.reads(s, old)
	_, err := s.DeleteTenant(t.Context(), gone, tenants.Change{Actor: "test", Action: "tenant.delete"})
	require.NoError(t, err)
	require.Equal(t, 3, s.Examine(t.Context(), false).ClearURLs)

	made, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	require.Equal(t, 1+4, made.Total, "tenants and endpoints")
	j, err := x.run(s)
	require.NoError(t, err)
	require.Equal(t, "done 3 2 0", fmt.Sprint(j.State, j.Done, j.Skipped, j.Failed))
	require.JSONEq(t, `{"urls_sealed":2}`, string(j.Result))
	for _, e := range []webhooks.Endpoint{first, old, changed} {
		plain, sealed = x.stored(e)
		require.Equal(t, " true", fmt.Sprint(plain, " ", sealed))
		x.reads(s, e)
	}
	plain, _ = x.stored(lost)
	require.Equal(t, lost.URL, plain, "what is left of a tenant without keys goes with it")

	was := changed.UpdatedAt
	changed.URL, changed.UpdatedAt = "https://hooks.example/again", was.Add(1e6)
	require.NoError(t, s.UpdateEndpoint(t.Context(), changed, was, webhooks.Edit{Actor: "test"}))
	plain, sealed = x.stored(changed)
	require.Equal(t, " true", fmt.Sprint(plain, " ", sealed))
	x.reads(s, changed)
	x.reads(s, x.endpoint(s, tenant, "https://hooks.example/new"))
	require.EqualValues(t, 15, s.Examine(t.Context(), false).Schema.MinReader, "versions before may not come back")
}

// TestSealingURLsGoesOnWhereItWas: it takes its endpoints a thousand at a time.
func TestSealingURLsGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	s := x.as(x.o.KeyRing)
	tenant := x.tenant(s, "a")
	x.exec("UPDATE schema_info SET min_reader=1")
	last := x.endpoint(s, tenant, "https://hooks.example/last")
	require.NoError(t, s.Do(t.Context(), db.MaxBatch, func(tx *db.Tx) error {
		for i := range db.MaxBatch + 5 {
			if err := tx.Exec(`INSERT INTO endpoints (id,tenant_id,user_id,url,description,event_types,status,reason,sealed,created_at,updated_at)
 SELECT id-?,tenant_id,user_id,url,description,event_types,status,reason,sealed,created_at,updated_at FROM endpoints WHERE id=?`, i+1, last.ID); err != nil {
				return err
			}
		}
		return nil
	}))
	_, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	j, err := x.run(s)
	require.NoError(t, err)
	require.Equal(t, 1+1+db.MaxBatch+5, j.Done)
	require.Zero(t, s.Examine(t.Context(), false).ClearURLs)
	x.reads(s, last)
}
