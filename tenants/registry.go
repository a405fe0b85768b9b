package tenants

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

// Limits of texts, in bytes.
const (
	MaxTitle  = 200
	MaxName   = 100 // of keys
	MaxReason = 500

	maxPage = 500
)

// nameForm is the form of the names of tenants and apps.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

const nameRule = "consists of 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit"

// Options of a Registry. All are needed, but Changed and Refused.
type Options struct {
	Store    Store
	Channels map[channels.Kind]channels.Channel
	IDs      *ids.Generator
	Now      func() time.Time
	// Changed is called after a change of a tenant's settings or credentials.
	Changed func(tenant ids.ID)
	// Refused is called when a provider refuses a version of a credential that is in
	// use.
	Refused func(tenant, credential ids.ID, version int, why string)
}

// Registry manages tenants and what belongs to them, and tells who calls. It
// validates; what it hands to the store is sound. It is safe for concurrent use.
type Registry struct {
	o         Options
	tenants   *cache[ids.ID, Tenant]
	names     *cache[string, ids.ID] // names never change
	keys      *cache[ids.ID, *knownKey]
	userKeys  *cache[ids.ID, UserKey]
	touching  sync.WaitGroup
	touches   chan struct{} // a slot per TouchKey under way
	putting   sync.Mutex    // one PutCredential at a time
	verifying turns
}

// NewRegistry makes a Registry.
func NewRegistry(o Options) *Registry {
	if o.Changed == nil {
		o.Changed = func(ids.ID) {}
	}
	if o.Refused == nil {
		o.Refused = func(ids.ID, ids.ID, int, string) {}
	}
	return &Registry{
		o:        o,
		tenants:  newCache[ids.ID, Tenant](o.Now),
		names:    newCache[string, ids.ID](o.Now),
		keys:     newCache[ids.ID, *knownKey](o.Now),
		userKeys: newCache[ids.ID, UserKey](o.Now),
		touches:  make(chan struct{}, maxTouches),
	}
}

// Wait returns when nothing that the registry began is under way. Call it between
// the last request and the end of the store.
func (r *Registry) Wait() { r.touching.Wait() }

// CreateTenant makes a tenant. Without a name it gets its id for one. A name that
// is taken is a Conflict.
func (r *Registry) CreateTenant(ctx context.Context, name, title string, settings Settings, actor string) (Tenant, error) {
	id := r.o.IDs.Next()
	made := id.Format(ids.Tenant)
	if name == "" {
		name = made
	}
	var faults problem.Fields
	if !nameForm.MatchString(name) {
		faults.Add("name", nameRule)
	} else if strings.HasPrefix(name, ids.Tenant+"_") && name != made {
		faults.Add("name", "begins with %s_, which is kept for names that the server makes; choose another", ids.Tenant)
	}
	checkTenant(&faults, title, settings)
	if err := faults.Err(); err != nil {
		return Tenant{}, err
	}
	now := r.o.Now().UTC()
	t := Tenant{ID: id, Name: name, Title: title, Settings: settings, CreatedAt: now, UpdatedAt: now}
	if err := r.o.Store.CreateTenant(ctx, t, Change{Actor: actor, Action: "tenant.create"}); err != nil {
		return Tenant{}, err
	}
	r.names.drop(name) // of a tenant that was deleted
	return t, nil
}

// PutTenant gives the tenant of that name a title and settings, and makes it
// where there is none.
func (r *Registry) PutTenant(ctx context.Context, name, title string, settings Settings, actor string) (t Tenant, created bool, err error) {
	if name == "" {
		return Tenant{}, false, problem.AtField("name", "is missing; it %s", nameRule)
	}
	// A second round finds the tenant that somebody else has made meanwhile.
	for range 2 {
		t, err = r.o.Store.TenantByName(ctx, name)
		if err == nil {
			t, err = r.updateTenant(ctx, t, title, settings, actor)
			return t, false, err
		}
		if problem.CodeOf(err) != problem.NotFound {
			return Tenant{}, false, err
		}
		t, err = r.CreateTenant(ctx, name, title, settings, actor)
		if problem.CodeOf(err) != problem.Conflict {
			return t, err == nil, err
		}
	}
	return t, false, err
}

// DeleteTenant puts a tenant out of use for good. Its API keys are refused here
// at once, on other nodes within 5 s; nothing of it is sent any more, what was
// sealed for it cannot be opened again, and its rows are removed in the
// background. The name is free when that is done. It may be repeated until then.
func (r *Registry) DeleteTenant(ctx context.Context, name, actor string) (Tenant, error) {
	t, err := r.o.Store.TenantByName(ctx, name)
	if err != nil {
		return Tenant{}, err
	}
	t, err = r.o.Store.DeleteTenant(ctx, t.ID, Change{Actor: actor, Action: "tenant.delete"})
	if err != nil {
		return Tenant{}, err
	}
	r.tenants.drop(t.ID)
	r.names.drop(name)
	r.keys.clear()
	r.userKeys.clear()
	r.o.Changed(t.ID)
	return t, nil
}

func (r *Registry) updateTenant(ctx context.Context, t Tenant, title string, settings Settings, actor string) (Tenant, error) {
	var faults problem.Fields
	checkTenant(&faults, title, settings)
	if err := faults.Err(); err != nil {
		return Tenant{}, err
	}
	t.Title, t.Settings, t.UpdatedAt = title, settings, r.o.Now().UTC()
	if err := r.o.Store.UpdateTenant(ctx, t, Change{Actor: actor, Action: "tenant.update"}); err != nil {
		return Tenant{}, err
	}
	r.tenants.drop(t.ID)
	r.o.Changed(t.ID)
	return t, nil
}

func checkTenant(faults *problem.Fields, title string, settings Settings) {
	checkText(faults, "title", title, 0, MaxTitle)
	faults.Merge("settings", settings.Check())
}

// Tenant returns a tenant, up to 5 s old. Its settings must not be changed.
func (r *Registry) Tenant(ctx context.Context, id ids.ID) (Tenant, error) {
	return r.tenants.get(ctx, id, r.o.Store.Tenant)
}

// TenantByName is Tenant by the name that callers use.
func (r *Registry) TenantByName(ctx context.Context, name string) (Tenant, error) {
	if !nameForm.MatchString(name) {
		return Tenant{}, problem.New(problem.NotFound, "There is no such tenant.")
	}
	id, err := r.names.get(ctx, name, func(ctx context.Context, name string) (ids.ID, error) {
		t, err := r.o.Store.TenantByName(ctx, name)
		return t.ID, err
	})
	if err != nil {
		return Tenant{}, err
	}
	return r.Tenant(ctx, id)
}

// Tenants lists all tenants, oldest first.
func (r *Registry) Tenants(ctx context.Context, p Page) ([]Tenant, error) {
	return r.o.Store.Tenants(ctx, p.bounded())
}

// PutApp makes an app, unless it exists.
func (r *Registry) PutApp(ctx context.Context, tenant ids.ID, name, actor string) error {
	if !nameForm.MatchString(name) {
		return problem.AtField("name", nameRule)
	}
	app := App{Tenant: tenant, Name: name, CreatedAt: r.o.Now().UTC()}
	return r.o.Store.PutApp(ctx, app, Change{Actor: actor, Action: "app.put"})
}

// CheckDeletable tells whether an app may be deleted at all.
func CheckDeletable(app string) error {
	if app == DefaultApp {
		return problem.New(problem.Conflict, "The app %s exists from the start and is the one that is meant where none is named: it cannot be deleted. "+
			"Delete its credentials and its devices instead.", DefaultApp)
	}
	return nil
}

// DeleteApp forgets an app with its credentials and its devices. Nothing is sent with
// its credentials any more; its devices are removed in the background, and what
// waits for them is dropped as gone.
func (r *Registry) DeleteApp(ctx context.Context, tenant ids.ID, name, actor string) (job ids.ID, err error) {
	if err := CheckDeletable(name); err != nil {
		return 0, err
	}
	job, err = r.o.Store.DeleteApp(ctx, tenant, name, Change{Actor: actor, Action: "app.delete"})
	if err == nil {
		r.o.Changed(tenant)
	}
	return job, err
}

// Apps lists the apps of a tenant: see CredentialStore.
func (r *Registry) Apps(ctx context.Context, tenant ids.ID) ([]App, error) {
	return r.o.Store.Apps(ctx, tenant)
}

func (p Page) bounded() Page {
	p.Limit = min(max(p.Limit, 1), maxPage)
	return p
}

func checkText(faults *problem.Fields, path, s string, least, most int) {
	if err := text.Check(s, least, most); err != nil {
		faults.Add(path, "%s; use %d to %d bytes of text on one line", err, least, most)
	}
}
