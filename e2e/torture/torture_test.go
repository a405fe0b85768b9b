// Package torture_test hurts the real program, again and again, and looks for
// what it lost. docs/operations/proof.md tells how to read it.
package torture_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/store/pgtest"
)

var (
	duration = flag.Duration("duration", 0, "how long TestTorture goes on; 0: a few rounds")
	kind     = flag.String("database", "sqlite", "what TestTorture runs on: sqlite or postgres")
	nodes    = flag.Int("nodes", 1, "how many servers share the database; SQLite has one")
	seed     = flag.Uint64("seed", 0, "of the random choices of TestTorture; 0: a new one")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if path, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// TestTorture is the promise put to the test: whatever is killed, cut or broken,
// and whenever, every notification that was answered with 202 comes to an end
// that is explained, and nobody gets it twice without that being said.
func TestTorture(t *testing.T) {
	t.Parallel()
	open := databases(t)
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed %d", s)
	rng := rand.New(rand.NewPCG(s, 0))
	r := newReport(*kind, *nodes)
	defer func() { t.Logf("\n%s", r) }()
	var serial atomic.Int64
	if *duration == 0 {
		a := newArena(t, open, *nodes, rng, r, &serial)
		points := failpoint.Names()
		rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		list := []scenario{killing(4), cutting(), stopping()}
		if a.fleet.canRestore() {
			list = append(list, restoring())
		}
		for _, p := range points[:4] {
			list = append(list, pointed(p))
		}
		play(t, a, list, time.Time{})
		return
	}
	end, arenas := time.Now().Add(*duration), 0
	for time.Now().Before(end) && !t.Failed() {
		arenas++
		t.Run("arena", func(t *testing.T) {
			a := newArena(t, open, *nodes, rng, r, &serial)
			play(t, a, plan(a, rng), end)
		})
		t.Logf("%s to go\n%s", time.Until(end).Round(time.Second), r)
	}
	if missed := r.missed(); len(missed) > 0 {
		t.Logf("fail points that were NOT reached: %v", missed)
		if arenas > 1 { // each had its try at each of them
			t.Error("the run proves nothing about them")
		}
	}
	if !t.Failed() && r.flagged == 0 {
		t.Error("nothing was ever sent twice: the kills met nothing that was under way, or the duplicates are not seen")
	}
}

// databases opens what the flags ask for.
func databases(t *testing.T) func(t *testing.T, dir string) database {
	t.Helper()
	switch {
	case *kind == "postgres" && *nodes > 0:
		return func(t *testing.T, _ string) database { return newPostgres(t, pgtest.Options{}) }
	case *kind == "sqlite" && *nodes == 1:
		return func(_ *testing.T, dir string) database { return newSQLite(dir) }
	}
	t.Fatalf("-database %s -nodes %d: use sqlite with 1 node, or postgres with any number", *kind, *nodes)
	return nil
}

// plan is what an arena goes through: every fail point once, and of everything
// else as much again, in a random order.
func plan(a *arena, rng *rand.Rand) (list []scenario) {
	for _, name := range failpoint.Names() {
		list = append(list, pointed(name))
	}
	for range 10 {
		list = append(list, killing(4), cutting(), stopping())
		for _, h := range a.fleet.db.hurts() {
			list = append(list, hurting(h))
		}
	}
	if a.fleet.canRestore() {
		list = append(list, restoring(), restoring(), restoring())
	}
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// play plays rounds until one finds something, or the time is over; zero: it
// never is.
func play(t *testing.T, a *arena, list []scenario, end time.Time) {
	t.Helper()
	for i, s := range append(list, settling()) {
		if last := i == len(list); !last && !end.IsZero() && time.Now().After(end) {
			continue
		}
		v := a.round(s)
		if *duration > 0 {
			t.Logf("round %d of %d (%s): %d accepted, %d deliveries, %s", i+1, len(list)+1, s.kind, v.accepted, v.deliveries, time.Since(a.began).Round(time.Millisecond))
		}
		for _, f := range v.findings {
			t.Errorf("round %d (%s): %s: %s", i+1, s.kind, f.Kind, f.Detail)
		}
		if t.Failed() {
			for _, n := range a.fleet.nodes {
				t.Logf("the log of node %d ends:\n%s", n.number, n.tail())
			}
			return
		}
	}
}
