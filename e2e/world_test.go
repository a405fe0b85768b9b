package e2e_test

import (
	"database/sql"
	"encoding/json"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store/pgtest"
)

// world is a server under its default rules of what may be reached, with two
// tenants: acme has one of everything, other nothing.
type world struct {
	tenant
	b              *binary
	sim            *simulator.Simulator
	db             *sql.DB
	countAll       string // SQL
	other          string // key
	operator       string // key
	signer         userKey
	otherSigner    userKey
	idempotencyKey string
	ids            map[string]string // of acme, by what stands behind /v1/
}

func newWorld(t *testing.T) *world {
	t.Helper()
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	b := install(t, sim)
	for _, section := range []string{"WEBPUSH", "WEBHOOK"} {
		b.env = append(b.env, "CARILLON_CHANNELS_"+section+"_ALLOW=", "CARILLON_CHANNELS_"+section+"_ALLOW_HTTP=", "CARILLON_CHANNELS_"+section+"_ANY_PORT=")
	}
	b.env = append(b.env, "CARILLON_CHANNELS_WEBPUSH_ANY_HOST=")
	b.start()
	w := &world{tenant: newTenant(t, b), b: b, sim: sim, idempotencyKey: "once", ids: map[string]string{}}
	b.run("tenant", "create", "other")
	w.other = b.run("key", "create", "--tenant", "other", "--scopes", "admin")
	w.operator = b.run("key", "create", "--operator")
	// The drivers come with package store.
	driver, source := "sqlite", (&url.URL{Scheme: "file", Opaque: b.database, RawQuery: "mode=ro"}).String()
	if pgtest.Postgres() {
		driver, source = "pgx", b.database
	}
	w.db, err = sql.Open(driver, source)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.db.Close()) })
	w.countAll = countQuery(t, w.db)
	w.fill()
	return w
}

// fill gives acme one of everything.
func (w *world) fill() {
	put := func(name, method, path string, in any) {
		w.t.Helper()
		var made struct{ ID string }
		w.do(method, path, in, &made)
		w.ids[name] = made.ID
	}
	put("keys", "POST", "/v1/keys", map[string]any{"name": "x", "scopes": []string{"read"}})
	w.do("POST", "/v1/user-keys", map[string]any{"name": "x"}, &w.signer)
	w.ids["user-keys"] = w.signer.ID
	tenant{t: w.t, url: w.url, key: w.other}.do("POST", "/v1/user-keys", map[string]any{"name": "x"}, &w.otherSigner)
	put("credentials", "PUT", "/v1/apps/default/credentials/fcm", map[string]any{"service_account": json.RawMessage(w.sim.FCM().ServiceAccount)})
	apns := w.sim.APNs()
	w.do("PUT", "/v1/apps/default/credentials/apns", map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}}, nil)
	newVAPIDKey(w.t).put(w.tenant)
	put("devices", "PUT", "/v1/devices", map[string]any{"user": "alice", "channel": "fcm", "token": "alices-phone"})
	w.do("PUT", "/v1/devices", map[string]any{"user": "carol", "subscription": map[string]any{
		"endpoint": "https://updates.push.services.mozilla.com/wpush/v2/carol", "keys": map[string]any{"p256dh": goodPoint, "auth": goodAuth}}}, nil)
	put("endpoints", "POST", "/v1/endpoints", map[string]any{"url": "https://example.com/hook", "event_types": []string{"order.*"}})
	var got accepted
	w.sendOnce(map[string]any{"to": map[string]any{"users": []string{"alice"}}, "title": "Hello"}, w.idempotencyKey, &got)
	w.ids["notifications"], w.ids["deliveries"] = got.ID, got.Deliveries[0].ID
	put("jobs", "POST", "/v1/dead-letters/replay", map[string]any{"filter": map[string]any{"reason": "exhausted"}})
	eventually(w.t, func() bool {
		var j struct{ State string }
		w.do("GET", "/v1/jobs/"+w.ids["jobs"], nil, &j)
		return j.State == "done"
	}, "the job has nothing to do")
	put("erasures", "DELETE", "/v1/users/nobody-known", nil)
	eventually(w.t, func() bool {
		var d struct{ State string }
		w.do("GET", "/v1/deliveries/"+w.ids["deliveries"], nil, &d)
		return d.State == "sent"
	}, "the one delivery is sent, so that nothing is in motion")
}

// rows counts the rows of every table.
func (w *world) rows(t *testing.T) map[string]int {
	t.Helper()
	rows, err := w.db.QueryContext(t.Context(), w.countAll)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	all := map[string]int{}
	for rows.Next() {
		var name string
		var n int
		require.NoError(t, rows.Scan(&name, &n))
		all[name] = n
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, all)
	return all
}

// countQuery is SQL that gives the name and size of every table.
func countQuery(t *testing.T, db *sql.DB) (query string) {
	t.Helper()
	selects := `SELECT group_concat('SELECT ''' || name || ''', count(*) FROM "' || name || '"', ' UNION ALL ')
		FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' AND name<>'nodes'`
	if pgtest.Postgres() {
		selects = `SELECT string_agg('SELECT ''' || table_name || ''', count(*) FROM "' || table_name || '"', ' UNION ALL ')
		FROM information_schema.tables WHERE table_schema='public' AND table_name<>'nodes'`
	}
	require.NoError(t, db.QueryRowContext(t.Context(), selects).Scan(&query))
	return query
}

// lists is everything that the API shows of acme, but the job of the erasure, which
// looks again after two minutes.
func (w *world) lists() map[string]any {
	w.t.Helper()
	all := map[string]any{}
	for _, path := range []string{"/v1/tenant", "/v1/keys", "/v1/user-keys", "/v1/apps", "/v1/credentials", "/v1/devices", "/v1/endpoints",
		"/v1/deliveries", "/v1/dead-letters", "/v1/holds", "/v1/jobs?kind=dead_letter_replay", "/v1/users/alice/notifications", "/v1/users/mallory/devices"} {
		var list map[string]any
		w.do("GET", path, nil, &list)
		rows, _ := list["data"].([]any)
		for _, r := range rows {
			delete(r.(map[string]any), "last_used_at")
		}
		all[path] = list
	}
	return all
}
