package torture_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// neighbour is a tenant whose receivers hang, trickle, answer late, speak another
// protocol or never finish TLS: whatever is killed is killed while requests hang.
type neighbour struct {
	*client
	promises []promise // of the round
	refused  []answer
	reported map[string]int // deliveries by how they ended, over all rounds
}

// neighbourEndpoints: two of each kind.
const neighbourEndpoints = 12

func newNeighbour(t *testing.T, c *client) *neighbour {
	t.Helper()
	bad, err := simulator.StartHostile()
	require.NoError(t, err)
	t.Cleanup(bad.Stop)
	n := &neighbour{client: c, reported: map[string]int{}}
	c.must(t, "PUT", "/v1/tenant", map[string]any{"settings": map[string]any{"retry": map[string]any{
		"webhook": map[string]any{"delays_ms": []int{50, 200}, "floor_ms": 0}}}}, nil)
	for i := range neighbourEndpoints {
		c.must(t, "POST", "/v1/endpoints", map[string]any{"url": bad.URL(i), "event_types": []string{"*"}}, nil)
	}
	return n
}

// post sends events until it is told to stop. They live a little longer than a request
// may take, so that a round need not wait for what queues behind those that hang.
func (n *neighbour) post(ctx context.Context) {
	for ctx.Err() == nil {
		a, err := n.call(ctx, "POST", "/v1/notifications", "", map[string]any{"type": "order.hostile", "title": "n", "ttl": 3})
		var p promise
		switch {
		case err != nil:
		case a.status >= 300:
			if a.status < 500 && a.status != http.StatusTooManyRequests {
				n.refused = append(n.refused, a)
			}
		case json.Unmarshal(a.body, &p) == nil:
			n.promises = append(n.promises, p)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// judge looks how what was promised in a round has ended. Nobody counts what such
// receivers saw; what was restored from a backup may know less.
func (n *neighbour) judge(t *testing.T, v *verdict, restored bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for _, p := range n.promises {
		for _, r := range p.Deliveries {
			d := n.ended(t, r.ID, deadline)
			switch {
			case d == nil && restored:
			case d == nil:
				v.find(lost, "the neighbour's delivery %s of %s", r.ID, p.ID)
			case !d.final():
				v.find(unfinished, "the neighbour's %s is %s (%s)", d.ID, d.State, d.Reason)
			case d.State != "sent" && d.Reason == "":
				v.find(unexplained, "the neighbour's %s is %s without a reason", d.ID, d.State)
			default:
				n.reported[d.State+" "+d.Reason]++
			}
		}
		if len(p.Deliveries) == 0 {
			v.find(lost, "the neighbour's %s has no delivery", p.ID)
		}
	}
	for _, a := range n.refused {
		v.find(refusal, "the neighbour's event: %d %.200s", a.status, a.body)
	}
	n.promises, n.refused = nil, nil
	t.Logf("the neighbour's so far: %s", counted(n.reported))
}

// ended waits for a delivery to end; nil: there is none.
func (n *neighbour) ended(t *testing.T, id string, deadline time.Time) *stored {
	t.Helper()
	for {
		a, err := n.call(context.Background(), "GET", "/v1/deliveries/"+id, "", nil)
		switch {
		case err == nil && a.status == http.StatusNotFound:
			return nil
		case err == nil && a.status == http.StatusOK:
			if d := parse[stored](t, a.body); d.final() || time.Now().After(deadline) {
				return d
			}
		case time.Now().After(deadline.Add(patience)):
			t.Fatalf("read %s: %v %d", id, err, a.status)
		}
		pause(context.Background(), 20*time.Millisecond)
	}
}
