package torture_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// scenario is what happens to a fleet in a round.
type scenario struct {
	kind string // for the table
	play func(*arena)
}

// killing kills random nodes at random moments under load, several times.
func killing(times int) scenario {
	return scenario{"kill", func(a *arena) {
		for range 1 + a.rng.IntN(times) {
			l := a.load(nil)
			l.begin()
			a.wait(l, 1+a.rng.IntN(120))
			for _, n := range a.some() {
				n.kill(a.t)
				a.report.kills++
			}
			l.end()
			a.revive()
		}
	}}
}

// some are between one and all of the nodes that live.
func (a *arena) some() []*node {
	alive := a.fleet.living()
	a.rng.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
	return alive[:min(len(alive), 1+a.rng.IntN(max(len(alive), 1)))]
}

// wait returns when so many notifications were accepted, or after a while.
func (a *arena) wait(l *load, want int) {
	deadline := time.Now().Add(5 * time.Second)
	for l.got.Load() < int64(want) && time.Now().Before(deadline) {
		pause(context.Background(), time.Millisecond)
	}
}

// stopping ends a node in order under load: not a single delivery may be lost to
// that either.
func stopping() scenario {
	return scenario{"stop", func(a *arena) {
		l := a.load(nil)
		l.begin()
		a.wait(l, 20+a.rng.IntN(100))
		for _, n := range a.some() {
			n.signal(a.t, syscall.SIGTERM)
		}
		l.end()
	}}
}

// pointed lets a node kill itself at a fail point under a load that leads there:
// at a random hit, or at the first if that one does not come in time.
func pointed(point string) scenario {
	return scenario{"fail point", func(a *arena) {
		_, most := leading(point)
		victim := a.fleet.nodes[a.rng.IntN(len(a.fleet.nodes))]
		for _, at := range []int{1 + a.rng.IntN(most), 1} {
			victim.kill(a.t)
			a.lead(victim, point, at)
			if victim.killedAt() == point {
				a.report.points[point]++
				return
			}
		}
		victim.kill(a.t) // it may still be waiting for the point
	}}
}

// lead starts a node that kills itself at a hit of a point, and leads it there.
func (a *arena) lead(victim *node, point string, at int) {
	a.t.Helper()
	switch {
	case strings.HasPrefix(point, "hold."):
		a.sim.SetFault("fcm", simulator.Fault{Status: http.StatusForbidden, Reason: "PERMISSION_DENIED"})
	case strings.HasPrefix(point, "claim."):
		a.sim.SetFault("webhook", simulator.Fault{Status: http.StatusServiceUnavailable, Times: 200})
	case point == "resume.between":
		victim.start(a.t, "")
		a.holdMany()
		victim.kill(a.t)
	}
	if !victim.start(a.t, fmt.Sprintf("%s=kill@%d", point, at)) {
		return
	}
	mix, _ := leading(point)
	l := a.load(mix)
	l.begin()
	if point == "resume.between" || strings.HasPrefix(point, "hold.") {
		_, _ = a.call(context.Background(), "POST", a.pausable[0]+"/resume", "", nil) // its answer may never come
	}
	select {
	case <-victim.gone():
	case <-time.After(8 * time.Second):
	}
	l.end()
}

// leading is a mix that leads to a point, and at which of its hits a node may
// reasonably be killed at the latest.
func leading(point string) (mix func(*[wishes]int), most int) {
	more := func(w wish, n int) func(*[wishes]int) {
		return func(m *[wishes]int) { m[w] += n }
	}
	part, _, _ := strings.Cut(point, ".")
	switch part {
	case "unfold":
		return more(postAhead, 60), 2
	case "begin":
		return more(postAtMostOnce, 60), 20
	case "claim":
		return nil, 8
	case "hold":
		return nil, 1
	case "resume":
		if point == "resume.between" {
			return nil, 1
		}
		return more(pauseOrResume, 60), 2
	case "replay":
		return more(replay, 60), 2
	case "cancel":
		return more(cancel, 60), 2
	}
	return nil, 30
}

// holdMany puts more deliveries on hold than one transaction moves. Some may get
// away before every node knows of the pause, so it goes on until there are enough.
func (a *arena) holdMany() {
	a.must(a.t, "POST", a.pausable[0]+"/pause", nil, nil) // FCM's credential
	l := a.load(nil)
	list := make([]map[string]any, 400)
	for i := range list {
		list[i] = map[string]any{"to": map[string]any{"users": a.users[:1]}, "title": "n", "channels": []string{"fcm"}}
	}
	deadline := time.Now().Add(patience)
	for posted := 0; time.Now().Before(deadline); {
		held := a.held()
		if held > 1100 {
			return
		}
		if posted < 10*len(list) && posted-held < 3*len(list) && l.batchOf(context.Background(), list) {
			posted += len(list)
		}
		pause(context.Background(), 100*time.Millisecond)
	}
}

// held is how many deliveries are on hold.
func (a *arena) held() (n int) {
	a.t.Helper()
	var list struct {
		Data []struct {
			Held int `json:"held"`
		} `json:"data"`
	}
	a.must(a.t, "GET", "/v1/holds", nil, &list)
	for _, h := range list.Data {
		n += h.Held
	}
	return n
}

// cutting hurts links under load, and sometimes kills as well.
func cutting() scenario {
	return scenario{"links", func(a *arena) {
		l := a.load(nil)
		l.begin()
		links := a.fleet.links()
		for range 2 + a.rng.IntN(3) {
			link := links[a.rng.IntN(len(links))]
			switch a.rng.IntN(5) {
			case 0:
				require.NoError(a.t, link.Latency(time.Duration(20+a.rng.IntN(300))*time.Millisecond))
			case 1:
				_ = link.Reset() // if its port has been taken in that instant, it is refused instead
			case 2:
				require.NoError(a.t, link.Cut())
			case 3:
				require.NoError(a.t, link.CutAnswers())
			default:
				link.Refuse()
			}
			pause(context.Background(), time.Duration(50+a.rng.IntN(400))*time.Millisecond)
			mend(a.t, link)
		}
		if a.rng.IntN(3) == 0 {
			for _, n := range a.some() {
				n.kill(a.t)
				a.report.kills++
			}
		}
		l.end()
	}}
}

// settling waits until nothing is scheduled any more, so that the last round of
// an arena judges all that is left.
func settling() scenario {
	return scenario{"settle", func(a *arena) {
		var last time.Time
		a.ledger.with(func() {
			for _, p := range a.ledger.open {
				if p.Scheduled && p.SendAt.After(last) {
					last = p.SendAt
				}
			}
		})
		pause(context.Background(), time.Until(last))
		l := a.load(nil)
		l.send(context.Background(), l.body(0), time.Time{})
	}}
}

// hurting does to the database itself what its kind allows.
func hurting(h hurt) scenario {
	return scenario{h.name, func(a *arena) {
		l := a.load(nil)
		l.begin()
		a.wait(l, 20+a.rng.IntN(100))
		h.do(a.t)
		pause(context.Background(), time.Duration(a.rng.IntN(500))*time.Millisecond)
		l.end()
	}}
}
