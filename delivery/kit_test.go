package delivery_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// fakeChannel answers what its send function says, and keeps what was sent.
type fakeChannel struct {
	kind channels.Kind
	mu   sync.Mutex
	send func(ctx context.Context, c channels.Credential, t channels.Target, l channels.Life) channels.Result
	sent []sent
	news chan struct{}

	probe    channels.Result // what Probe says; accepted where it is zero
	probes   int
	hanging  <-chan struct{}
	probing  int                    // now
	most     int                    // at a time
	prepared func(channels.Message) // nil: nobody wants to know
}

type sent struct {
	Address  string
	Delivery string
	Attempt  int
	Renewed  channels.Renewal
	Version  int
}

var (
	_ channels.Channel = (*fakeChannel)(nil)
	_ channels.Sender  = (*fakeSender)(nil)
)

func (c *fakeChannel) Kind() channels.Kind { return c.kind }

func (c *fakeChannel) ParseCredential(in []byte, _ json.RawMessage) (channels.Credential, error) {
	return channels.Credential{Settings: in, Secret: []byte("secret")}, nil
}

func (c *fakeChannel) CheckTarget(t channels.Target) (channels.Target, error) { return t, nil }

func (c *fakeChannel) Prepare(m channels.Message) (channels.Payload, error) {
	if strings.Contains(string(m.Override), "unknown") {
		return nil, problem.AtField("overrides."+c.kind.String()+".unknown", "is not a member; see the docs")
	}
	if c.prepared != nil {
		c.prepared(m)
	}
	return fakePayload(m.Title), nil
}

func (c *fakeChannel) Open(cr channels.Credential) (channels.Sender, error) {
	if string(cr.Secret) == "damaged" {
		return nil, errors.New("the secret cannot be read")
	}
	return &fakeSender{c: c, cred: cr}, nil
}

type fakePayload string

func (p fakePayload) Size() int { return len(p) }

func (p fakePayload) Preview(delivery string) json.RawMessage {
	return json.RawMessage(`{"title":"` + string(p) + `","carillon":"` + delivery + `"}`)
}

type fakeSender struct {
	c    *fakeChannel
	cred channels.Credential
}

func (s *fakeSender) Send(ctx context.Context, t channels.Target, _ channels.Payload, l channels.Life) channels.Result {
	s.c.mu.Lock()
	s.c.sent = append(s.c.sent, sent{t.Address, l.Delivery, l.Attempt, l.Renewed, s.cred.Version})
	send := s.c.send
	s.c.mu.Unlock()
	select {
	case s.c.news <- struct{}{}:
	default:
	}
	if send == nil {
		return accepted()
	}
	return send(ctx, s.cred, t, l)
}

func (s *fakeSender) Probe(ctx context.Context) channels.Result {
	s.c.mu.Lock()
	hangs := s.c.hanging
	s.c.probing++
	s.c.most = max(s.c.most, s.c.probing)
	s.c.mu.Unlock()
	if hangs != nil {
		select {
		case <-hangs:
		case <-ctx.Done():
		}
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.probing--
	s.c.probes++
	if s.c.probe.Outcome != 0 {
		return s.c.probe
	}
	return accepted()
}

// says makes every probe answer the same.
func (c *fakeChannel) says(r channels.Result) {
	c.mu.Lock()
	c.probe = r
	c.mu.Unlock()
}

// hangs keeps every probe waiting until a channel is closed.
func (c *fakeChannel) hangs(until <-chan struct{}) {
	c.mu.Lock()
	c.hanging = until
	c.mu.Unlock()
}

// beingAsked is how many probes are under way, and how many were at most.
func (c *fakeChannel) beingAsked() (now, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probing, c.most
}

func (c *fakeChannel) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probes
}

func (s *fakeSender) Close() {}

func (c *fakeChannel) answer(f func(ctx context.Context, c channels.Credential, t channels.Target, l channels.Life) channels.Result) {
	c.mu.Lock()
	c.send = f
	c.mu.Unlock()
}

func (c *fakeChannel) attempts() []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]sent(nil), c.sent...)
}

func accepted() channels.Result {
	return channels.Result{Outcome: channels.Accepted, Code: "ok", Status: 200}
}

func always(r channels.Result) func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
	return func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result { return r }
}

func TestMain(m *testing.M) { os.Exit(pgtest.OnBoth(m)) }

func migrated(url string) error {
	_, err := db.Migrations(context.Background(), url, true)
	return err
}

// kit is an engine on a real database with fake channels.
type kit struct {
	t        *testing.T
	ctx      context.Context
	url      string
	ring     *db.KeyRing
	store    *store.Store
	engine   *delivery.Engine
	channels map[channels.Kind]*fakeChannel
	tenant   ids.ID
	ids      *ids.Generator
	opts     delivery.Options
	runner   *jobs.Runner
	clock    func() time.Time                  // nil: time.Now
	wrap     func(*store.Store) delivery.Store // nil: the store itself
	joins    bool                              // it is one of several nodes
}

func newKit(t *testing.T, change func(*delivery.Options)) *kit {
	t.Helper()
	return newKitAt(t, nil, change)
}

// newKitAt is newKit with a clock.
func newKitAt(t *testing.T, clock func() time.Time, change func(*delivery.Options)) *kit {
	t.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	k := &kit{t: t, clock: clock, ctx: context.Background(), ring: ring, url: pgtest.URL(t, migrated),
		channels: map[channels.Kind]*fakeChannel{}, ids: ids.NewGenerator(1, time.Now)}
	all := map[channels.Kind]channels.Channel{}
	for _, kind := range channels.Kinds() {
		k.channels[kind] = &fakeChannel{kind: kind, news: make(chan struct{}, 1)}
		all[kind] = k.channels[kind]
	}
	k.opts = delivery.Options{Channels: all, IDs: k.ids, Workers: 32, Poll: 20 * time.Millisecond}
	if change != nil {
		change(&k.opts)
	}
	k.open()
	t.Cleanup(k.close)
	k.tenant = k.ids.Next()
	floor, jitter := int64(0), 0.0
	policy := tenants.RetryPolicy{Delays: []int64{1, 1, 1}, Jitter: &jitter, Floor: &floor}
	require.NoError(t, k.store.CreateTenant(k.ctx, tenants.Tenant{ID: k.tenant, Name: "acme", CreatedAt: time.Now(), Settings: tenants.Settings{
		Retry: map[channels.Kind]tenants.RetryPolicy{channels.FCM: policy, channels.APNs: policy, channels.WebPush: policy, channels.Webhook: policy},
	}}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	return k
}

func (k *kit) open() {
	k.t.Helper()
	var err error
	k.store, err = store.Open(k.ctx, store.Options{URL: k.url, KeyRing: k.ring, IDs: k.ids, Now: k.clock, Migrate: true, Connections: 8})
	require.NoError(k.t, err)
	require.NoError(k.t, k.store.LockEngine())
	if k.joins {
		require.NoError(k.t, k.store.Join(k.ctx, db.Node{Role: delivery.RoleAll}))
	}
	_, err = k.store.LapseLeases(k.ctx)
	require.NoError(k.t, err)
	k.begin()
}

// begin makes an engine on the store that is open, and starts it.
func (k *kit) begin() {
	k.t.Helper()
	o := k.opts
	o.Store = k.store
	if k.clock != nil {
		o.Now = k.clock
	}
	if k.wrap != nil {
		o.Store = k.wrap(k.store)
	}
	if o.Now == nil {
		o.Now = k.store.Now // as on a server: it goes by the database's clock
	}
	k.runner = jobs.NewRunner(jobs.Options{Store: k.store, IDs: k.ids, Now: k.clock, Poll: 5 * time.Millisecond, Lease: 10 * time.Second})
	o.Jobs = k.runner
	k.engine = delivery.New(o)
	require.NoError(k.t, k.engine.Start(k.ctx))
	k.runner.Start()
}

func (k *kit) close() {
	k.runner.Stop()
	ctx, cancel := context.WithTimeout(k.ctx, 10*time.Second)
	defer cancel()
	_ = k.engine.Stop(ctx)
	_ = k.store.Close()
}

func (k *kit) credential(kind channels.Kind, qualifier string) tenants.Credential {
	k.t.Helper()
	c, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: kind},
		channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte("s"), Qualifier: qualifier}, tenants.PutOptions{Rotate: true}, tenants.Change{Actor: "test", Action: "credential.put"})
	require.NoError(k.t, err)
	k.engine.CredentialsChanged(k.tenant)
	return c
}

// inApp puts a credential of an app.
func (k *kit) inApp(app string, kind channels.Kind) tenants.Credential {
	k.t.Helper()
	c, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: app, Channel: kind},
		channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte("s")}, tenants.PutOptions{}, tenants.Change{Actor: "test", Action: "credential.put"})
	require.NoError(k.t, err)
	k.engine.CredentialsChanged(k.tenant)
	return c
}

func (k *kit) newTenant(name string) ids.ID {
	k.t.Helper()
	id := k.ids.Next()
	require.NoError(k.t, k.store.CreateTenant(k.ctx, tenants.Tenant{ID: id, Name: name, CreatedAt: time.Now()}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	return id
}

func (k *kit) device(user, address string, kind channels.Kind, change func(*devices.Device)) devices.Device {
	k.t.Helper()
	d := devices.Device{Tenant: k.tenant, ID: k.ids.Next(), User: user, App: "default", Channel: kind,
		Target: channels.Target{Kind: channels.FCMToken, Address: address}}
	if kind == channels.APNs {
		d.Target.Kind, d.Target.Environment = channels.APNsToken, channels.Production
	}
	if change != nil {
		change(&d)
	}
	r, err := k.store.UpsertDevice(k.ctx, d, devices.Caller{Actor: "key_test"})
	require.NoError(k.t, err)
	return r.Device
}

func (k *kit) endpoint(change func(*webhooks.Endpoint)) webhooks.Endpoint {
	k.t.Helper()
	e := webhooks.Endpoint{Tenant: k.tenant, ID: k.ids.Next(), URL: "https://hooks.example.com/in", EventTypes: []string{"*"}, Status: webhooks.Active,
		Secrets: []webhooks.Secret{{Key: make([]byte, 32)}}, CreatedAt: time.Now(), UpdatedAt: time.Now()}
	if change != nil {
		change(&e)
	}
	require.NoError(k.t, k.store.CreateEndpoint(k.ctx, e, "test"))
	return e
}

func (k *kit) post(r delivery.Request) delivery.Receipt {
	k.t.Helper()
	var got delivery.Receipt
	_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{r},
		Render: func(rs []delivery.Receipt) (int, []byte, error) { got = rs[0]; return 202, []byte("{}"), nil }})
	require.NoError(k.t, err)
	return got
}

func (k *kit) refused(r delivery.Request) *problem.Error {
	k.t.Helper()
	_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{r},
		Render: func([]delivery.Receipt) (int, []byte, error) { return 202, nil, nil }})
	var p *problem.Error
	require.ErrorAs(k.t, err, &p)
	return p
}

// until waits for a delivery to satisfy a condition.
func (k *kit) until(ntf, target ids.ID, what string, ok func(delivery.View) bool) delivery.View {
	k.t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for give := time.Now().Add(20 * time.Second); ; <-poll.C {
		v, err := k.store.Delivery(k.ctx, k.tenant, ntf, target)
		if err == nil && ok(v) {
			return v
		}
		if time.Now().After(give) {
			require.FailNow(k.t, "the delivery was expected "+what, "last seen: %+v, %v", v, err)
		}
	}
}

func (k *kit) ends(r delivery.Receipt, n int, want delivery.State, reason delivery.Reason) delivery.View {
	k.t.Helper()
	v := k.until(r.Notification, r.Deliveries[n].Target, "to be "+want.String(), func(v delivery.View) bool {
		return v.State == want && (want != delivery.Held || v.Reason == reason)
	})
	require.Equal(k.t, reason, v.Reason)
	return v
}

func (k *kit) sound() {
	k.t.Helper()
	v, err := k.store.Check(k.ctx, true)
	require.NoError(k.t, err)
	require.Empty(k.t, v)
}

func toUser(u ...string) delivery.Request {
	return delivery.Request{To: delivery.To{Users: u}, Title: "hello"}
}

// blocked makes sends to an address wait until release is called.
func blocked(c *fakeChannel, address string, then channels.Result) (release func()) {
	gate := make(chan struct{})
	c.answer(func(ctx context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if t.Address != address {
			return accepted()
		}
		select {
		case <-gate:
			return then
		case <-ctx.Done():
			return channels.FromTransport(ctx, ctx.Err(), true)
		}
	})
	return sync.OnceFunc(func() { close(gate) })
}

func (k *kit) sends(c *fakeChannel, n int) {
	k.t.Helper()
	require.Eventually(k.t, func() bool { return len(c.attempts()) >= n }, 20*time.Second, time.Millisecond)
}

// handClock is a clock that a test moves.
type handClock struct{ ms atomic.Int64 }

func newHandClock() *handClock {
	c := &handClock{}
	c.ms.Store(time.Now().UnixMilli())
	return c
}

func (c *handClock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *handClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 2*time.Millisecond, what)
}
