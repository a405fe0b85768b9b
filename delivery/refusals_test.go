package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

var aSubject = subject{versionKey{7, 1}, "https://push.example"}

func refusalOf(target, user ids.ID, worked bool, at time.Time) Refusal {
	return Refusal{Credential: aSubject.credential, Version: aSubject.version, Origin: aSubject.origin, Tenant: 1, Target: target, User: user, Worked: worked, At: at}
}

func TestWhatCostsMoreTakesEvidence(t *testing.T) {
	t.Parallel()
	m := time.Minute
	worked := func(n, users int) func(*refusals) {
		return func(r *refusals) {
			for i := range n {
				r.refuse(refusalOf(ids.ID(i+1), ids.ID(i%users+1), true, in(time.Duration(i)*time.Second)), false)
			}
		}
	}
	never := func(n, users int) func(*refusals) {
		return func(r *refusals) {
			for i := range n {
				r.refuse(refusalOf(ids.ID(i+1), ids.ID(i%users+1), false, in(time.Duration(i)*time.Second)), false)
			}
		}
	}
	again := func(n int) func(*refusals) {
		return func(r *refusals) {
			for i := range n {
				x := refusalOf(ids.ID(i+1), ids.ID(i+1), true, in(time.Duration(i)*time.Second))
				x.Again = true
				r.refuse(x, false)
			}
		}
	}
	all := func(list ...func(*refusals)) func(*refusals) {
		return func(r *refusals) {
			for _, f := range list {
				f(r)
			}
		}
	}
	success := func(answered time.Duration) func(*refusals) {
		return func(r *refusals) { r.success(aSubject, in(answered)) }
	}
	for name, x := range map[string]struct {
		do    func(*refusals)
		since time.Duration // the credential was changed
		now   time.Duration // 0: 10 s
		want  bool
	}{
		"nobody":                                         {do: func(*refusals) {}},
		"one":                                            {do: worked(1, 1)},
		"four targets":                                   {do: worked(4, 4)},
		"five targets of three users":                    {do: worked(5, 3), want: true},
		"five targets of two users":                      {do: worked(5, 2)},
		"fifty targets of one user":                      {do: worked(50, 1)},
		"the same target again and again":                {do: all(worked(3, 3), worked(3, 3), worked(3, 3))},
		"five that never worked":                         {do: never(5, 5)},
		"nine that never worked":                         {do: never(9, 9)},
		"ten that never worked":                          {do: never(10, 3), want: true},
		"after a success":                                {do: all(worked(5, 5), success(m))},
		"in spite of one before":                         {do: all(worked(5, 5), success(-m)), want: true},
		"of new ones, while others are served":           {do: all(success(-m), never(20, 10))},
		"of new ones, long after others were served":     {do: all(success(-evidenceLasts), never(20, 10)), want: true, now: 30 * time.Second},
		"of old ones again, after others were served":    {do: all(success(-m), again(20))},
		"of old ones again, where nobody ever was":       {do: again(20), want: true, now: 30 * time.Second},
		"of old ones again, and nobody served meanwhile": {do: all(success(-m), worked(5, 5), again(5)), want: true},
		"just now":                                       {do: worked(5, 5), now: 4*time.Second + evidenceSettles - 1},
		"a second ago":                                   {do: worked(5, 5), now: 4*time.Second + evidenceSettles, want: true},
		"a success between them":                         {do: all(worked(5, 5), success(2*time.Second))},
		"within ten minutes":                             {do: worked(5, 5), now: 10 * m, want: true},
		"the first is older than ten minutes":            {do: worked(5, 5), now: 10*m + time.Second},
		"the credential was changed since":               {do: worked(5, 5), since: m, now: 2 * m},
		"the credential was changed before":              {do: worked(5, 5), since: -m, now: 2 * m, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r refusals
			x.do(&r)
			if x.now == 0 {
				x.now = 10 * time.Second
			}
			since, now := in(x.since), in(x.now)
			if x.since == 0 {
				since = time.Time{}
			}
			require.Equal(t, x.want, r.judge(aSubject, since, now).enough)
			require.False(t, r.judge(subject{aSubject.versionKey, "https://other.example"}, since, now).enough, "of another push service nothing is known")
			require.False(t, r.judge(subject{versionKey{7, 2}, aSubject.origin}, since, now).enough, "nor of another version")
		})
	}
}

// TestNobodyTakesTheRoomOfOthers: one who registers what is refused, again and again,
// does not keep the refusals of others from being remembered.
func TestNobodyTakesTheRoomOfOthers(t *testing.T) {
	t.Parallel()
	var r refusals
	for i := range 2 * evidenceMost {
		r.refuse(refusalOf(ids.ID(i+1), 1, true, at), false)
	}
	require.False(t, r.judge(aSubject, time.Time{}, in(evidenceSettles)).enough)
	for user := range ids.ID(2) {
		r.refuse(refusalOf(1000+user, 2+user, true, at), false)
	}
	require.True(t, r.judge(aSubject, time.Time{}, in(evidenceSettles)).enough)
}

// TestEvidenceBecomesEnoughOnce: whoever makes it so is told, to have it judged later.
func TestEvidenceBecomesEnoughOnce(t *testing.T) {
	t.Parallel()
	var r refusals
	for i := range 8 {
		_, enough := r.refuse(refusalOf(ids.ID(i+1), ids.ID(i+1), true, at), false)
		require.Equal(t, i+1 == evidenceTargets, enough, "refusal %d", i+1)
	}
	r.success(aSubject, in(time.Millisecond))
	_, enough := r.refuse(refusalOf(1, 1, true, in(time.Second)), false)
	require.False(t, enough)
	require.False(t, r.judge(aSubject, time.Time{}, in(time.Minute)).enough)
}

func TestRefusalsAreForgotten(t *testing.T) {
	t.Parallel()
	var r refusals
	for i := range 10 * evidenceMost {
		r.refuse(refusalOf(ids.ID(i+1), ids.ID(i+1), true, at), false)
	}
	require.Len(t, r.subjects[aSubject].targets, evidenceMost, "more say no more")
	r.prune(map[ids.ID]int{7: 1}, in(time.Minute))
	require.Len(t, r.subjects, 1)
	r.prune(map[ids.ID]int{7: 2}, in(time.Minute))
	require.Empty(t, r.subjects, "a version that is not in use")
	r.success(aSubject, at)
	r.prune(map[ids.ID]int{7: 1}, in(servedLasts))
	require.Len(t, r.subjects, 1)
	r.prune(map[ids.ID]int{7: 1}, in(servedLasts+time.Second))
	require.Empty(t, r.subjects, "nothing was heard of it for long")
}

func TestTheProviderIsAskedNowAndThen(t *testing.T) {
	t.Parallel()
	var r refusals
	ask := func(after time.Duration, askable bool) bool {
		ask, _ := r.refuse(refusalOf(1, 1, true, in(after)), askable)
		return ask
	}
	require.False(t, ask(0, false), "a push service cannot be asked")
	require.True(t, ask(0, true), "at the first refusal")
	require.False(t, ask(time.Minute, true), "one question at a time")
	r.answered(aSubject, wordNone, in(0))
	require.False(t, ask(probeApart-1, true))
	require.True(t, ask(probeApart, true))
	r.answered(aSubject, wordRefused, in(probeApart))
	require.Equal(t, wordRefused, r.judge(aSubject, time.Time{}, in(time.Minute)).word)
	require.Equal(t, wordNone, r.judge(aSubject, in(time.Minute), in(time.Minute)).word, "the credential was changed since")
	r.success(aSubject, in(2*time.Minute))
	require.Equal(t, wordNone, r.judge(aSubject, time.Time{}, in(3*time.Minute)).word, "a success since says more")
}

func TestNobodyOpensTheBreakerAlone(t *testing.T) {
	t.Parallel()
	k := versionKey{1, 1}
	var b breakers
	for range breakerWindow {
		b.tell(k, good, true, false, at)
	}
	for range 10 * breakerWindow {
		for user := range ids.ID(2) {
			require.False(t, b.note(k, gone, true, witness{user: user + 1, worked: true}, at).open, "two users do not")
		}
	}
	require.Equal(t, 4*2, b.versions[k].goneHalves, "two devices of each")
	for user := range ids.ID(20) {
		b.note(k, gone, true, witness{user: user + 100, worked: false}, at)
	}
	require.False(t, b.versions[k].open, "twenty that never worked count as ten")
	for user := range ids.ID(40) {
		b.note(k, gone, true, witness{user: user + 200, worked: true}, at)
	}
	require.True(t, b.versions[k].open)
}

// exchange lets nodes tell each other what they know, as their loops do.
func exchange(now time.Time, nodes ...*refusals) (ripe []Refusal) {
	for range 2 { // who hears of refusals answers with what has succeeded
		var list []Refusal
		var successes []Success
		for _, r := range nodes {
			a, b := r.pending(now)
			r.markSent(a, b)
			list, successes = append(list, a...), append(successes, b...)
		}
		for _, r := range nodes {
			r.merge(list, successes)
		}
	}
	for _, r := range nodes {
		ripe = append(ripe, r.ripe(now)...)
	}
	return ripe
}

func TestRefusalsOfAllNodesCountTogether(t *testing.T) {
	t.Parallel()
	a, b := &refusals{shared: true}, &refusals{shared: true}
	for i := range 5 {
		[]*refusals{a, b}[i%2].refuse(refusalOf(ids.ID(i+1), ids.ID(i+1), true, in(time.Duration(i)*time.Millisecond)), false)
	}
	require.False(t, a.judge(aSubject, time.Time{}, in(time.Second)).enough, "the others were not heard")
	require.Empty(t, exchange(in(500*time.Millisecond), a, b), "nor have they had the time to answer")
	ripe := exchange(in(2*time.Second), a, b)
	require.Len(t, ripe, 2)
	require.Equal(t, ids.ID(1), ripe[0].Tenant)
	require.True(t, a.judge(aSubject, time.Time{}, in(2*time.Second)).enough)

	c, d := &refusals{shared: true}, &refusals{shared: true}
	d.success(aSubject, in(time.Second)) // which c has not heard of
	for i := range 5 {
		c.refuse(refusalOf(ids.ID(i+1), ids.ID(i+1), true, at), false)
	}
	require.Empty(t, exchange(in(2*time.Second), c, d), "something has succeeded on the other node since")
	require.False(t, c.judge(aSubject, time.Time{}, in(3*time.Second)).enough)
	list, successes := d.pending(in(3 * time.Second))
	require.Empty(t, list)
	require.Empty(t, successes, "it is said once")
}

// verdict is one of a stream.
type verdict struct {
	target, user ids.ID
	refused      bool
}

func drawStream(t *rapid.T) []verdict {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) verdict {
		target := ids.ID(rapid.IntRange(1, 12).Draw(t, "target"))
		return verdict{target: target, user: (target + 1) / ids.ID(rapid.SampledFrom([]int{1, 2, 6}).Draw(t, "per user")), refused: rapid.IntRange(0, 9).Draw(t, "refused") > 0}
	}), 1, 60).Draw(t, "stream")
}

// TestTheSameVerdictsMeanTheSame: whether one node hears them or three.
func TestTheSameVerdictsMeanTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		one, three := &refusals{}, []*refusals{{shared: true}, {shared: true}, {shared: true}}
		now := at
		for i, v := range drawStream(t) {
			now = now.Add(time.Duration(rapid.IntRange(2, 90).Draw(t, "apart")) * time.Second)
			for _, r := range []*refusals{one, three[rapid.IntRange(0, 2).Draw(t, "node")]} {
				if v.refused {
					r.refuse(refusalOf(v.target, v.user, v.target%3 > 0, now), false)
				} else {
					r.success(aSubject, now)
				}
			}
			now = now.Add(2 * time.Second)
			exchange(now, three...)
			want := one.judge(aSubject, time.Time{}, now)
			for n, r := range three {
				got := r.judge(aSubject, time.Time{}, now)
				require.Equal(t, want.enough, got.enough, "verdict %d, node %d", i, n)
			}
		}
	})
}

// TestNothingCostlyWithoutEvidence: whatever comes in whichever order on one node or
// two, a credential is to blame only if enough targets of enough users were refused
// within the time since the last success that any node knows of.
func TestNothingCostlyWithoutEvidence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := []*refusals{{}}
		if rapid.Bool().Draw(t, "two nodes") {
			nodes = []*refusals{{shared: true}, {shared: true}}
		}
		type heard struct {
			verdict
			at time.Time
		}
		var all []heard
		now := at
		for _, v := range drawStream(t) {
			now = now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "apart")) * time.Second)
			r := nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "node")]
			all = append(all, heard{v, now})
			if v.refused {
				r.refuse(refusalOf(v.target, v.user, true, now), false)
			} else {
				r.success(aSubject, now)
			}
			now = now.Add(2 * time.Second)
			exchange(now, nodes...)
			// What somebody who has heard everything knows.
			targets, users := map[ids.ID]bool{}, map[ids.ID]bool{}
			for i := len(all) - 1; i >= 0 && all[i].refused; i-- {
				if now.Sub(all[i].at) <= evidenceLasts {
					targets[all[i].target], users[all[i].user] = true, true
				}
			}
			for n, r := range nodes {
				j := r.judge(aSubject, time.Time{}, now)
				e := evidence{newest: true, enough: j.enough, word: j.word}
				if assess(channels.Result{Outcome: channels.Denied, Scope: channels.ScopeOrigin}, channels.WebPush, e).Convicted {
					require.GreaterOrEqual(t, len(targets), evidenceTargets, "node %d", n)
					require.GreaterOrEqual(t, len(users), evidenceUsers, "node %d", n)
				}
			}
		}
	})
}
