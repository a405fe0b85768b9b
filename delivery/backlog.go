package delivery

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// countShare: counting takes no more than one part in so many of the time.
const countShare = 50

// Unfinished is how much of a tenant's is not final.
type Unfinished struct {
	Due    int // deliveries that wait for their turn, and nothing else
	Stored int // deliveries in any state that is not final, and notifications that are scheduled
}

// BacklogStore counts what is unfinished.
type BacklogStore interface {
	// Unfinished counts it by tenant; who has nothing is absent.
	Unfinished(ctx context.Context, now time.Time) (map[ids.ID]Unfinished, error)
}

// backlog is about how much is unfinished, of each tenant: counted along the way, which
// drifts and does not see what other nodes add and take, and again now and then. No
// accept waits for a count. Tenants share what there may be: see partOf.
type backlog struct {
	*env
	store BacklogStore
	most  Unfinished // of all tenants
	every time.Duration
	// inHand is how much of a tenant waits for its turn in this node's hands: it is as due
	// as what the database counts. nil: nothing is ever in hand.
	inHand func(tenant ids.ID) int

	mu          sync.Mutex
	sharing     sharing
	due, stored tally // what is in hand is in stored alone
	paces       paces
}

func newBacklog(v *env, store BacklogStore, most Unfinished, every time.Duration) *backlog {
	return &backlog{env: v, store: store, most: most, every: every, due: newTally(), stored: newTally(), paces: paces{began: v.now()}}
}

// admit refuses what would make more wait of a tenant that has its part already, before
// anything is done for it.
func (b *backlog) admit(tenant ids.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sharing.note(tenant, b.now)
	return b.refuse(tenant)
}

// take notes what a tenant is about to store, or refuses it as admit does: of requests that
// come at the same moment, each meets what those before it have taken. One may go beyond
// the part: how many targets it has must not decide whether it can ever be taken. Whoever
// does not store it gives it back.
func (b *backlog) take(tenant ids.ID, n Unfinished) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refuse(tenant); err != nil {
		return err
	}
	b.due.add(tenant, n.Due)
	b.stored.add(tenant, n.Stored)
	return nil
}

// giveBack undoes take.
func (b *backlog) giveBack(tenant ids.ID, n Unfinished) {
	b.add(tenant, Unfinished{Due: -n.Due, Stored: -n.Stored})
}

// refuse tells a tenant that it has its part. The lock is held.
func (b *backlog) refuse(tenant ids.ID) error {
	for _, l := range b.limits(tenant) {
		if l.Used >= l.Most {
			clears := clearsIn(l.Used, b.paces.of(tenant, b.now()))
			return &problem.Error{Code: problem.Throttled, RetryAfter: min(max(clears/10, time.Second), time.Minute),
				Detail: fmt.Sprintf("%d deliveries of this tenant %s, and its part is %d; send more when there are fewer.", l.Used, whatOf[l.Limit], l.Most)}
		}
	}
	return nil
}

var whatOf = map[string]string{LimitDue: "are due and wait for their turn", LimitStored: "are not final yet"}

// limits are what a tenant has and may have. The lock is held.
func (b *backlog) limits(tenant ids.ID) [2]Usage { // every accept asks: no slice
	return [2]Usage{{Limit: LimitDue, Used: b.dueOf(tenant), Most: b.due.part(tenant, b.most.Due, b.sharing.several)},
		{Limit: LimitStored, Used: b.stored.of[tenant], Most: b.stored.part(tenant, b.most.Stored, b.sharing.several)}}
}

// dueOf is how much waits for its turn, in the database and here. The lock is held.
func (b *backlog) dueOf(tenant ids.ID) int {
	n := b.due.of[tenant]
	if b.inHand != nil {
		n += b.inHand(tenant)
	}
	return n
}

// usage tells it, and how long it lasts at the pace of late.
func (b *backlog) usage(tenant ids.ID) []Usage {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, pace := b.limits(tenant), b.paces.of(tenant, b.now())
	for i := range l {
		l[i].Clears = clearsIn(l[i].Used, pace)
	}
	return l[:]
}

// busiest lists the tenants of which the most is stored.
func (b *backlog) busiest(most int) []ids.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.SortedFunc(maps.Keys(b.stored.of), func(x, y ids.ID) int {
		return cmp.Or(b.stored.of[y]-b.stored.of[x], cmp.Compare(x, y))
	})
	return list[:min(most, len(list))]
}

// room is how many more of a tenant may be due.
func (b *backlog) room(tenant ids.ID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.due.part(tenant, b.most.Due, b.sharing.several) - b.dueOf(tenant)
}

// add notes more, or fewer.
func (b *backlog) add(tenant ids.ID, n Unfinished) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due.add(tenant, n.Due)
	b.stored.add(tenant, n.Stored)
}

// claimed notes that one has had its turn.
func (b *backlog) claimed(tenant ids.ID) { b.add(tenant, Unfinished{Due: -1}) }

// canceled notes what is final now, and may have been due until then.
func (b *backlog) canceled(tenant ids.ID, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored.add(tenant, -n)
	if more := b.due.of[tenant] - b.stored.of[tenant]; more > 0 {
		b.due.add(tenant, -more)
	}
}

// final notes one that has ended.
func (b *backlog) final(tenant ids.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored.add(tenant, -1)
	b.paces.ended(tenant)
}

// count asks the database. Tenants of before are forgotten with it.
func (b *backlog) count(ctx context.Context) error {
	now := b.now()
	all, err := b.store.Unfinished(ctx, now)
	if err != nil {
		return err
	}
	due, stored := newTally(), newTally()
	for tenant, n := range all {
		due.add(tenant, n.Due)
		stored.add(tenant, n.Stored)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due, b.stored = due, stored
	b.paces.turn(all, now)
	b.sharing.refresh(now)
	return nil
}

func (b *backlog) run() {
	for {
		began := time.Now()
		if err := b.count(b.running); err != nil {
			b.log.Error("count what is unfinished", "error", err)
		}
		if !b.wait(nil, max(b.every, countShare*time.Since(began))) {
			return
		}
	}
}

// tally is how much of something each tenant has.
type tally struct {
	of  map[ids.ID]int // above 0
	all int
}

func newTally() tally { return tally{of: map[ids.ID]int{}} }

func (t *tally) add(tenant ids.ID, n int) {
	was := t.of[tenant]
	now := max(was+n, 0)
	t.all += now - was
	if now == 0 {
		delete(t.of, tenant)
	} else {
		t.of[tenant] = now
	}
}

// part is the most that a tenant may have of a whole.
func (t *tally) part(tenant ids.ID, whole int, newcomers bool) int {
	its, n := t.of[tenant], len(t.of)
	if its == 0 {
		n++
	}
	return partOf(whole, n, t.all-its, newcomers)
}
