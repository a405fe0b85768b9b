package delivery

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

type fakeBacklog map[ids.ID]Unfinished

func (f fakeBacklog) Unfinished(context.Context, time.Time) (map[ids.ID]Unfinished, error) {
	if f == nil {
		return nil, errors.New("the database is away")
	}
	return f, nil
}

func newTestBacklog(store BacklogStore, due, stored int) (*backlog, *time.Time) {
	now := time.UnixMilli(1_700_000_000_000)
	return newBacklog(&env{now: func() time.Time { return now }}, store, Unfinished{Due: due, Stored: stored}, time.Second), &now
}

func TestTheBacklogIsSharedByTenants(t *testing.T) {
	t.Parallel()
	const hog, other, third = 1, 2, 3
	b, _ := newTestBacklog(fakeBacklog{}, 1000, 10000)
	require.NoError(t, b.admit(hog))
	b.add(hog, Unfinished{Due: 999})
	require.NoError(t, b.admit(hog), "who is alone uses all")
	b.add(hog, Unfinished{Due: 5000})

	var p *problem.Error
	require.ErrorAs(t, b.admit(hog), &p)
	require.Equal(t, problem.Throttled, p.Code)
	require.Equal(t, "5999 deliveries of this tenant are due and wait for their turn, and its part is 1000; send more when there are fewer.", p.Detail)
	require.Positive(t, p.RetryAfter)

	require.NoError(t, b.admit(other), "one who has too much stops nobody else")
	b.add(other, Unfinished{Due: 499})
	require.NoError(t, b.admit(other), "nor when it has taken all that there is")
	b.add(other, Unfinished{Due: 1})
	require.Error(t, b.admit(other), "a half is what each of two has")
	require.NoError(t, b.admit(third))

	b.add(hog, Unfinished{Due: -5989})
	require.NoError(t, b.admit(other), "what others leave may be used")
	require.Equal(t, 740, b.usage(other)[0].Most, "but for a quarter, which stays free for newcomers")
	require.Equal(t, Usage{Limit: LimitDue, Most: 333}, b.usage(9)[0])
}

func TestWhatIsStoredIsBoundedToo(t *testing.T) {
	t.Parallel()
	b, _ := newTestBacklog(fakeBacklog{}, 1000, 100)
	b.add(1, Unfinished{Stored: 100})
	var p *problem.Error
	require.ErrorAs(t, b.admit(1), &p)
	require.Equal(t, "100 deliveries of this tenant are not final yet, and its part is 100; send more when there are fewer.", p.Detail)
	b.final(1)
	require.NoError(t, b.admit(1))
}

func TestTheBacklogIsCountedAgain(t *testing.T) {
	t.Parallel()
	store := fakeBacklog{1: {Due: 40, Stored: 60}, 2: {Stored: 7}}
	b, now := newTestBacklog(store, 1000, 10000)
	b.add(3, Unfinished{Due: 5, Stored: 5}) // that of a node that is gone, or an error
	require.NoError(t, b.count(t.Context()))
	require.Equal(t, []int{40, 60, 0, 7, 0, 0}, []int{b.usage(1)[0].Used, b.usage(1)[1].Used, b.usage(2)[0].Used, b.usage(2)[1].Used,
		b.usage(3)[0].Used, b.usage(3)[1].Used})
	require.Zero(t, b.usage(1)[0].Clears, "nobody knows yet")

	for range 20 {
		b.final(1)
	}
	*now = now.Add(10 * time.Second)
	require.NoError(t, b.count(t.Context()))
	require.Equal(t, 20*time.Second, b.usage(1)[0].Clears, "two in a second were sent, and 40 are due")
	require.Equal(t, 30*time.Second, b.usage(1)[1].Clears, "and 60 are not final")
	require.Zero(t, b.usage(2)[1].Clears, "nothing of this one has ended")
	for range 20 {
		b.final(1)
	}
	*now = now.Add(5 * time.Second)
	require.Equal(t, 15*time.Second, b.usage(1)[0].Clears, "40 in 15 seconds, whenever it is counted again")
	require.NoError(t, b.count(t.Context()))
	*now = now.Add(10 * time.Second)
	require.NoError(t, b.count(t.Context()))
	require.Zero(t, b.usage(1)[0].Clears, "nothing ends any more")
	store[1] = Unfinished{Due: 10, Stored: 30}
	*now = now.Add(10 * time.Second)
	require.NoError(t, b.count(t.Context()))
	require.Equal(t, 10*time.Second, b.usage(1)[1].Clears, "other nodes have sent 30 in 10 seconds")
	store[1] = Unfinished{Due: 40, Stored: 60}
	require.NoError(t, b.count(t.Context()))

	b.store = fakeBacklog(nil)
	require.Error(t, b.count(t.Context()))
	require.Equal(t, 40, b.usage(1)[0].Used, "what was known stays known")
}

func TestACountBelowZeroIsNone(t *testing.T) {
	t.Parallel()
	b, _ := newTestBacklog(fakeBacklog{}, 10, 10)
	b.claimed(1)
	b.final(1)
	b.add(1, Unfinished{Due: 2, Stored: 3})
	require.Equal(t, []int{2, 3}, []int{b.usage(1)[0].Used, b.usage(1)[1].Used})
}

// An accept costs no more where many tenants have much that waits.
func BenchmarkAdmit(b *testing.B) {
	x, _ := newTestBacklog(fakeBacklog{}, 1_000_000, 1_000_000)
	for i := range 1000 {
		x.add(ids.ID(i+1), Unfinished{Due: 100, Stored: 100})
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = x.admit(7)
		x.add(7, Unfinished{Due: 1, Stored: 1})
		x.claimed(7)
		x.final(7)
	}
}

// midway is a store in which others come while one is stored.
type midway func() error

func (m midway) Accept(context.Context, Batch) (*Answer, error) { return nil, m() }

// TestWhatComesAtOnceSharesAPart: all of many that come before the first is committed
// would otherwise find that there is room.
func TestWhatComesAtOnceSharesAPart(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]Unfinished{"due": {Due: 3, Stored: 100}, "stored": {Due: 100, Stored: 3}} {
		b, now := newTestBacklog(fakeBacklog{}, part.Due, part.Stored)
		b.env.ids = ids.NewGenerator(1, b.env.now)
		commit := func(s AcceptStore) error {
			a := &acceptor{env: b.env, store: s, backlog: b, dispatch: newDispatcher(1, 1, b.env.now, nil), hints: &hints{env: b.env}}
			plans := []plan{{accepted: Accepted{ID: b.ids.Next(), SendAt: *now, Rows: []Row{{DueAt: now.Add(time.Hour)}, {}}}}}
			_, err := a.commit(t.Context(), Submission{Tenant: 1}, plans, Answer{}, *now)
			return err
		}
		away := errors.New("the database is away")
		second, third := errors.New("not asked"), errors.New("not asked")
		first := commit(midway(func() error {
			second = commit(midway(func() error {
				third = commit(midway(func() error { return nil }))
				return nil
			}))
			return away
		}))
		require.ErrorIs(t, first, away, name)
		require.NoError(t, second, "%s: one may go beyond the part", name)
		var p *problem.Error
		require.ErrorAs(t, third, &p, name)
		require.Equal(t, problem.Throttled, p.Code, name)
		require.Equal(t, []int{2, 2}, []int{b.usage(1)[0].Used, b.usage(1)[1].Used}, "%s: what was not stored is given back", name)
	}
}

// TestWhatIsInHandIsDueToo: it waits for its turn like what the database counts.
func TestWhatIsInHandIsDueToo(t *testing.T) {
	t.Parallel()
	b, now := newTestBacklog(fakeBacklog{}, 10, 100)
	b.inHand = func(tenant ids.ID) int { return 6 * int(tenant) }
	b.add(1, Unfinished{Due: 3, Stored: 9})
	require.Equal(t, 9, b.usage(1)[0].Used)
	require.Equal(t, 1, b.room(1))
	require.NoError(t, b.admit(1))
	b.final(1)
	*now = now.Add(3 * time.Second)
	require.Equal(t, 27*time.Second, b.usage(1)[0].Clears, "one in three seconds")
	b.add(1, Unfinished{Due: 1})
	var p *problem.Error
	require.ErrorAs(t, b.admit(1), &p)
	require.Equal(t, 3*time.Second, p.RetryAfter)
	require.Contains(t, p.Detail, "10 deliveries of this tenant are due")
}

// What is canceled is not due any more, whatever it was before.
func TestWhatIsCanceledIsNotDue(t *testing.T) {
	t.Parallel()
	b, _ := newTestBacklog(fakeBacklog{}, 1000, 10000)
	b.add(1, Unfinished{Due: 900, Stored: 950})
	b.canceled(1, 30)
	require.Equal(t, 900, b.usage(1)[0].Used)
	require.Equal(t, 920, b.usage(1)[1].Used)
	b.canceled(1, 900)
	require.Equal(t, 20, b.usage(1)[0].Used)
	require.Equal(t, 20, b.usage(1)[1].Used)
}
