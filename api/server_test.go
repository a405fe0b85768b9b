package api

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := New(Options{})
	for _, name := range []string{"Engine", "Reads", "Tenants", "Devices", "Endpoints"} {
		require.ErrorContains(t, err, "Options."+name)
	}
}

func TestWhatRoutersUsuallyAnswerInPlainText(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, c := range []struct {
		name string
		req  request
		code problem.Code
	}{
		{"no such path", request{method: "GET", path: "/v1/nothing"}, problem.NotFound},
		{"no such path outside", request{method: "GET", path: "/favicon.ico"}, problem.NotFound},
		{"trailing slash", request{method: "GET", path: "/v1/keys/", key: keyAdmin}, problem.NotFound},
		{"method", request{method: "PATCH", path: "/v1/keys", key: keyAdmin}, problem.MethodNotAllowed},
		{"accept", request{method: "GET", path: "/v1/keys", key: keyAdmin, header: map[string]string{"Accept": "text/html, application/xml;q=0.9"}}, problem.NotAcceptable},
		{"accept, weight zero", request{method: "GET", path: "/v1/keys", key: keyAdmin, header: map[string]string{"Accept": "application/json;q=0"}}, problem.NotAcceptable},
		{"media type", request{method: "POST", path: "/v1/keys", key: keyAdmin, body: "a=b", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}}, problem.UnsupportedMedia},
		{"no media type", request{method: "POST", path: "/v1/keys", key: keyAdmin, body: "{}", header: map[string]string{"Content-Type": ""}}, problem.UnsupportedMedia},
		{"charset", request{method: "POST", path: "/v1/keys", key: keyAdmin, body: "{}", header: map[string]string{"Content-Type": "application/json; charset=latin1"}}, problem.UnsupportedMedia},
		{"encoding", request{method: "POST", path: "/v1/keys", key: keyAdmin, body: "{}", header: map[string]string{"Content-Encoding": "gzip"}}, problem.UnsupportedMedia},
		{"too large", request{method: "POST", path: "/v1/keys", key: keyAdmin, body: `{"name":"` + strings.Repeat("x", 4096) + `"}`}, problem.TooLarge},
		{"no body", request{method: "POST", path: "/v1/keys", key: keyAdmin, header: map[string]string{"Content-Type": "application/json"}}, problem.Malformed},
	} {
		rec := w.do(t, c.req)
		require.Equal(t, c.code, problemIn(t, rec).Code, c.name)
		require.Equal(t, c.code == problem.MethodNotAllowed, rec.Header().Get("Allow") != "", c.name)
	}
	require.Empty(t, w.did)
	for _, accept := range []string{"*/*", "application/json", "application/*;q=0.5", "text/html, */*;q=0.1", "application/problem+json"} {
		require.Equal(t, 200, w.do(t, request{method: "GET", path: "/v1/keys", key: keyAdmin, header: map[string]string{"Accept": accept}}).Code, accept)
	}
	require.Equal(t, 201, w.do(t, request{method: "POST", path: "/v1/keys", key: keyAdmin, body: bodies["createKey"],
		header: map[string]string{"Content-Type": "application/json; charset=UTF-8"}}).Code)
}

// counted tells how much of a body was read.
type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

func TestALongBodyIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, announced := range []int64{-1, 1 << 20} {
		body := &counted{Reader: strings.NewReader(strings.Repeat(" ", 1<<20))}
		req := httptest.NewRequest(http.MethodPost, "/v1/notifications", body)
		req.ContentLength = announced
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+keyAdmin)
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, req)
		require.Equal(t, problem.TooLarge, problemIn(t, rec).Code)
		require.LessOrEqual(t, body.read, 2*4096)
	}
	body := &counted{Reader: strings.NewReader("{}")}
	req := httptest.NewRequest(http.MethodPost, "/v1/notifications", body)
	req.Header.Set("Content-Type", "application/json")
	w.ServeHTTP(httptest.NewRecorder(), req)
	require.Zero(t, body.read, "nothing is read for who is not known")
}

func TestABodyThatEndsTooEarly(t *testing.T) {
	t.Parallel()
	w := setup(t)
	req := httptest.NewRequest(http.MethodPost, "/v1/notifications", strings.NewReader(`{"title":`))
	req.ContentLength = 100
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+keyAdmin)
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	require.Equal(t, problem.Malformed, problemIn(t, rec).Code)
}

func TestInternalErrorsShowNothing(t *testing.T) {
	t.Parallel()
	w := setup(t)
	secret := "SELECT * FROM deliveries at /srv/store.go:17"
	path := sampleRequest(route{path: "/v1/notifications/{id}"}).path
	check := func(rec *httptest.ResponseRecorder) {
		t.Helper()
		p := problemIn(t, rec)
		require.Equal(t, problem.Internal, p.Code)
		require.NotContains(t, rec.Body.String(), "SELECT")
		require.NotContains(t, rec.Body.String(), ".go")
		require.Contains(t, w.log.String(), p.RequestID)
		require.Contains(t, w.log.String(), "SELECT")
		w.log.Reset()
	}
	w.reads.failWith = errors.New(secret)
	check(w.do(t, request{method: "GET", path: path, key: keyAdmin}))

	w.engine.accept = func(delivery.Submission) (delivery.Answer, error) { panic(secret) }
	check(w.do(t, request{method: "POST", path: "/v1/notifications", key: keyAdmin, body: bodies["sendNotification"]}))

	w.engine.accept = func(delivery.Submission) (delivery.Answer, error) { panic(http.ErrAbortHandler) }
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		w.do(t, request{method: "POST", path: "/v1/notifications", key: keyAdmin, body: bodies["sendNotification"]})
	})
	rec := httptest.NewRecorder()
	w.metrics.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Contains(t, rec.Body.String(), "carillon_http_requests_in_flight 0")
}

// gone is a connection whose other end has left.
type gone struct{ *httptest.ResponseRecorder }

func (gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestAClientThatLeftIsNoPanic(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, path := range []string{"/v1/keys", "/v1/nothing"} {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		req.Header.Set("Authorization", "Bearer "+keyAdmin)
		w.ServeHTTP(gone{httptest.NewRecorder()}, req)
	}
	require.Empty(t, w.log.String())
}

func TestOverRealConnections(t *testing.T) {
	t.Parallel()
	w := setup(t)
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	post := func(body io.Reader) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/notifications", body)
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+keyAdmin)
		res, err := server.Client().Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	require.Equal(t, 202, post(strings.NewReader(aNotification)).StatusCode)
	require.Equal(t, 202, post(io.MultiReader(strings.NewReader(aNotification[:10]), strings.NewReader(aNotification[10:]))).StatusCode, "in chunks")
	require.Equal(t, 413, post(strings.NewReader(strings.Repeat(" ", 5000))).StatusCode)
	require.Equal(t, 413, post(io.MultiReader(strings.NewReader(strings.Repeat(" ", 5000)))).StatusCode, "in chunks")
	w.engine.accept = func(delivery.Submission) (delivery.Answer, error) { panic("x") }
	require.Equal(t, 500, post(strings.NewReader(aNotification)).StatusCode)
}

func TestStoredTextThatIsNoUTF8IsStillShown(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.holds = []delivery.Hold{{ID: theHold, Scope: delivery.HoldEndpoint, Subject: theEndpoint, Detail: "a\xffb", Since: epoch}}
	require.Equal(t, "a\ufffdb", jsonIn[List[Hold]](t, w.do(t, get("/v1/holds", keyAdmin)), 200).Data[0].Detail)
}

func TestProblemsOfOtherPackagesKeepTheirCodeAndWait(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, code := range codes() {
		w.engine.accept = func(delivery.Submission) (delivery.Answer, error) {
			return delivery.Answer{}, &problem.Error{Code: code, Detail: "d", Fields: []problem.Field{{Path: "a.b[1]", Detail: "x"}}, RetryAfter: 1500 * time.Millisecond}
		}
		rec := w.do(t, request{method: "POST", path: "/v1/notifications", key: keyAdmin, body: bodies["sendNotification"]})
		p := problemIn(t, rec)
		require.Equal(t, code, p.Code)
		require.Equal(t, []problem.Field{{Path: "a.b[1]", Detail: "x"}}, p.Errors)
		require.Equal(t, "2", rec.Header().Get("Retry-After"))
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	w := setup(t)
	got := map[string]bool{}
	for _, given := range []string{"", "short", "has space in it", "<script>alert</script>", strings.Repeat("x", 65), "line\nbreak-here"} {
		rec := w.do(t, request{method: "GET", path: "/healthz", header: map[string]string{"X-Request-Id": given}})
		id := rec.Header().Get("X-Request-Id")
		require.Regexp(t, `^[0-9a-z]{24}$`, id)
		require.False(t, got[id])
		got[id] = true
	}
	rec := w.do(t, request{method: "GET", path: "/v1/nothing", header: map[string]string{"X-Request-Id": "0af7651916cd-43dd_8448.eb"}})
	require.Equal(t, "0af7651916cd-43dd_8448.eb", problemIn(t, rec).RequestID)
}

func TestParametersAreCheckedInTheSameWords(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for query, path := range map[string]string{
		"limit=0": "limit", "limit=201": "limit", "limit=x": "limit", "nonsense=1": "nonsense", "state=lost": "state", "channel=sms": "channel",
		"reason=because": "reason", "since=yesterday": "since", "cursor=AAAA": "cursor", "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": "until",
	} {
		p := problemIn(t, w.do(t, request{method: "GET", path: "/v1/deliveries?" + query, key: keyAdmin}))
		require.Equal(t, problem.Invalid, p.Code, query)
		require.Len(t, p.Errors, 1, query)
		require.Equal(t, path, p.Errors[0].Path, query)
		require.NotEmpty(t, p.Errors[0].Detail, query)
	}
	require.Empty(t, w.did)
	p := problemIn(t, w.do(t, request{method: "PUT", path: "/v1/apps/default/credentials/sms", key: keyAdmin, body: "{}"}))
	require.Equal(t, "channel", p.Errors[0].Path)
}

func TestAUsersIDMayHoldAnything(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, user := range []string{"u/1", "a b", "ä@x", "100%", "a+b", "devices/x"} {
		w.did = nil
		rec := w.do(t, request{method: "GET", path: "/v1/users/" + url.PathEscape(user) + "/notifications", key: keyAdmin})
		require.Equal(t, 200, rec.Code, rec.Body.String())
		require.Equal(t, []string{"notifications of " + user}, w.did)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	w := setup(t)
	require.Equal(t, `{"status":"ok"}`, w.do(t, request{method: "GET", path: "/healthz"}).Body.String())
	require.Equal(t, `{"status":"ready"}`, w.do(t, request{method: "GET", path: "/readyz"}).Body.String())
	w.engine.overdue = 3
	require.Equal(t, `{"status":"ready","overdue_sends":3}`, w.do(t, request{method: "GET", path: "/readyz"}).Body.String())
	w.engine.ready = errors.New("claims stand still since 10 s")
	p := problemIn(t, w.do(t, request{method: "GET", path: "/readyz"}))
	require.Equal(t, problem.Unavailable, p.Code)
	require.Contains(t, p.Detail, "claims stand still")
	require.Equal(t, 200, w.do(t, request{method: "HEAD", path: "/healthz"}).Code)
}

func TestPagesOfOthers(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method+" "+r.URL.Path) })
	w := setup(t, func(o *Options) { o.SDK, o.Demo = echo, echo })
	require.Equal(t, "GET /sdk/v1/carillon.js", w.do(t, request{method: "GET", path: "/sdk/v1/carillon.js"}).Body.String())
	require.Equal(t, "GET /demo", w.do(t, request{method: "GET", path: "/demo"}).Body.String())
	rec := w.do(t, request{method: "POST", path: "/demo/token"})
	require.Equal(t, "POST /demo/token", rec.Body.String())
	require.Equal(t, "DENY", rec.Header().Get("X-Frame-Options"))
	missing := setup(t, func(o *Options) { o.SDK, o.Demo = http.NotFoundHandler(), http.NotFoundHandler() })
	for _, path := range []string{"/sdk/v1/nope", "/demo/nope", "/demo"} {
		p := problemIn(t, missing.do(t, request{method: "GET", path: path}))
		require.Equal(t, problem.NotFound, p.Code)
	}
	require.Equal(t, 404, missing.do(t, request{method: "HEAD", path: "/sdk/v1/nope"}).Code)
	bare := setup(t)
	require.Equal(t, 404, bare.do(t, request{method: "GET", path: "/demo"}).Code)
	require.Equal(t, 404, bare.do(t, request{method: "GET", path: "/sdk/v1/carillon.js"}).Code)
}

func TestMetricsCountByRouteNeverByID(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	w := setup(t, func(o *Options) { o.Metrics = m })
	w.do(t, sampleRequestWith(route{method: "GET", path: "/v1/notifications/{id}"}, keyAdmin))
	w.do(t, request{method: "BREW", path: "/v1/coffee"})
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := rec.Body.String()
	require.Contains(t, text, `carillon_http_request_duration_seconds_count{method="GET",route="/v1/notifications/:id",status="200"} 1`)
	require.Contains(t, text, `carillon_http_request_duration_seconds_count{method="any",route="unmatched",status="404"} 1`)
	require.NotContains(t, text, "ntf_")
	require.Contains(t, text, "carillon_http_requests_in_flight 0")
	families, err := m.Registry().Gather()
	require.NoError(t, err)
	faults, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, faults)
}

func sampleRequestWith(r route, key string) request {
	out := sampleRequest(r)
	out.key = key
	return out
}

func TestScopesOfRoutesExist(t *testing.T) {
	t.Parallel()
	for _, r := range setup(t).routes() {
		if r.access.kind == byKey {
			require.Contains(t, tenants.Scopes(), r.access.scope, r.id)
		}
	}
}
