package api

import (
	"fmt"
	"net/http/httptest"
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
