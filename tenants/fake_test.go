package tenants_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// memory is a Store of maps. before, where set, is called at the start of every
// method with its name, and its error is returned.
type memory struct {
	mu      sync.Mutex
	before  func(method string) error
	changes []tenants.Change
	tenants map[ids.ID]tenants.Tenant
	keys    map[ids.ID]tenants.Key
	users   map[ids.ID]tenants.UserKey
	apps    []tenants.App
	creds   map[ids.ID]tenants.Credential
	opened  map[ids.ID]channels.Credential
	reads   map[string]int
	options tenants.PutOptions // of the last put
	back    int                // where a rollback leads to
}

var _ tenants.Store = (*memory)(nil)

func newMemory() *memory {
	return &memory{tenants: map[ids.ID]tenants.Tenant{}, keys: map[ids.ID]tenants.Key{}, users: map[ids.ID]tenants.UserKey{},
		creds: map[ids.ID]tenants.Credential{}, opened: map[ids.ID]channels.Credential{}, reads: map[string]int{}}
}

func (m *memory) enter(method string, change ...tenants.Change) (func(), error) {
	if m.before != nil {
		if err := m.before(method); err != nil {
			return func() {}, err
		}
	}
	m.mu.Lock()
	m.reads[method]++
	if len(change) > 0 {
		m.changes = append(m.changes, change...)
	}
	return m.mu.Unlock, nil
}

// made lists the changes so far.
func (m *memory) made() []tenants.Change {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]tenants.Change(nil), m.changes...)
}

// only is the id of the credential, of which there is one.
func (m *memory) only() (id ids.ID) {
	for id = range m.creds {
	}
	return id
}

func (m *memory) count(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads[method]
}

func find[V any](rows map[ids.ID]V, id ids.ID) (V, error) {
	v, ok := rows[id]
	if !ok {
		return v, problem.New(problem.NotFound, "There is none.")
	}
	return v, nil
}

func (m *memory) CreateTenant(_ context.Context, t tenants.Tenant, c tenants.Change) error {
	leave, err := m.enter("CreateTenant", c)
	defer leave()
	for _, other := range m.tenants {
		if other.Name == t.Name {
			return problem.New(problem.Conflict, "The name is taken.")
		}
	}
	m.tenants[t.ID] = t
	return err
}

func (m *memory) UpdateTenant(_ context.Context, t tenants.Tenant, c tenants.Change) error {
	leave, err := m.enter("UpdateTenant", c)
	defer leave()
	m.tenants[t.ID] = t
	return err
}

func (m *memory) DeleteTenant(_ context.Context, id ids.ID, c tenants.Change) (tenants.Tenant, error) {
	leave, err := m.enter("DeleteTenant", c)
	defer leave()
	if err != nil {
		return tenants.Tenant{}, err
	}
	t, err := find(m.tenants, id)
	if err == nil {
		t.DeletedAt = epoch
		m.tenants[id] = t
	}
	return t, err
}

func (m *memory) Tenant(_ context.Context, id ids.ID) (tenants.Tenant, error) {
	leave, err := m.enter("Tenant")
	defer leave()
	if err != nil {
		return tenants.Tenant{}, err
	}
	return find(m.tenants, id)
}

func (m *memory) TenantByName(_ context.Context, name string) (tenants.Tenant, error) {
	leave, err := m.enter("TenantByName")
	defer leave()
	for _, t := range m.tenants {
		if t.Name == name && err == nil {
			return t, nil
		}
	}
	return tenants.Tenant{}, cmp.Or(err, error(problem.New(problem.NotFound, "There is none.")))
}

func (m *memory) Tenants(_ context.Context, p tenants.Page) ([]tenants.Tenant, error) {
	leave, err := m.enter("Tenants")
	defer leave()
	all := slices.SortedFunc(maps.Values(m.tenants), func(a, b tenants.Tenant) int { return cmp.Compare(a.ID, b.ID) })
	return all[:min(len(all), p.Limit)], err
}

func (m *memory) CreateKey(_ context.Context, k tenants.Key, c tenants.Change) error {
	leave, err := m.enter("CreateKey", c)
	defer leave()
	m.keys[k.ID] = k
	return err
}

func (m *memory) Key(_ context.Context, id ids.ID) (tenants.Key, error) {
	leave, err := m.enter("Key")
	defer leave()
	if err != nil {
		return tenants.Key{}, err
	}
	return find(m.keys, id)
}

func (m *memory) Keys(_ context.Context, tenant ids.ID, p tenants.Page) ([]tenants.Key, error) {
	leave, err := m.enter("Keys")
	defer leave()
	var out []tenants.Key
	for _, k := range m.keys {
		if k.Tenant == tenant && len(out) < p.Limit {
			out = append(out, k)
		}
	}
	return out, err
}

func (m *memory) RevokeKey(_ context.Context, tenant, id ids.ID, at time.Time, c tenants.Change) error {
	leave, err := m.enter("RevokeKey", c)
	defer leave()
	k, missing := find(m.keys, id)
	if missing != nil || k.Tenant != tenant {
		return problem.New(problem.NotFound, "There is none.")
	}
	k.RevokedAt = at
	m.keys[id] = k
	return err
}

func (m *memory) TouchKey(_ context.Context, id ids.ID, at time.Time) error {
	leave, err := m.enter("TouchKey")
	defer leave()
	if err != nil {
		return err
	}
	k := m.keys[id]
	k.LastUsedAt = at
	m.keys[id] = k
	return nil
}

func (m *memory) CreateUserKey(_ context.Context, k tenants.UserKey, c tenants.Change) error {
	leave, err := m.enter("CreateUserKey", c)
	defer leave()
	m.users[k.ID] = k
	return err
}

func (m *memory) UserKey(_ context.Context, id ids.ID) (tenants.UserKey, error) {
	leave, err := m.enter("UserKey")
	defer leave()
	if err != nil {
		return tenants.UserKey{}, err
	}
	return find(m.users, id)
}

func (m *memory) UserKeys(_ context.Context, tenant ids.ID, _ tenants.Page) ([]tenants.UserKey, error) {
	leave, err := m.enter("UserKeys")
	defer leave()
	var out []tenants.UserKey
	for _, k := range m.users {
		if k.Tenant == tenant {
			k.Secret = nil
			out = append(out, k)
		}
	}
	return out, err
}

func (m *memory) DeleteUserKey(_ context.Context, _, id ids.ID, c tenants.Change) error {
	leave, err := m.enter("DeleteUserKey", c)
	defer leave()
	delete(m.users, id)
	return err
}

func (m *memory) PutApp(_ context.Context, a tenants.App, c tenants.Change) error {
	leave, err := m.enter("PutApp", c)
	defer leave()
	m.apps = append(m.apps, a)
	return err
}

func (m *memory) Apps(_ context.Context, tenant ids.ID) ([]tenants.App, error) {
	leave, err := m.enter("Apps")
	defer leave()
	return slices.DeleteFunc(slices.Clone(m.apps), func(a tenants.App) bool { return a.Tenant != tenant }), err
}

func (m *memory) DeleteApp(_ context.Context, tenant ids.ID, name string, c tenants.Change) (ids.ID, error) {
	leave, err := m.enter("DeleteApp", c)
	defer leave()
	m.apps = slices.DeleteFunc(m.apps, func(a tenants.App) bool { return a.Tenant == tenant && a.Name == name })
	return 99, err
}

func (m *memory) CredentialVersions(_ context.Context, _, id ids.ID) ([]tenants.CredentialVersion, error) {
	c, err := find(m.creds, id)
	return []tenants.CredentialVersion{{Version: c.Version}}, err
}

func (m *memory) OpenVersion(_ context.Context, _, id ids.ID, version int) (channels.Credential, error) {
	if version == 1 {
		return channels.Credential{}, problem.New(problem.Conflict, "It is destroyed.")
	}
	return m.opened[id], nil
}

func (m *memory) WayBack(context.Context, ids.ID, ids.ID) (int, error) {
	return m.back, nil
}

func (m *memory) RollbackCredential(_ context.Context, _, id ids.ID, to int, v tenants.Verification, c tenants.Change) (tenants.Credential, error) {
	leave, err := m.enter("RollbackCredential", c)
	defer leave()
	x := m.creds[id]
	x.Version, x.Verification, x.Reason = x.Version+1, v, fmt.Sprint("back to ", to)
	m.creds[id] = x
	return x, err
}

func (m *memory) NoteVerification(_ context.Context, _, id ids.ID, _ int, v tenants.Verification) error {
	leave, err := m.enter("NoteVerification")
	defer leave()
	c := m.creds[id]
	c.Verification = v
	m.creds[id] = c
	return err
}

func (m *memory) CountBound(context.Context, ids.ID, string, string) (tenants.Bound, error) {
	return tenants.Bound{}, nil
}

func (m *memory) RecoverCredential(_ context.Context, _, id ids.ID) error {
	leave, err := m.enter("RecoverCredential")
	defer leave()
	c := m.creds[id]
	c.Status = tenants.CredentialActive
	m.creds[id] = c
	return err
}

func (m *memory) PutCredential(_ context.Context, c tenants.Credential, o channels.Credential, p tenants.PutOptions, ch tenants.Change) (tenants.Credential, error) {
	leave, err := m.enter("PutCredential", ch)
	defer leave()
	c.Version = m.creds[c.ID].Version + 1
	m.options = p
	c.Verification = p.Verification
	c.Status = tenants.CredentialActive
	o.Version = c.Version
	m.creds[c.ID], m.opened[c.ID] = c, o
	return c, err
}

func (m *memory) Credential(_ context.Context, _, id ids.ID) (tenants.Credential, error) {
	leave, err := m.enter("Credential")
	defer leave()
	if err != nil {
		return tenants.Credential{}, err
	}
	return find(m.creds, id)
}

func (m *memory) Credentials(_ context.Context, tenant ids.ID) ([]tenants.Credential, error) {
	leave, err := m.enter("Credentials")
	defer leave()
	var out []tenants.Credential
	for _, c := range m.creds {
		if c.Tenant == tenant {
			out = append(out, c)
		}
	}
	return out, err
}

func (m *memory) OpenCredential(_ context.Context, _, id ids.ID) (channels.Credential, error) {
	leave, err := m.enter("OpenCredential")
	defer leave()
	return m.opened[id], err
}

func (m *memory) DeleteCredential(_ context.Context, _, id ids.ID, c tenants.Change) error {
	leave, err := m.enter("DeleteCredential", c)
	defer leave()
	delete(m.creds, id)
	return err
}

func (m *memory) setStatus(id ids.ID, status tenants.CredentialStatus, reason string) (tenants.Credential, error) {
	c, err := find(m.creds, id)
	if err == nil {
		c.Status, c.Reason = status, reason
		m.creds[id] = c
	}
	return c, err
}

func (m *memory) PauseCredential(_ context.Context, _, id ids.ID, reason string, c tenants.Change) (tenants.Credential, error) {
	leave, _ := m.enter("PauseCredential", c)
	defer leave()
	return m.setStatus(id, tenants.CredentialPaused, reason)
}

func (m *memory) ResumeCredential(_ context.Context, _, id ids.ID, c tenants.Change) (tenants.Credential, error) {
	leave, _ := m.enter("ResumeCredential", c)
	defer leave()
	return m.setStatus(id, tenants.CredentialActive, "")
}

// keyring is a channel whose credentials are {"slot":..., "project":...}: the slot
// is the qualifier, and a stored project may not change. "generate" makes a slot.
type keyring struct {
	channels.Channel
	kind      channels.Kind
	mu        sync.Mutex
	generated int
	ask       func(context.Context) channels.Result // what the provider says; nil: it takes everything
	asked     int
	priors    []string
}

func (k *keyring) Kind() channels.Kind { return k.kind }

func (k *keyring) Open(c channels.Credential) (channels.Sender, error) {
	if string(c.Secret) == "damaged" {
		return nil, errors.New("it cannot be read")
	}
	return prober{keyring: k}, nil
}

// prober is a sender that is only asked.
type prober struct {
	channels.Sender
	keyring *keyring
}

func (p prober) Probe(ctx context.Context) channels.Result {
	p.keyring.mu.Lock()
	p.keyring.asked++
	ask := p.keyring.ask
	p.keyring.mu.Unlock()
	if ask == nil {
		return channels.Result{Outcome: channels.Accepted}
	}
	return ask(ctx)
}

func (p prober) Close() {}

func (k *keyring) ParseCredential(input []byte, prior json.RawMessage) (channels.Credential, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.priors = append(k.priors, string(prior))
	var in struct {
		Slot, Project, Secret string
		Generate              bool
	}
	if err := json.Unmarshal(input, &in); err != nil {
		return channels.Credential{}, problem.AtField("", "is not JSON")
	}
	if in.Generate {
		k.generated++
		in.Slot = string(bytes.Repeat([]byte("g"), k.generated))
	}
	settings, _ := json.Marshal(map[string]string{"project": in.Project})
	if prior != nil && !bytes.Equal(prior, settings) {
		return channels.Credential{}, problem.New(problem.CredentialRefused, "The project differs.")
	}
	return channels.Credential{Settings: settings, Secret: []byte("s" + in.Secret), Qualifier: in.Slot}, nil
}

type bench struct {
	*tenants.Registry
	store   *memory
	clock   *clock
	fcm     *keyring
	apns    *keyring
	changed []ids.ID
	refused []string // why
}

func setup(t testing.TB) *bench {
	t.Helper()
	b := &bench{store: newMemory(), clock: &clock{at: epoch}, fcm: &keyring{kind: channels.FCM}, apns: &keyring{kind: channels.APNs}}
	b.Registry = tenants.NewRegistry(tenants.Options{
		Store: b.store, IDs: ids.NewGenerator(1, b.clock.now), Now: b.clock.now,
		Channels: map[channels.Kind]channels.Channel{channels.FCM: b.fcm, channels.APNs: b.apns},
		Changed:  func(id ids.ID) { b.changed = append(b.changed, id) },
		Refused: func(_, id ids.ID, version int, why string) {
			b.refused = append(b.refused, fmt.Sprintf("%t %d %s", id == b.store.only(), version, why))
		},
	})
	t.Cleanup(b.Wait)
	return b
}

// faults maps the paths of a validation error to their details.
func faults(t *testing.T, err error) map[string]string {
	t.Helper()
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, problem.Invalid, e.Code)
	out := map[string]string{}
	for _, f := range e.Fields {
		out[f.Path] = f.Detail
	}
	return out
}

func paths(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
