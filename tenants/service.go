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

// ServiceOptions are all needed, but Changed.
type ServiceOptions struct {
	Store    Store
	Channels map[channels.Kind]channels.Channel
	IDs      *ids.Generator
	Now      func() time.Time
	// Changed is called after a change of a tenant's settings or credentials.
	Changed func(tenant ids.ID)
}

// Service manages tenants and what belongs to them, and tells who calls. It
// validates; what it hands to the store is sound. It is safe for concurrent use.
type Service struct {
	o        ServiceOptions
	tenants  *cache[ids.ID, Tenant]
	names    *cache[string, ids.ID] // names never change
	keys     *cache[ids.ID, *knownKey]
	userKeys *cache[ids.ID, UserKey]
	touching sync.WaitGroup
	touches  chan struct{} // a slot per TouchKey under way
	putting  sync.Mutex    // one PutCredential at a time
}

// NewService makes a Service.
func NewService(o ServiceOptions) *Service {
	if o.Changed == nil {
		o.Changed = func(ids.ID) {}
	}
	return &Service{
		o:        o,
		tenants:  newCache[ids.ID, Tenant](o.Now),
		names:    newCache[string, ids.ID](o.Now),
		keys:     newCache[ids.ID, *knownKey](o.Now),
		userKeys: newCache[ids.ID, UserKey](o.Now),
		touches:  make(chan struct{}, maxTouches),
	}
}

// Wait returns when nothing that the service began is under way. Call it between
// the last request and the end of the store.
func (s *Service) Wait() { s.touching.Wait() }

// CreateTenant makes a tenant. Without a name it gets its id for one. A name that
// is taken is a Conflict.
func (s *Service) CreateTenant(ctx context.Context, name, title string, settings Settings, actor string) (Tenant, error) {
	id := s.o.IDs.Next()
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
	now := s.o.Now().UTC()
	t := Tenant{ID: id, Name: name, Title: title, Settings: settings, CreatedAt: now, UpdatedAt: now}
	if err := s.o.Store.CreateTenant(ctx, t, Change{Actor: actor, Action: "tenant.create"}); err != nil {
		return Tenant{}, err
	}
	s.names.drop(name) // of a tenant that was deleted
	return t, nil
}

// PutTenant gives the tenant of that name a title and settings, and makes it
// where there is none.
func (s *Service) PutTenant(ctx context.Context, name, title string, settings Settings, actor string) (t Tenant, created bool, err error) {
	if name == "" {
		return Tenant{}, false, problem.AtField("name", "is missing; it %s", nameRule)
	}
	// A second round finds the tenant that somebody else has made meanwhile.
	for range 2 {
		t, err = s.o.Store.TenantByName(ctx, name)
		if err == nil {
			t, err = s.updateTenant(ctx, t, title, settings, actor)
			return t, false, err
		}
		if problem.CodeOf(err) != problem.NotFound {
			return Tenant{}, false, err
		}
		t, err = s.CreateTenant(ctx, name, title, settings, actor)
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
func (s *Service) DeleteTenant(ctx context.Context, name, actor string) (Tenant, error) {
	t, err := s.o.Store.TenantByName(ctx, name)
	if err != nil {
		return Tenant{}, err
	}
	t, err = s.o.Store.DeleteTenant(ctx, t.ID, Change{Actor: actor, Action: "tenant.delete"})
	if err != nil {
		return Tenant{}, err
	}
	s.tenants.drop(t.ID)
	s.names.drop(name)
	s.keys.clear()
	s.userKeys.clear()
	s.o.Changed(t.ID)
	return t, nil
}

func (s *Service) updateTenant(ctx context.Context, t Tenant, title string, settings Settings, actor string) (Tenant, error) {
	var faults problem.Fields
	checkTenant(&faults, title, settings)
	if err := faults.Err(); err != nil {
		return Tenant{}, err
	}
	t.Title, t.Settings, t.UpdatedAt = title, settings, s.o.Now().UTC()
	if err := s.o.Store.UpdateTenant(ctx, t, Change{Actor: actor, Action: "tenant.update"}); err != nil {
		return Tenant{}, err
	}
	s.tenants.drop(t.ID)
	s.o.Changed(t.ID)
	return t, nil
}

func checkTenant(faults *problem.Fields, title string, settings Settings) {
	checkText(faults, "title", title, 0, MaxTitle)
	faults.Merge("settings", settings.Check())
}

// Tenant returns a tenant, up to 5 s old. Its settings must not be changed.
func (s *Service) Tenant(ctx context.Context, id ids.ID) (Tenant, error) {
	return s.tenants.get(ctx, id, s.o.Store.Tenant)
}

// TenantByName is Tenant by the name that callers use.
func (s *Service) TenantByName(ctx context.Context, name string) (Tenant, error) {
	if !nameForm.MatchString(name) {
		return Tenant{}, problem.New(problem.NotFound, "There is no such tenant.")
	}
	id, err := s.names.get(ctx, name, func(ctx context.Context, name string) (ids.ID, error) {
		t, err := s.o.Store.TenantByName(ctx, name)
		return t.ID, err
	})
	if err != nil {
		return Tenant{}, err
	}
	return s.Tenant(ctx, id)
}

// Tenants lists all tenants, oldest first.
func (s *Service) Tenants(ctx context.Context, p Page) ([]Tenant, error) {
	return s.o.Store.Tenants(ctx, p.bounded())
}

// PutApp makes an app, unless it exists.
func (s *Service) PutApp(ctx context.Context, tenant ids.ID, name, actor string) error {
	if !nameForm.MatchString(name) {
		return problem.AtField("name", nameRule)
	}
	app := App{Tenant: tenant, Name: name, CreatedAt: s.o.Now().UTC()}
	return s.o.Store.PutApp(ctx, app, Change{Actor: actor, Action: "app.put"})
}

// Apps lists the apps of a tenant.
func (s *Service) Apps(ctx context.Context, tenant ids.ID) ([]App, error) {
	return s.o.Store.Apps(ctx, tenant)
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
