package webhooks_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// memory is a Store of a map.
type memory struct {
	released bool // by the last update
	rows     map[ids.ID]webhooks.Endpoint
	actors   []string
	// between runs before an update, as if somebody else were quicker.
	between func()
}

var _ webhooks.Store = (*memory)(nil)

func (s *memory) CreateEndpoint(_ context.Context, e webhooks.Endpoint, actor string) error {
	s.rows[e.ID], s.actors = e, append(s.actors, actor)
	return nil
}

func (s *memory) UpdateEndpoint(_ context.Context, e webhooks.Endpoint, was time.Time, by webhooks.Edit) error {
	if s.between != nil {
		s.between()
	}
	if !s.rows[e.ID].UpdatedAt.Equal(was) {
		return problem.New(problem.Conflict, "It was changed.")
	}
	s.rows[e.ID], s.actors, s.released = e, append(s.actors, by.Actor), by.Release
	return nil
}

func (s *memory) Endpoint(_ context.Context, tenant, id ids.ID) (webhooks.Endpoint, error) {
	e, ok := s.rows[id]
	if !ok || e.Tenant != tenant {
		return webhooks.Endpoint{}, problem.New(problem.NotFound, "There is none.")
	}
	return e, nil
}

func (s *memory) Endpoints(_ context.Context, _ ids.ID, _ ids.ID, limit int) ([]webhooks.Endpoint, error) {
	return make([]webhooks.Endpoint, limit), nil
}

func (s *memory) DeleteEndpoint(_ context.Context, _, id ids.ID, _ string) error {
	delete(s.rows, id)
	return nil
}

func registry() (*webhooks.Registry, *memory) {
	s := &memory{rows: map[ids.ID]webhooks.Endpoint{}}
	clock := func() time.Time { return now }
	return webhooks.NewRegistry(webhooks.Options{Store: s, Quota: &fakeQuota{}, IDs: ids.NewGenerator(1, clock), Now: clock, CheckURL: func(u string) error {
		if !strings.HasPrefix(u, "https://") {
			return errors.New("must begin with https://")
		}
		return nil
	}}), s
}

// faultPaths are the paths of a validation error, in its order.
func faultPaths(t *testing.T, err error) (paths []string) {
	t.Helper()
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, problem.Invalid, e.Code)
	for _, f := range e.Fields {
		paths = append(paths, f.Path)
	}
	return paths
}

func TestANewEndpointIsActive(t *testing.T) {
	t.Parallel()
	r, s := registry()
	e, shown, err := r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example/in", EventTypes: []string{"order.*"}, User: "u1"}, "key_1")
	require.NoError(t, err)
	require.Equal(t, s.rows[e.ID], e)
	require.Equal(t, webhooks.Active, e.Status)
	key, err := webhooks.ParseSecret(shown)
	require.NoError(t, err)
	require.Equal(t, []webhooks.Secret{{Key: key, CreatedAt: now}}, e.Secrets)

	given := webhooks.FormatSecret([]byte(strings.Repeat("k", 32)))
	e, shown, err = r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example/in", Secret: given}, "key_1")
	require.NoError(t, err)
	require.Equal(t, given, shown)
	require.Equal(t, strings.Repeat("k", 32), string(e.Secrets[0].Key))
	require.NotNil(t, e.EventTypes)
}

func TestNewEndpointsAreChecked(t *testing.T) {
	t.Parallel()
	r, s := registry()
	for name, x := range map[string]struct {
		n    webhooks.NewEndpoint
		want []string
	}{
		"everything": {webhooks.NewEndpoint{URL: "http://a.example", Description: "a\nb", User: "u\x00", EventTypes: []string{"ok", "Not"}, Secret: "whsec_short"},
			[]string{"url", "description", "user", "event_types[1]", "secret"}},
		"no address":       {webhooks.NewEndpoint{}, []string{"url"}},
		"long description": {webhooks.NewEndpoint{URL: "https://a.example", Description: strings.Repeat("x", 501)}, []string{"description"}},
		"long user":        {webhooks.NewEndpoint{URL: "https://a.example", User: strings.Repeat("x", 256)}, []string{"user"}},
	} {
		_, shown, err := r.Create(t.Context(), 7, x.n, "key_1")
		require.Equal(t, x.want, faultPaths(t, err), name)
		require.Empty(t, shown)
	}
	require.Empty(t, s.rows)
}

func TestAPatchChangesWhatItNames(t *testing.T) {
	t.Parallel()
	r, s := registry()
	e, _, err := r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example", Description: "d", EventTypes: []string{"a"}, User: "u"}, "key_1")
	require.NoError(t, err)
	user, types := "", []string{"b", "c"}
	got, err := r.Update(t.Context(), 7, e.ID, webhooks.Patch{User: &user, EventTypes: &types}, "key_2")
	require.NoError(t, err)
	want := e
	want.User, want.EventTypes = "", types
	want.UpdatedAt = now.Add(time.Millisecond) // the clock stands still, but no two changes have the same time
	require.Equal(t, want, got)
	require.Equal(t, want, s.rows[e.ID])

	url := "ftp://a.example"
	_, err = r.Update(t.Context(), 7, e.ID, webhooks.Patch{URL: &url}, "key_2")
	require.Equal(t, []string{"url"}, faultPaths(t, err))
	_, err = r.Update(t.Context(), 8, e.ID, webhooks.Patch{User: &user}, "key_2")
	require.Equal(t, problem.NotFound, problem.CodeOf(err))
	require.Equal(t, want, s.rows[e.ID])
	require.Equal(t, []string{"key_1", "key_2"}, s.actors)

	require.False(t, s.released)
	same, other := want.URL, "https://b.example"
	_, err = r.Update(t.Context(), 7, e.ID, webhooks.Patch{URL: &same}, "key_2")
	require.NoError(t, err)
	require.False(t, s.released, "it is the URL that it was")
	_, err = r.Update(t.Context(), 7, e.ID, webhooks.Patch{URL: &other}, "key_2")
	require.NoError(t, err)
	require.True(t, s.released, "what the one before asked for is not this one's")
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	r, s := registry()
	e, _, err := r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example"}, "key_1")
	require.NoError(t, err)
	paused, err := r.Pause(t.Context(), 7, e.ID, "moving", "key_1")
	require.NoError(t, err)
	require.Equal(t, webhooks.Paused, paused.Status)
	require.Equal(t, "moving", s.rows[e.ID].StatusReason)
	_, err = r.Pause(t.Context(), 7, e.ID, strings.Repeat("x", 501), "key_1")
	require.Equal(t, []string{"reason"}, faultPaths(t, err))

	active, err := r.Resume(t.Context(), 7, e.ID, "key_1")
	require.NoError(t, err)
	require.Equal(t, webhooks.Active, active.Status)
	require.True(t, s.released)
	require.Empty(t, active.StatusReason)
	require.Equal(t, active, s.rows[e.ID])

	got, err := r.Get(t.Context(), 7, e.ID)
	require.NoError(t, err)
	require.Equal(t, active, got)
	require.NoError(t, r.Delete(t.Context(), 7, e.ID, "key_1"))
	_, err = r.Get(t.Context(), 7, e.ID)
	require.Equal(t, problem.NotFound, problem.CodeOf(err))
}

func TestAChangeIsMadeOnTopOfAnother(t *testing.T) {
	t.Parallel()
	r, s := registry()
	e, _, err := r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example"}, "key_1")
	require.NoError(t, err)
	disable := func() {
		d := s.rows[e.ID]
		d.Status, d.StatusReason, d.UpdatedAt = webhooks.Disabled, "webhook.gone", d.UpdatedAt.Add(time.Millisecond)
		s.rows[e.ID] = d
	}
	s.between = func() { s.between = nil; disable() }
	text := "mine"
	got, err := r.Update(t.Context(), 7, e.ID, webhooks.Patch{Description: &text}, "key_1")
	require.NoError(t, err)
	require.Equal(t, "mine", got.Description)
	require.Equal(t, webhooks.Disabled, got.Status, "a patch does not reactivate what was disabled meanwhile")
	require.Equal(t, got, s.rows[e.ID])

	tries := 0
	s.between = func() { tries++; disable() }
	_, err = r.Update(t.Context(), 7, e.ID, webhooks.Patch{Description: &text}, "key_1")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))
	require.Equal(t, 5, tries, "it does not go on for ever")
}

func TestListsAreBounded(t *testing.T) {
	t.Parallel()
	r, _ := registry()
	for limit, want := range map[int]int{-1: 1, 0: 1, 20: 20, 500: 500, 501: 500} {
		list, err := r.List(t.Context(), 7, 0, limit)
		require.NoError(t, err)
		require.Len(t, list, want)
	}
}

func TestANewEndpointNeedsRoom(t *testing.T) {
	t.Parallel()
	s, q, clock := &memory{rows: map[ids.ID]webhooks.Endpoint{}}, &fakeQuota{}, func() time.Time { return now }
	r := webhooks.NewRegistry(webhooks.Options{Store: s, Quota: q, IDs: ids.NewGenerator(1, clock), Now: clock, CheckURL: func(string) error { return nil }})
	e, _, err := r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example/"}, "key_test")
	require.NoError(t, err)
	require.Equal(t, 1, q.added)
	q.full = errors.New("full")
	_, _, err = r.Create(t.Context(), 7, webhooks.NewEndpoint{URL: "https://a.example/"}, "key_test")
	require.Equal(t, q.full, err)
	require.Len(t, s.rows, 1)
	require.NoError(t, r.Delete(t.Context(), 7, e.ID, "key_test"))
	require.Zero(t, q.added)
}

// fakeQuota is a quota that says what a test wants.
type fakeQuota struct {
	full  error
	added int
}

func (q *fakeQuota) Check(ids.ID) error  { return q.full }
func (q *fakeQuota) Add(_ ids.ID, n int) { q.added += n }
