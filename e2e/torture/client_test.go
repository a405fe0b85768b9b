package torture_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long something may take that is only a matter of time.
const patience = 60 * time.Second

// client calls the API as a tenant's backend does, at whichever node lives.
type client struct {
	fleet *fleet
	key   string
	http  *http.Client
	mu    sync.Mutex
	rng   *rand.Rand
}

func newClient(f *fleet, key string, seed uint64) *client {
	return &client{fleet: f, key: key, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		rng: rand.New(rand.NewPCG(seed, 1))}
}

// answer is what came back. A cut answer is none.
type answer struct {
	status int
	body   []byte
}

// intn is a random number below n.
func (c *client) intn(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// base is the URL of a node that lives, or of any when none does: who calls a
// service does not know either.
func (c *client) base() string {
	alive := c.fleet.living()
	if len(alive) == 0 {
		alive = c.fleet.nodes
	}
	return "http://" + c.fleet.doors[alive[c.intn(len(alive))].number].Addr()
}

func (c *client) call(ctx context.Context, method, path, idempotencyKey string, in any) (answer, error) {
	var raw bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&raw).Encode(in); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base()+path, &raw)
	if err != nil {
		return answer{}, err
	}
	req.Header = http.Header{"Authorization": {"Bearer " + c.key}, "Content-Type": {"application/json"}}
	if idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, b}, err
}

// must makes a call again until it works; links and nodes are whole by now.
func (c *client) must(t testing.TB, method, path string, in, out any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		a, err := c.call(ctx, method, path, "", in)
		if err == nil && a.status < 300 {
			if out != nil {
				require.NoError(t, json.Unmarshal(a.body, out))
			}
			return
		}
		if err == nil && a.status < 500 && a.status != http.StatusTooManyRequests {
			t.Fatalf("%s %s: %d: %s", method, path, a.status, a.body)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s %s: does not work for %s: %v %d %s", method, path, patience, err, a.status, a.body)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// each reads all pages of a list.
func each[T any](t testing.TB, c *client, path string, do func(T)) {
	t.Helper()
	for cursor := ""; ; {
		var list struct {
			Data       []T    `json:"data"`
			NextCursor string `json:"next_cursor"`
		}
		c.must(t, "GET", fmt.Sprintf("%s&cursor=%s", path, cursor), nil, &list)
		for _, x := range list.Data {
			do(x)
		}
		if cursor = list.NextCursor; cursor == "" {
			return
		}
	}
}

func parse[T any](t testing.TB, raw []byte) *T {
	t.Helper()
	v := new(T)
	require.NoError(t, json.Unmarshal(raw, v))
	return v
}
