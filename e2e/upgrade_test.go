package e2e_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestUpgrade: this version and one with a newer schema work on one database, in
// whichever order they start, and nothing that is accepted meanwhile is lost. On
// PostgreSQL they run side by side; an SQLite file is handed from one to the other.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for name, newFirst := range map[string]bool{"NewBesideOld": false, "OldBesideNew": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, err := simulator.Start(simulator.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, sim.Close()) })
			this := install(t, sim)
			next := *this
			next.log = &lockedLog{}
			next.path, err = buildNext()
			require.NoError(t, err)
			t.Cleanup(next.kill)

			first, second := this, &next
			if newFirst {
				first, second = &next, this
			}
			first.start()
			a := newTenant(t, first)
			a.do("PUT", "/v1/devices", map[string]any{"user": "alice", "channel": "fcm", "token": "phone"}, nil)
			a.do("PUT", "/v1/apps/default/credentials/fcm", map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)}, nil)

			load := newLoad(t, a.key)
			load.to(first.url)
			load.more(20)
			if !pgtest.Postgres() {
				load.to("")
				first.stop()
			}
			second.start()
			load.to(second.url)
			load.more(20)
			if pgtest.Postgres() {
				load.to(first.url) // which runs on with the other one's schema
				load.more(20)
				load.to(second.url)
				first.stop()
				load.more(20)
			} else { // and back again
				load.to("")
				second.stop()
				first.start()
				load.to(first.url)
				load.more(20)
				second = first
			}
			a.url = second.url
			for _, d := range load.end() {
				eventually(t, func() bool {
					var v struct{ State string }
					a.do("GET", "/v1/deliveries/"+d, nil, &v)
					return v.State == "sent"
				}, d+" is sent\n"+this.log.tail()+"\n"+next.log.tail())
				require.Equal(t, 1, sim.Accepted(simulator.FCM, "", d), "both stopped in order, so nothing was sent twice")
			}
			require.Regexp(t, `99999_next\.sql +applied`, next.run("migrate", "status"))
		})
	}
}

// load sends notifications, one after the other, to one server at a time.
type load struct {
	t    *testing.T
	mu   sync.Mutex // held during a call
	url  string
	key  string
	list []string      // deliveries that were accepted
	tick chan struct{} // one for each
	// lenient: a refusal is no failure.
	lenient bool
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

func newLoad(t *testing.T, key string) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{t: t, key: key, tick: make(chan struct{}), stop: stop}
	t.Cleanup(func() { l.end() })
	l.ended.Go(func() {
		for ctx.Err() == nil {
			if !l.one(ctx) {
				continue
			}
			select {
			case l.tick <- struct{}{}:
			case <-ctx.Done():
			}
		}
	})
	return l
}

// one makes a call; false: it was refused, or lost.
func (l *load) one(ctx context.Context) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.url == "" {
		return true
	}
	var got accepted
	_, err := call(ctx, "POST", l.url+"/v1/notifications", l.key, strings.NewReader(`{"to":{"users":["alice"]},"title":"Hello"}`), &got)
	if ctx.Err() == nil && err != nil && !l.lenient {
		l.t.Errorf("a notification is not accepted: %v", err)
	}
	for _, d := range got.Deliveries {
		l.list = append(l.list, d.ID)
	}
	return err == nil || !l.lenient
}

// to sends the rest to another server; "" is none.
func (l *load) to(url string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.url = url
}

// more waits for n more calls.
func (l *load) more(n int) {
	for range n {
		<-l.tick
	}
}

func (l *load) end() []string {
	l.stop()
	l.ended.Wait()
	return l.list
}

// stop ends the server in order.
func (b *binary) stop() {
	b.t.Helper()
	require.NoError(b.t, b.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(b.t, b.cmd.Wait(), b.log.tail())
	b.cmd = nil
}
