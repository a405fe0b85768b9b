package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

func TestRateLimitIsPerTenant(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.Limits = Limits{PerSecond: 2, Burst: 3} })
	get := func(key string) *httptest.ResponseRecorder {
		return w.do(t, request{method: "GET", path: "/v1/endpoints", key: key})
	}
	for left := 2; left >= 0; left-- {
		rec := get(keyAdmin)
		require.Equal(t, 200, rec.Code)
		require.Equal(t, `"requests";q=3;w=2`, rec.Header().Get("RateLimit-Policy"))
		require.Equal(t, fmt.Sprintf(`"requests";r=%d;t=%d`, left, []int{2, 1, 1}[left]), rec.Header().Get("RateLimit"))
	}
	w.did = nil
	rec := get(keyAdmin)
	require.Equal(t, problem.Throttled, problemIn(t, rec).Code)
	require.Equal(t, "1", rec.Header().Get("Retry-After"))
	require.Empty(t, w.did)
	require.Equal(t, 200, get(keyOtherAll).Code, "another tenant has its own bucket")
	w.now = w.now.Add(time.Second)
	require.Equal(t, 200, get(keyAdmin).Code)
}

func TestRequestsAreABudgetWhereThereIsALimit(t *testing.T) {
	t.Parallel()
	require.Nil(t, setup(t).Requests())
	require.NotNil(t, setup(t, func(o *Options) { o.Limits = Limits{PerSecond: 0.5} }).Requests())
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.Limits = Limits{InFlight: 1} })
	entered, release := make(chan struct{}), make(chan struct{})
	w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) {
		close(entered)
		<-release
		return acceptAll(s, epoch)
	}
	first := make(chan int)
	go func() {
		first <- w.do(t, request{method: "POST", path: "/v1/notifications", key: keyAdmin, body: bodies["sendNotification"]}).Code
	}()
	<-entered
	rec := w.do(t, request{method: "GET", path: "/v1/keys", key: keyAdmin})
	require.Equal(t, problem.Unavailable, problemIn(t, rec).Code)
	require.Equal(t, "1", rec.Header().Get("Retry-After"))
	require.Equal(t, 200, w.do(t, request{method: "GET", path: "/readyz"}).Code, "probes are always answered")
	close(release)
	require.Equal(t, 202, <-first)
	require.Equal(t, 200, w.do(t, request{method: "GET", path: "/v1/keys", key: keyAdmin}).Code)
}

// slowBody is a body of which nothing comes until it is told to.
type slowBody struct{ asked, end chan struct{} }

func (b slowBody) Read([]byte) (int, error) {
	b.asked <- struct{}{}
	<-b.end
	return 0, io.ErrUnexpectedEOF
}

// TestUsersWhoSendSlowlyTakeNothingFromTheirTenant: neither one user's requests nor
// those of many keep the tenant's keys, or more than their share of each other, from
// being served.
func TestUsersWhoSendSlowlyTakeNothingFromTheirTenant(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.Limits = Limits{InFlight: 160} }) // 40 for the keys of a tenant, 10 for its users
	asked, end := make(chan struct{}), make(chan struct{})
	var slow sync.WaitGroup
	hang := func(token, path string, n int) {
		for range n {
			slow.Go(func() {
				req := httptest.NewRequest(http.MethodPut, path, slowBody{asked, end})
				req.Header.Set("Authorization", "Bearer "+token)
				req.Header.Set("Content-Type", "application/json")
				w.ServeHTTP(httptest.NewRecorder(), req)
			})
			<-asked
		}
	}
	refused := func(token, path, why string) {
		rec := w.do(t, request{method: "GET", path: path, key: token})
		p := problemIn(t, rec)
		require.Equal(t, problem.Throttled, p.Code)
		require.Equal(t, why, p.Detail)
		require.Equal(t, "1", rec.Header().Get("Retry-After"))
	}
	user := func(name string) string { return tokenUser + " of " + name }
	served := func(token, path string) {
		require.Equal(t, 200, w.do(t, request{method: "GET", path: path, key: token}).Code)
	}
	const mine, keys = "/v1/me/devices", "/v1/keys"
	hang(user("alice"), mine, 4)
	refused(user("alice"), mine, "This user has as many requests in hand as this server allows, which is 4.")
	served(user("bob"), mine)
	hang(user("bob"), mine, 4)
	hang(user("carol"), mine, 2)
	refused(user("dave"), mine, "The users of this tenant have as many requests in hand as this server allows, which is 10.")
	served(keyAdmin, keys)
	hang(keyAdmin, "/v1/devices", 40)
	refused(keyAdmin, keys, "The keys of this tenant have as many requests in hand as this server allows, which is 40.")
	served(keyOtherAll, keys)
	close(end)
	slow.Wait()
	for _, token := range []string{user("alice"), user("dave")} {
		served(token, mine)
	}
	served(keyAdmin, keys)
	require.Empty(t, w.limits.busy, "nothing is left behind")
}

// TestBodiesInHandAreShared: a few large bodies of one tenant leave room for others.
func TestBodiesInHandAreShared(t *testing.T) {
	t.Parallel()
	l := newLimiter(Limits{InFlight: 100, Bytes: 4000}, time.Now)
	hog, other := func() *call { return &call{tenant: 1} }, &call{tenant: 2}
	var held []*call
	for range 2 {
		c := hog()
		require.NoError(t, l.occupy(c, 500))
		held = append(held, c)
	}
	err := l.occupy(hog(), 1)
	require.Equal(t, problem.Throttled, problem.CodeOf(err))
	require.ErrorContains(t, err, "as many bytes as this server allows, which is 1000")
	require.NoError(t, l.occupy(hog(), 0), "what has no body takes none")
	require.Equal(t, 1000, l.usage(1)[2].Used)
	require.NoError(t, l.occupy(other, 3999), "whoever has nothing in hand is served")
	require.Equal(t, problem.Unavailable, problem.CodeOf(l.occupy(&call{tenant: 3}, 2)), "there is an end, with a quarter more for newcomers")
	l.vacate(other)
	require.NoError(t, l.occupy(&call{tenant: 3}, 2))
	for _, c := range held {
		l.vacate(c)
	}
	require.NoError(t, l.occupy(hog(), 1))
}

// TestABodyTakesWhatItSays: a request says how long its body is, or may take the most.
func TestABodyTakesWhatItSays(t *testing.T) {
	t.Parallel()
	w := setup(t)
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("0123456789"))
	withBody := route{hasBody: true}
	require.EqualValues(t, 10, w.bodyOf(withBody, req))
	require.Zero(t, w.bodyOf(route{}, req))
	req.ContentLength = 1 << 40
	require.Equal(t, w.maxBody, w.bodyOf(withBody, req), "more is not read")
	req.ContentLength = -1
	require.Equal(t, w.maxBody, w.bodyOf(withBody, req))
	require.Equal(t, min(w.maxBody, maxUserBody), w.bodyOf(route{hasBody: true, access: access{kind: byUser}}, req))
}
