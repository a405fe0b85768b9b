// Package storetest is the contract of everything that the engine and the
// registers expect of a database. Every store passes it unchanged.
package storetest

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// Store is what a database has to offer.
type Store interface {
	WrongPairs(ctx context.Context) (map[string]int, error)
	CountDevices(ctx context.Context) (map[ids.ID]int, error)
	CountEndpoints(ctx context.Context) (map[ids.ID]int, error)
	delivery.Store
	delivery.Reader
	devices.Store
	tenants.Store
	webhooks.Store
	jobs.Store
	jobs.Registry
}

// Opened is an empty store. It must tell the time by Clock and take its ids from
// IDs.
type Opened struct {
	Store Store
	Clock *Clock
	IDs   *ids.Generator
	// Join opens the same database once more, as another node, until it leaves.
	Join func(role string) (s Store, leave func())
	// Dump reads the whole database, behind the store.
	Dump func(*testing.T) Dump
	// Exec writes behind the store, with ? for parameters.
	Exec func(t *testing.T, query string, args ...any)
	// Files is what the files of the database hold; nil where they cannot be read.
	Files func(*testing.T) []byte
}

// Dump is everything in a database, by table.
type Dump map[string]Table

// Table is a table with its rows. Numbers are int64, texts string, bytes []byte.
type Table struct {
	Columns []string
	Rows    []map[string]any
}

// Clock is a clock that tests move.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock starts at a fixed moment.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the time.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
}

// Run runs the contract. open is called once per test, which runs in parallel
// with the others.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	for _, group := range []map[string]func(*kit){
		acceptTests(), newestTests(), fanOutTests(), claimTests(), finishTests(), holdTests(), commandTests(), purgeTests(), readTests(),
		deviceTests(), deviceListTests(), deviceHistoryTests(), deviceRestoreTests(), endpointTests(), tenantTests(), credentialTests(), credentialVersionTests(), tenancyTests(), modelTests(), jobTests(), replayTests(),
		erasureTests(), deletionTests(), appDeletionTests(), affectedTests(), upkeepTests(), pauseTests(), sharedTests(), waitTests(), bringForwardTests(),
	} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(newKit(t, open(t)))
			})
		}
	}
}

// change is who makes the changes of these tests.
func change(action string) tenants.Change { return tenants.Change{Actor: "test", Action: action} }

// kit is a store with one tenant in it.
type kit struct {
	*testing.T
	Opened
	ctx    context.Context
	tenant ids.ID
}

func newKit(t *testing.T, o Opened) *kit {
	k := &kit{T: t, Opened: o, ctx: context.Background()}
	k.tenant = k.newTenant("acme")
	return k
}

func (k *kit) ok(err error) {
	k.Helper()
	require.NoError(k, err)
}

func (k *kit) code(want problem.Code, err error) {
	k.Helper()
	require.Error(k, err)
	require.Equal(k, want, problem.CodeOf(err), "%v", err)
}

func (k *kit) newTenant(name string) ids.ID {
	k.Helper()
	t := tenants.Tenant{ID: k.IDs.Next(), Name: name, CreatedAt: k.Clock.Now(), UpdatedAt: k.Clock.Now()}
	k.ok(k.Store.CreateTenant(k.ctx, t, change("tenant.create")))
	return t.ID
}

func (k *kit) credential(kind channels.Kind, qualifier string) tenants.Credential {
	k.Helper()
	c, err := k.put(kind, qualifier)
	k.ok(err)
	return c
}

func (k *kit) put(kind channels.Kind, qualifier string) (tenants.Credential, error) {
	return k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: kind},
		channels.Credential{Settings: json.RawMessage(`{"project":"p"}`), Secret: []byte("credential-secret"), Qualifier: qualifier}, tenants.PutOptions{Rotate: true},
		change("credential.put"))
}

func (k *kit) device(user, address string, edit ...func(*devices.Device)) devices.Device {
	k.Helper()
	return k.register(user, address, edit...).Device
}

func (k *kit) register(user, address string, edit ...func(*devices.Device)) devices.Registered {
	k.Helper()
	d := devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: user, App: "default", Channel: channels.FCM,
		Target: channels.Target{Kind: channels.FCMToken, Address: address, OS: "android"}}
	for _, e := range edit {
		e(&d)
	}
	r, err := k.Store.UpsertDevice(k.ctx, d, devices.Caller{Actor: "key_test"})
	k.ok(err)
	return r
}

func (k *kit) endpoint(edit ...func(*webhooks.Endpoint)) webhooks.Endpoint {
	k.Helper()
	now := k.Clock.Now()
	e := webhooks.Endpoint{Tenant: k.tenant, ID: k.IDs.Next(), URL: "https://hooks.example.com/in", EventTypes: []string{"*"},
		Status: webhooks.Active, Secrets: []webhooks.Secret{{Key: []byte("endpoint-secret-of-32-bytes-long"), CreatedAt: now}}, CreatedAt: now, UpdatedAt: now}
	for _, f := range edit {
		f(&e)
	}
	k.ok(k.Store.CreateEndpoint(k.ctx, e, "test"))
	return e
}

// body is the content of notifications here: it must be a delivery.Request.
const body = `{"title":"content-of-the-notification"}`

// notification makes one with a pending row, due now, for each target.
func (k *kit) notification(targets ...ids.ID) delivery.Accepted {
	now := k.Clock.Now()
	a := delivery.Accepted{ID: k.IDs.Next(), Tenant: k.tenant, Lane: delivery.Regular, CreatedAt: now, Body: []byte(body)}
	for _, t := range targets {
		a.Rows = append(a.Rows, delivery.Row{Tenant: a.Tenant, Notification: a.ID, Target: t, Channel: channels.FCM, Lane: a.Lane,
			State: delivery.Pending, DueAt: now, ExpiresAt: now.Add(time.Hour), Round: 1, UpdatedAt: now})
	}
	return a
}

func (k *kit) accept(list ...delivery.Accepted) {
	k.Helper()
	stored, err := k.Store.Accept(k.ctx, delivery.Batch{Tenant: list[0].Tenant, Accepted: list})
	k.ok(err)
	require.Nil(k, stored)
}

// accepted stores a notification to each of n made-up targets, at once due.
func (k *kit) accepted(n int, edit ...func(*delivery.Accepted)) delivery.Accepted {
	k.Helper()
	targets := make([]ids.ID, n)
	for i := range targets {
		targets[i] = k.IDs.Next()
	}
	a := k.notification(targets...)
	for _, e := range edit {
		e(&a)
	}
	k.accept(a)
	return a
}

func onWebhook(a *delivery.Accepted) {
	for i := range a.Rows {
		a.Rows[i].Channel = channels.Webhook
	}
}

func (k *kit) claim(edit ...func(*delivery.ClaimOrder)) []delivery.Claimed {
	k.Helper()
	now := k.Clock.Now()
	o := delivery.ClaimOrder{Lane: delivery.Regular, Limit: 5000, PerTenant: 5000, Now: now, Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next())}
	for _, e := range edit {
		e(&o)
	}
	list, err := k.Store.Claim(k.ctx, o)
	k.ok(err)
	return list
}

// finish writes and waits.
func (k *kit) finish(f delivery.Finish) delivery.FinishResult {
	k.Helper()
	if f.Now.IsZero() {
		f.Now = k.Clock.Now()
	}
	if f.StartedAt.IsZero() {
		f.StartedAt = f.Now
	}
	if f.ExpiresAt.IsZero() {
		f.ExpiresAt = f.Row.ExpiresAt
	}
	done := make(chan delivery.FinishResult, 1)
	k.Store.Finish(f, func(r delivery.FinishResult) { done <- r })
	r := <-done
	k.ok(r.Err)
	return r
}

// attempt is the next attempt of a row.
func (k *kit) attempt(r delivery.Row, o channels.Outcome, code string) *delivery.Attempt {
	return &delivery.Attempt{Number: r.Attempts + 1, At: k.Clock.Now(), Duration: 5 * time.Millisecond, Outcome: o, Code: code,
		Detail: "detail of " + strconv.Itoa(r.Attempts+1), Status: 200 + r.Attempts, ProviderID: "p"}
}

func (k *kit) view(r delivery.Row) delivery.View {
	k.Helper()
	v, err := k.Store.Delivery(k.ctx, k.tenant, r.Notification, r.Target)
	k.ok(err)
	return v
}

func (k *kit) is(r delivery.Row, s delivery.State, why delivery.Reason) delivery.View {
	k.Helper()
	v := k.view(r)
	require.Equal(k, s.String()+" "+why.String(), v.State.String()+" "+v.Reason.String())
	return v
}

// dies finishes a claimed row as a dead letter.
func (k *kit) dies(c delivery.Claimed) {
	k.Helper()
	k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Dead, Reason: delivery.Rejected, Spent: c.Spent + 1},
		Attempt: k.attempt(c.Row, channels.Rejected, "no")})
}

func (k *kit) sends(c delivery.Claimed) {
	k.Helper()
	k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Sent, Spent: c.Spent + 1},
		Attempt: k.attempt(c.Row, channels.Accepted, "ok")})
}

// holds lists those of the tenant.
func (k *kit) holds() []delivery.Hold {
	k.Helper()
	list, err := k.Store.Holds(k.ctx, k.tenant)
	k.ok(err)
	return list
}

// ended moves everything out of holds that end, in transactions of limit rows,
// and counts the transactions.
func (k *kit) ended(limit int) (times int) {
	k.Helper()
	list, err := k.Store.HoldsEndingOrDenied(k.ctx)
	k.ok(err)
	for _, h := range list {
		for done := h.Ending == delivery.Open; !done; times++ {
			_, done, err = k.Store.MoveHeld(k.ctx, h, limit, k.Clock.Now())
			k.ok(err)
		}
	}
	return times
}
