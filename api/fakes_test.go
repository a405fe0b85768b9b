package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

// Ids that the tests know. Everything belongs to tenantA.
const (
	tenantA ids.ID = 1<<22 + iota
	tenantB
	theKey
	theNotification
	theTarget
	theDevice
	theEndpoint
	theCredential
	theUserKey
	theHold
	theJob
	theErasure
)

var epoch = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func absent() error { return problem.New(problem.NotFound, "There is no such thing.") }

// world is a server over fakes. Calls that read or change something write their
// name to did, so that a test can say that nothing else happened.
type world struct {
	*Server
	engine    *fakeEngine
	reads     *fakeReads
	tenants   *fakeTenants
	devices   *fakeDevices
	endpoints *fakeEndpoints
	jobs      *fakeJobs
	log       *bytes.Buffer
	now       time.Time

	mu  sync.Mutex
	did []string
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, what)
}

func setup(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := &world{log: &bytes.Buffer{}, now: epoch}
	w.engine = &fakeEngine{w: w}
	w.reads = &fakeReads{w: w}
	w.tenants = &fakeTenants{w: w}
	w.devices = &fakeDevices{w: w}
	w.endpoints = &fakeEndpoints{w: w}
	w.jobs = &fakeJobs{w: w, kind: jobs.ReplayDeadLetters}
	o := Options{Jobs: w.jobs, Engine: w.engine, Reads: w.reads, Tenants: w.tenants, Devices: w.devices, Endpoints: w.endpoints,
		Log: slog.New(slog.NewTextHandler(w.log, nil)), Now: func() time.Time { return w.now }, MaxBody: 4096, Version: "test"}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	require.NoError(t, err)
	w.Server = s
	return w
}

// request is a request of a test; its zero members are left out.
type request struct {
	method, path, key, tenant, body string
	header                          map[string]string
}

func (w *world) do(t testing.TB, r request) *httptest.ResponseRecorder {
	t.Helper()
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req := httptest.NewRequestWithContext(t.Context(), r.method, r.path, body)
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Authorization", "Bearer "+r.key)
	}
	if r.tenant != "" {
		req.Header.Set(tenantHeader, r.tenant)
	}
	for k, v := range r.header {
		if v == "" {
			req.Header.Del(k)
		} else {
			req.Header[http.CanonicalHeaderKey(k)] = []string{v}
		}
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	return rec
}

// problemIn checks that an answer is a well-formed problem and returns it.
func problemIn(t testing.TB, rec *httptest.ResponseRecorder) Problem {
	t.Helper()
	require.Equal(t, problemType, rec.Header().Get("Content-Type"), rec.Body.String())
	var p Problem
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &p))
	require.Equal(t, rec.Code, p.Status)
	require.Equal(t, statusOf(p.Code), p.Status)
	require.Equal(t, http.StatusText(p.Status), p.Title)
	require.Equal(t, "about:blank", p.Type)
	require.NotEmpty(t, p.Detail)
	require.NotEmpty(t, p.RequestID)
	require.Equal(t, rec.Header().Get(requestIDHeader), p.RequestID)
	return p
}

func jsonIn[T any](t testing.TB, rec *httptest.ResponseRecorder, status int) T {
	t.Helper()
	require.Equal(t, status, rec.Code, rec.Body.String())
	require.Equal(t, jsonType, rec.Header().Get("Content-Type"))
	var v T
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &v), rec.Body.String())
	return v
}

type fakeEngine struct {
	w       *world
	accept  func(delivery.Submission) (delivery.Answer, error)
	ready   error
	pause   delivery.Pause
	overdue int
	order   delivery.ReplayOrder // of the last replay or count
	restore delivery.DeviceRestoreOrder
	exact   bool // what counting says of itself
}

var _ Engine = (*fakeEngine)(nil)

func (e *fakeEngine) Accept(_ context.Context, s delivery.Submission) (delivery.Answer, error) {
	e.w.note("accept")
	if e.accept != nil {
		return e.accept(s)
	}
	return acceptAll(s, e.w.now)
}

// acceptAll accepts what Check lets pass, as the engine does.
func acceptAll(s delivery.Submission, now time.Time) (delivery.Answer, error) {
	receipts := make([]delivery.Receipt, len(s.Requests))
	for i := range s.Requests {
		var err error
		if s.Refused != nil {
			err = s.Refused[i]
		}
		if err == nil {
			err = s.Requests[i].Check(now)
		}
		if err != nil && s.Refused == nil {
			return delivery.Answer{}, err
		}
		receipts[i] = delivery.Receipt{Err: err, Notification: theNotification,
			Deliveries: []delivery.DeliveryRef{{Target: theTarget, Channel: channels.FCM, User: "u1"}},
			Skips:      []delivery.Skip{{User: "u2", Channel: channels.APNs, Reason: delivery.SkipNoDevice}, {Target: theEndpoint, Channel: channels.Webhook, Reason: delivery.SkipUnknownTarget}}}
	}
	status, body, err := s.Render(receipts)
	return delivery.Answer{Status: status, Body: body}, err
}

func (e *fakeEngine) DryRun(_ context.Context, _ ids.ID, r delivery.Request) (delivery.Preview, error) {
	e.w.note("dry run")
	return delivery.Preview{Deliveries: []delivery.DeliveryRef{{Target: theTarget, Channel: channels.FCM, User: "u1"}},
		Payloads: []delivery.PayloadPreview{{Channel: channels.FCM, Size: 12, Payload: json.RawMessage(`{"x":1}`)}}}, r.Check(e.w.now)
}

func (e *fakeEngine) Cancel(_ context.Context, tenant, n ids.ID) (int, error) {
	e.w.note("cancel")
	if tenant != tenantA || n != theNotification {
		return 0, absent()
	}
	return 3, nil
}

func (e *fakeEngine) Replay(_ context.Context, tenant, n, target ids.ID, _ string) error {
	e.w.note("replay")
	if tenant != tenantA || n != theNotification {
		return absent()
	}
	if target != theTarget {
		return problem.New(problem.Conflict, "The delivery is sent, not dead.")
	}
	return nil
}

func (e *fakeEngine) SendNow(_ context.Context, tenant, n, target ids.ID, _ string) error {
	e.w.note("send now")
	if tenant != tenantA || n != theNotification || target != theTarget {
		return absent()
	}
	return nil
}

func (e *fakeEngine) ReplayAll(_ context.Context, o delivery.ReplayOrder) (delivery.Answer, error) {
	e.w.note("replay all")
	e.order = o
	status, body, err := o.Render(e.w.jobs.aJob(jobs.Queued))
	return delivery.Answer{Status: status, Body: body}, err
}

func (e *fakeEngine) CountDead(_ context.Context, o delivery.ReplayOrder) (int, bool, error) {
	e.w.note("count dead")
	e.order = o
	return 7, e.exact, nil
}

func (e *fakeEngine) RestoreDevices(_ context.Context, o delivery.DeviceRestoreOrder) (delivery.Answer, error) {
	e.w.note("restore devices")
	e.restore = o
	status, body, err := o.Render(e.w.jobs.aJob(jobs.Queued))
	return delivery.Answer{Status: status, Body: body}, err
}

func (e *fakeEngine) CountRestorable(_ context.Context, o delivery.DeviceRestoreOrder) (int, bool, error) {
	e.w.note("count restorable")
	e.restore = o
	return 7, e.exact, nil
}

func (e *fakeEngine) EraseUser(_ context.Context, _ ids.ID, user, actor string) (delivery.Erasure, error) {
	e.w.note("erase " + user + " by " + actor)
	return anErasure(), nil
}

func (e *fakeEngine) Ready() error         { return e.ready }
func (e *fakeEngine) Overdue() int         { return e.overdue }
func (e *fakeEngine) Busiest(int) []ids.ID { return []ids.ID{tenantB, tenantA} }

func (e *fakeEngine) Usage(ids.ID) []delivery.Usage {
	return []delivery.Usage{{Limit: delivery.LimitDue, Used: 250, Most: 500, Waiting: 3, Clears: time.Minute}}
}

func (e *fakeEngine) Sending() delivery.Pause { return e.pause }

func (e *fakeEngine) PauseSending(_ context.Context, reason, actor string) (delivery.Pause, error) {
	e.w.note("pause sending")
	e.pause = delivery.Pause{Since: epoch, Reason: reason, Actor: actor}
	return e.pause, nil
}

func (e *fakeEngine) ResumeSending(context.Context, string) (delivery.Pause, error) {
	e.w.note("resume sending")
	if !e.pause.Restored.IsZero() {
		return e.pause, problem.New(problem.Conflict, "Judge it first.")
	}
	e.pause = delivery.Pause{}
	return e.pause, nil
}

func (e *fakeEngine) EndpointsChanged(_, which ids.ID) {
	e.w.note("changed " + which.Format(ids.Endpoint))
}

type fakeReads struct {
	w        *world
	stored   func(delivery.Idempotency) (delivery.Answer, bool, error)
	query    delivery.Query // of the last list
	rows     []delivery.View
	window   delivery.Cursor
	holds    []delivery.Hold
	waits    []delivery.Wait
	failWith error
	content  json.RawMessage
	affected delivery.Affected
	by       delivery.AffectedBy // of the last look
}

var _ delivery.Reader = (*fakeReads)(nil)

func aView() delivery.View {
	return delivery.View{Notification: theNotification, Target: theTarget, Channel: channels.FCM, User: "u1", App: "default", State: delivery.Dead,
		Reason: delivery.Exhausted, HoldID: theHold, Round: 1, Spent: 2, CreatedAt: epoch, UpdatedAt: epoch.Add(time.Second),
		Last: delivery.Attempt{Number: 2, At: epoch, Duration: 1500 * time.Millisecond, Outcome: channels.Retry, Code: "fcm.unavailable", Status: 503}}
}

func (l *fakeReads) Notification(_ context.Context, tenant, id ids.ID) (delivery.NotificationView, error) {
	l.w.note("notification")
	if l.failWith != nil {
		return delivery.NotificationView{}, l.failWith
	}
	if tenant != tenantA || id != theNotification {
		return delivery.NotificationView{}, absent()
	}
	return delivery.NotificationView{ID: id, CreatedAt: epoch, Content: l.content, Counts: map[delivery.State]int{delivery.Sent: 2}}, nil
}

func (l *fakeReads) Delivery(_ context.Context, tenant, n, target ids.ID) (delivery.View, error) {
	l.w.note("delivery")
	if tenant != tenantA || n != theNotification || target != theTarget {
		return delivery.View{}, absent()
	}
	v := aView()
	v.Attempts = []delivery.Attempt{{Number: 1, At: epoch, Outcome: channels.Unknown}, v.Last}
	return v, nil
}

func (l *fakeReads) Deliveries(_ context.Context, tenant ids.ID, q delivery.Query) ([]delivery.View, error) {
	l.w.note("deliveries")
	l.query = q
	if tenant != tenantA {
		return nil, nil
	}
	return l.rows[:min(len(l.rows), q.Limit)], nil
}

func (l *fakeReads) DeliveryWindow(context.Context, ids.ID, delivery.Query, bool) (delivery.Cursor, error) {
	return l.window, nil
}

func (l *fakeReads) DeadLetters(_ context.Context, _ ids.ID, q delivery.Query) ([]delivery.View, error) {
	l.w.note("dead letters")
	l.query = q
	return l.rows[:min(len(l.rows), q.Limit)], nil
}

func (l *fakeReads) Holds(context.Context, ids.ID) ([]delivery.Hold, error) {
	l.w.note("holds")
	return l.holds, nil
}

func (l *fakeReads) StandingHolds(context.Context, ids.ID) ([]delivery.Hold, error) {
	return l.holds, nil
}

func (l *fakeReads) Waits(context.Context, ids.ID) ([]delivery.Wait, error) {
	l.w.note("waits")
	return l.waits, nil
}

func (l *fakeReads) Affected(_ context.Context, tenant ids.ID, by delivery.AffectedBy) (delivery.Affected, error) {
	l.w.note("look")
	l.by = by
	if tenant != tenantA || by.Endpoint != 0 && by.Endpoint != theEndpoint || by.Credential != 0 && by.Credential != theCredential {
		return delivery.Affected{}, absent()
	}
	return l.affected, nil
}

func anErasure() delivery.Erasure {
	return delivery.Erasure{ID: theErasure, Tenant: tenantA, Subject: "00ff", Job: theJob, Actor: "key_1", Origin: delivery.ErasureAsked, RequestedAt: epoch,
		Rows: map[string]int{"devices": 2}}
}

func (l *fakeReads) Erasures(_ context.Context, _, after ids.ID, _ int) ([]delivery.Erasure, error) {
	l.w.note("erasures")
	if after != 0 {
		return nil, nil
	}
	return []delivery.Erasure{anErasure()}, nil
}

func (l *fakeReads) Erasure(_ context.Context, tenant, id ids.ID) (delivery.Erasure, error) {
	l.w.note("erasure")
	if tenant != tenantA || id != theErasure {
		return delivery.Erasure{}, absent()
	}
	return anErasure(), nil
}

func (l *fakeReads) UserNotifications(_ context.Context, _ ids.ID, user string, after ids.ID, limit int) ([]delivery.NotificationView, error) {
	l.w.note("notifications of " + user)
	var out []delivery.NotificationView
	for id := after + 1; id <= 3 && len(out) < limit; id++ {
		out = append(out, delivery.NotificationView{ID: id, CreatedAt: epoch})
	}
	return out, nil
}

func (l *fakeReads) Stored(_ context.Context, _ ids.ID, i delivery.Idempotency) (delivery.Answer, bool, error) {
	l.w.note("stored")
	if l.stored == nil {
		return delivery.Answer{}, false, nil
	}
	return l.stored(i)
}

type fakeJobs struct {
	w     *world
	query jobs.Query // of the last list
	kind  jobs.Kind
}

var _ jobs.Registry = (*fakeJobs)(nil)

func (f *fakeJobs) aJob(state jobs.State) jobs.Job {
	return jobs.Job{ID: theJob, Tenant: tenantA, Kind: f.kind, State: state, Spec: json.RawMessage(`{"per_second":100}`),
		Cursor: json.RawMessage(`"cursor-never-shown"`), Total: 10, Done: 3, Skipped: 1, Actor: "key_x", CreatedAt: epoch, UpdatedAt: epoch}
}

func (f *fakeJobs) has(tenant, id ids.ID) bool { return id == theJob && tenant == tenantA }

func (f *fakeJobs) Job(_ context.Context, tenant, id ids.ID) (jobs.Job, error) {
	f.w.note("job")
	if !f.has(tenant, id) {
		return jobs.Job{}, absent()
	}
	return f.aJob(jobs.Running), nil
}

func (f *fakeJobs) Jobs(_ context.Context, tenant ids.ID, q jobs.Query) ([]jobs.Job, error) {
	f.w.note("jobs of " + tenant.Format(ids.Tenant))
	f.query = q
	return []jobs.Job{f.aJob(jobs.Running), f.aJob(jobs.Done)}[:min(2, q.Limit)], nil
}

func (f *fakeJobs) CancelJob(_ context.Context, tenant, id ids.ID, _ string) (jobs.Job, error) {
	f.w.note("cancel job")
	if !f.has(tenant, id) {
		return jobs.Job{}, absent()
	}
	return f.aJob(jobs.Canceled), nil
}

type fakeEndpoints struct {
	w     *world
	patch webhooks.Patch
}

var _ Endpoints = (*fakeEndpoints)(nil)

func anEndpoint() webhooks.Endpoint {
	return webhooks.Endpoint{Tenant: tenantA, ID: theEndpoint, URL: "https://example.com/hook", Status: webhooks.Active, CreatedAt: epoch, UpdatedAt: epoch,
		Secrets: []webhooks.Secret{{Key: []byte("endpoint-secret-never-shown")}}}
}

func (e *fakeEndpoints) one(what string, tenant, id ids.ID) (webhooks.Endpoint, error) {
	e.w.note(what)
	if tenant != tenantA || id != theEndpoint {
		return webhooks.Endpoint{}, absent()
	}
	return anEndpoint(), nil
}

func (e *fakeEndpoints) Create(_ context.Context, tenant ids.ID, _ webhooks.NewEndpoint, _ string) (webhooks.Endpoint, string, error) {
	e.w.note("create endpoint")
	return anEndpoint(), "whsec_shown_once", nil
}

func (e *fakeEndpoints) Get(_ context.Context, tenant, id ids.ID) (webhooks.Endpoint, error) {
	return e.one("get endpoint", tenant, id)
}

func (e *fakeEndpoints) List(context.Context, ids.ID, ids.ID, int) ([]webhooks.Endpoint, error) {
	e.w.note("list endpoints")
	return []webhooks.Endpoint{anEndpoint()}, nil
}

func (e *fakeEndpoints) Update(_ context.Context, tenant, id ids.ID, p webhooks.Patch, _ string) (webhooks.Endpoint, error) {
	e.patch = p
	return e.one("update endpoint", tenant, id)
}

func (e *fakeEndpoints) Pause(_ context.Context, tenant, id ids.ID, _, _ string) (webhooks.Endpoint, error) {
	return e.one("pause endpoint", tenant, id)
}

func (e *fakeEndpoints) Resume(_ context.Context, tenant, id ids.ID, _ string) (webhooks.Endpoint, error) {
	return e.one("resume endpoint", tenant, id)
}

func (e *fakeEndpoints) Delete(_ context.Context, tenant, id ids.ID, _ string) error {
	_, err := e.one("delete endpoint", tenant, id)
	return err
}
