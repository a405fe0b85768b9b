package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

// TestALimitOfRequestsIsThatOfAllServers: what a tenant asks one server is taken
// off what another allows it.
func TestALimitOfRequestsIsThatOfAllServers(t *testing.T) {
	t.Parallel()
	const perSecond = 400
	i := install(t)
	i.environ = append(i.environ, "CARILLON_DATABASE_URL="+pgtest.Empty(t), "CARILLON_DATABASE_CONNECTIONS=8",
		fmt.Sprintf("CARILLON_LIMITS_REQUESTS_PER_SECOND=%d", perSecond))
	i.must("migrate", "up")
	i.must("tenant", "create", "acme")
	key := i.must("key", "create", "--tenant", "acme", "--scopes", "admin")
	one, other := i.serve(), i.serve()
	left := func(s *serving) (n int) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/keys", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		_, err = fmt.Sscanf(res.Header.Get("RateLimit"), `"requests";r=%d`, &n)
		require.NoError(t, err)
		return n
	}
	require.Equal(t, 2*perSecond-1, left(other), "two seconds' worth, while nothing else is used")
	eventually(t, func() bool {
		for range 50 {
			left(one)
		}
		// Without the use of the other server this one, asked now and then, is full.
		return left(other) < 2*perSecond-perSecond/20
	}, "the other server allows less")
}
