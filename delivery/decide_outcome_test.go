package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func in(d time.Duration) time.Time { return at.Add(d) }

// TestNext is the policy as one table: what follows from each outcome on each
// kind of channel. Spent before is 1, the deadline an hour away, the delays 1, 2
// and 3 minutes, unless a row says otherwise.
func TestNext(t *testing.T) {
	t.Parallel()
	const (
		m    = time.Minute
		push = channels.FCM
		hook = channels.Webhook
	)
	believed := Assessment{Believed: true}
	zero, second := time.Duration(0), time.Second
	pending := func(due time.Duration, spent int) Transition {
		return Transition{State: Pending, DueAt: in(due), Spent: spent}
	}
	waiting := func(t Transition, s channels.Scope, until time.Duration) Transition {
		t.WaitScope, t.WaitUntil = s, in(until)
		return t
	}
	wider := func(t Transition, s channels.Scope, until time.Duration) Transition {
		t.WiderScope, t.WiderUntil = s, in(until)
		return t
	}
	looking := func(due time.Duration) Transition {
		return Transition{State: Held, Reason: InDoubt, Spent: 1, DueAt: in(due), Device: DeviceRefused, Hold: HoldRefusal}
	}
	renewing := func(t Transition, r channels.Renewal) Transition { t.Renew = r; return t }
	for name, x := range map[string]struct {
		d    Progress
		r    channels.Result
		h    Assessment
		p    Policy
		j    float64
		want Transition
	}{
		// Accepted.
		"accepted":              {r: channels.Result{Outcome: channels.Accepted}, want: Transition{State: Sent, Spent: 2, Device: DeviceConfirmed}},
		"accepted by a webhook": {d: Progress{Channel: hook}, r: channels.Result{Outcome: channels.Accepted}, want: Transition{State: Sent, Spent: 2, Device: DeviceConfirmed}},
		"accepted late counts":  {d: Progress{ExpiresAt: in(-m)}, r: channels.Result{Outcome: channels.Accepted}, want: Transition{State: Sent, Spent: 2, Device: DeviceConfirmed}},
		"accepted at most once": {d: Progress{AtMostOnce: true}, r: channels.Result{Outcome: channels.Accepted, Ambiguous: true}, want: Transition{State: Sent, Spent: 2, Device: DeviceConfirmed}},
		"accepted in no doubt":  {d: Progress{Undoubted: true}, r: channels.Result{Outcome: channels.Accepted}, want: Transition{State: Sent, Spent: 2}},

		// Retry: spends, waits for the longest of schedule, floor and NotBefore.
		"retry":                          {r: channels.Result{Outcome: channels.Retry}, want: pending(2*m, 2)},
		"retry, the first":               {d: Progress{Spent: -1}, r: channels.Result{Outcome: channels.Retry}, want: pending(m, 1)},
		"retry, the last":                {d: Progress{Spent: 3}, r: channels.Result{Outcome: channels.Retry}, want: Transition{State: Dead, Reason: Exhausted, Spent: 4}},
		"retry, the last of a webhook":   {d: Progress{Channel: hook, Spent: 3}, r: channels.Result{Outcome: channels.Retry}, want: Transition{State: Dead, Reason: Exhausted, Spent: 4}},
		"retry after":                    {r: channels.Result{Outcome: channels.Retry, NotBefore: in(5 * m)}, want: pending(5*m, 2)},
		"retry after, sooner":            {r: channels.Result{Outcome: channels.Retry, NotBefore: in(m)}, want: pending(2*m, 2)},
		"retry with a floor":             {r: channels.Result{Outcome: channels.Retry, Floor: 4 * m}, want: pending(4*m, 2)},
		"retry with a lower floor":       {r: channels.Result{Outcome: channels.Retry, Floor: m}, want: pending(2*m, 2)},
		"retry with the tenant's floor":  {p: Policy{Delays: []time.Duration{second, second}, Floor: &second}, r: channels.Result{Outcome: channels.Retry, Floor: 4 * m}, want: pending(second, 2)},
		"retry without floors":           {p: Policy{Delays: []time.Duration{0, 0}, Floor: &zero}, r: channels.Result{Outcome: channels.Retry, Floor: 4 * m}, want: pending(0, 2)},
		"a tenant's floor raises none":   {p: Policy{Delays: []time.Duration{0, 0}, Floor: func() *time.Duration { d := 9 * m; return &d }()}, r: channels.Result{Outcome: channels.Retry, Floor: 4 * m}, want: pending(4*m, 2)},
		"retry-after beats every floor":  {p: Policy{Delays: []time.Duration{0, 0}, Floor: &zero}, r: channels.Result{Outcome: channels.Retry, NotBefore: in(m)}, want: pending(m, 2)},
		"retry past the deadline":        {d: Progress{ExpiresAt: in(2 * m)}, r: channels.Result{Outcome: channels.Retry}, want: Transition{State: Dropped, Reason: Expired, Spent: 2}},
		"retry just before the deadline": {d: Progress{ExpiresAt: in(2*m + 1)}, r: channels.Result{Outcome: channels.Retry}, want: pending(2*m, 2)},
		"a webhook past the deadline":    {d: Progress{Channel: hook, ExpiresAt: in(2 * m)}, r: channels.Result{Outcome: channels.Retry}, want: Transition{State: Dead, Reason: Expired, Spent: 2}},
		"retry, ambiguous":               {r: channels.Result{Outcome: channels.Retry, Ambiguous: true}, want: pending(2*m, 2)},
		"retry, jitter at its least":     {p: jittered(0.2), j: 0, r: channels.Result{Outcome: channels.Retry}, want: pending(96*second, 2)},
		"retry, jitter at its most":      {p: jittered(0.2), j: 1, r: channels.Result{Outcome: channels.Retry}, want: pending(144*second, 2)},
		"retry without health":           {h: Assessment{Stale: true}, r: channels.Result{Outcome: channels.Retry}, want: pending(2*m, 2)},
		"retry of an origin": {r: channels.Result{Outcome: channels.Retry, Scope: channels.ScopeOrigin},
			want: waiting(pending(2*m, 2), channels.ScopeOrigin, 10*second)},
		"retry of a credential": {r: channels.Result{Outcome: channels.Retry, Scope: channels.ScopeCredential, NotBefore: in(3 * m)},
			want: waiting(pending(3*m, 2), channels.ScopeCredential, 3*m)},
		"retry of an origin, soon": {p: Policy{Delays: []time.Duration{0, second}}, r: channels.Result{Outcome: channels.Retry, Scope: channels.ScopeOrigin},
			want: waiting(pending(second, 2), channels.ScopeOrigin, second)},
		"tries left":   {r: channels.Result{Outcome: channels.Retry, MaxTries: 3}, want: pending(2*m, 2)},
		"tries over":   {r: channels.Result{Outcome: channels.Retry, MaxTries: 2}, want: Transition{State: Dead, Reason: Rejected, Spent: 2}},
		"tries passed": {d: Progress{Spent: 3}, r: channels.Result{Outcome: channels.Retry, MaxTries: 2}, want: Transition{State: Dead, Reason: Rejected, Spent: 4}},

		// Unreached: a push that no provider has seen spends nothing.
		"unreached": {r: channels.Result{Outcome: channels.Retry, Unreached: true},
			want: wider(waiting(pending(10*second, 1), channels.ScopeTarget, 10*second), channels.ScopeCredential, 10*second)},
		"unreached, the last": {d: Progress{Spent: 3}, r: channels.Result{Outcome: channels.Retry, Unreached: true},
			want: wider(waiting(pending(10*second, 3), channels.ScopeTarget, 10*second), channels.ScopeCredential, 10*second)},
		"unreached origin": {d: Progress{Channel: channels.WebPush}, r: channels.Result{Outcome: channels.Retry, Unreached: true},
			want: wider(waiting(pending(10*second, 1), channels.ScopeTarget, 10*second), channels.ScopeOrigin, 10*second)},
		"unreached, a credential by name": {r: channels.Result{Outcome: channels.Retry, Unreached: true, Scope: channels.ScopeCredential, NotBefore: in(m)},
			want: waiting(pending(m, 1), channels.ScopeCredential, m)},
		"unreached past the deadline": {d: Progress{ExpiresAt: in(5 * second)}, r: channels.Result{Outcome: channels.Retry, Unreached: true},
			want: wider(waiting(Transition{State: Dropped, Reason: Expired, Spent: 1}, channels.ScopeTarget, 10*second), channels.ScopeCredential, 10*second)},
		"an unreached receiver": {d: Progress{Channel: hook}, r: channels.Result{Outcome: channels.Retry, Unreached: true}, want: pending(2*m, 2)},

		// Renewals: once at no cost and at once.
		"renewal": {r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewToken}, want: renewing(pending(0, 1), channels.RenewToken)},
		"renewal, not before": {r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewConnection, NotBefore: in(m)},
			want: renewing(pending(m, 1), channels.RenewConnection)},
		"renewal with tries over": {r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewPadding, MaxTries: 1}, want: renewing(pending(0, 1), channels.RenewPadding)},
		"renewal again": {d: Progress{Renewed: channels.RenewToken}, r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewToken},
			want: renewing(pending(2*m, 2), channels.RenewToken)},
		"another renewal": {d: Progress{Renewed: channels.RenewToken}, r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewConnection},
			want: renewing(pending(2*m, 2), channels.RenewConnection)},
		"the other gateway after a token": {d: Progress{Renewed: channels.RenewToken}, r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewGateway},
			want: renewing(pending(0, 1), channels.RenewGateway)},
		"the other gateway again": {d: Progress{Renewed: channels.RenewGateway}, r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewGateway},
			want: renewing(pending(2*m, 2), channels.RenewGateway)},
		"a renewal for the next pair": {d: Progress{Renewed: channels.RenewPair}, r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewToken},
			want: renewing(pending(0, 1), channels.RenewToken)},
		"renewal past the deadline": {d: Progress{ExpiresAt: at}, r: channels.Result{Outcome: channels.Retry, Renew: channels.RenewToken},
			want: renewing(Transition{State: Dropped, Reason: Expired, Spent: 1}, channels.RenewToken)},

		// Throttled: spends nothing, and its scope waits too.
		"throttled": {r: channels.Result{Outcome: channels.Throttled}, want: waiting(pending(10*second, 1), channels.ScopeTarget, 10*second)},
		"throttled until": {r: channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeCredential, NotBefore: in(20 * m)},
			want: waiting(pending(10*m, 1), channels.ScopeCredential, 20*m)},
		"throttled with a floor": {r: channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeOrigin, Floor: m, NotBefore: in(second)},
			want: waiting(pending(m, 1), channels.ScopeOrigin, m)},
		"throttled with the tenant's floor": {p: Policy{Floor: &second}, r: channels.Result{Outcome: channels.Throttled, Floor: m},
			want: waiting(pending(second, 1), channels.ScopeTarget, second)},
		"throttled without floors": {p: Policy{Floor: &zero}, r: channels.Result{Outcome: channels.Throttled},
			want: waiting(pending(second, 1), channels.ScopeTarget, second)},
		"throttled, jitter only adds": {p: jittered(0.5), j: 1, r: channels.Result{Outcome: channels.Throttled, NotBefore: in(2 * m)},
			want: waiting(pending(3*m, 1), channels.ScopeTarget, 2*m)},
		"throttled after all attempts": {d: Progress{Spent: 3}, r: channels.Result{Outcome: channels.Throttled}, want: waiting(pending(10*second, 3), channels.ScopeTarget, 10*second)},
		"throttled past the deadline": {r: channels.Result{Outcome: channels.Throttled, NotBefore: in(2 * time.Hour), Scope: channels.ScopeOrigin},
			want: waiting(pending(10*m, 1), channels.ScopeOrigin, 2*time.Hour)},
		"throttled past a near deadline": {d: Progress{ExpiresAt: in(5 * m)}, r: channels.Result{Outcome: channels.Throttled, NotBefore: in(2 * time.Hour), Scope: channels.ScopeOrigin},
			want: waiting(pending(5*m, 1), channels.ScopeOrigin, 2*time.Hour)},
		"a device throttled past the deadline": {r: channels.Result{Outcome: channels.Throttled, NotBefore: in(2 * time.Hour)},
			want: waiting(pending(10*m, 1), channels.ScopeTarget, 10*m)},
		"a device throttled past a near deadline": {d: Progress{ExpiresAt: in(5 * m)}, r: channels.Result{Outcome: channels.Throttled, NotBefore: in(2 * time.Hour)},
			want: waiting(pending(5*m, 1), channels.ScopeTarget, 10*m)},
		"throttled for a day, the spread": {d: Progress{Channel: hook, ExpiresAt: in(48 * time.Hour)}, p: jittered(0.5), j: 1, r: channels.Result{Outcome: channels.Throttled, NotBefore: in(24 * time.Hour)},
			want: waiting(pending(24*time.Hour+10*m, 1), channels.ScopeTarget, 24*time.Hour)},
		"a webhook throttled past the deadline": {d: Progress{Channel: hook}, r: channels.Result{Outcome: channels.Throttled, NotBefore: in(2 * time.Hour)},
			want: waiting(pending(time.Hour, 1), channels.ScopeTarget, 2*time.Hour)},

		// What the answer may be about as well waits for the floor at most, whatever it asks.
		"throttled, perhaps an origin": {r: channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeOrigin},
			want: wider(waiting(pending(10*second, 1), channels.ScopeTarget, 10*second), channels.ScopeOrigin, 10*second)},
		"throttled for long, perhaps an origin": {d: Progress{ExpiresAt: in(48 * time.Hour)}, r: channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeOrigin, NotBefore: in(24 * time.Hour)},
			want: wider(waiting(pending(10*m, 1), channels.ScopeTarget, 10*m), channels.ScopeOrigin, 10*second)},
		"throttled with a floor, perhaps a credential": {r: channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeCredential, Floor: m},
			want: wider(waiting(pending(m, 1), channels.ScopeTarget, m), channels.ScopeCredential, 10*second)},
		"throttled with a low floor, perhaps a credential": {r: channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeCredential, Floor: 2 * second},
			want: wider(waiting(pending(2*second, 1), channels.ScopeTarget, 2*second), channels.ScopeCredential, 2*second)},
		"throttled with the tenant's floor, perhaps an origin": {p: Policy{Floor: &zero}, r: channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeOrigin, NotBefore: in(m)},
			want: wider(waiting(pending(m, 1), channels.ScopeTarget, m), channels.ScopeOrigin, second)},
		"throttled past the deadline, perhaps an origin": {r: channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeOrigin, NotBefore: in(2 * time.Hour)},
			want: wider(waiting(pending(10*m, 1), channels.ScopeTarget, 10*m), channels.ScopeOrigin, 10*second)},
		"throttled, an origin by name": {r: channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeOrigin, Wider: channels.ScopeOrigin},
			want: waiting(pending(10*second, 1), channels.ScopeOrigin, 10*second)},
		"retry, perhaps an origin": {r: channels.Result{Outcome: channels.Retry, Wider: channels.ScopeOrigin, NotBefore: in(5 * m)}, want: pending(5*m, 2)},

		// Gone: believed of a credential that has proven itself and is not in doubt.
		"gone":                    {h: believed, r: channels.Result{Outcome: channels.Gone}, want: Transition{State: Dropped, Reason: Gone, Spent: 2, Device: DeviceRetired}},
		"gone, not believed":      {r: channels.Result{Outcome: channels.Gone}, want: Transition{State: Held, Reason: InDoubt, Spent: 2, Device: DeviceSuspect, Hold: HoldDoubt}},
		"gone, of an old version": {h: Assessment{Stale: true}, r: channels.Result{Outcome: channels.Gone}, want: pending(0, 1)},
		"a webhook that is gone":  {d: Progress{Channel: hook}, r: channels.Result{Outcome: channels.Gone}, want: Transition{State: Dropped, Reason: Gone, Spent: 2, Device: DeviceRetired}},

		// Rejected, denied.
		"rejected":                  {r: channels.Result{Outcome: channels.Rejected}, want: Transition{State: Dead, Reason: Rejected, Spent: 2}},
		"rejected by a webhook":     {d: Progress{Channel: hook}, r: channels.Result{Outcome: channels.Rejected}, want: Transition{State: Dead, Reason: Rejected, Spent: 2}},
		"refused":                   {r: channels.Result{Outcome: channels.Denied}, want: looking(30 * second)},
		"refused again":             {d: Progress{Looked: 40 * second}, r: channels.Result{Outcome: channels.Denied}, want: looking(80 * second)},
		"refused for long":          {d: Progress{Looked: 20 * m}, r: channels.Result{Outcome: channels.Denied}, want: looking(5 * m)},
		"refused alone, for long":   {d: Progress{Looked: 20 * m}, h: Assessment{Alone: true}, r: channels.Result{Outcome: channels.Denied}, want: looking(40 * m)},
		"refused, jitter adds":      {j: 1, r: channels.Result{Outcome: channels.Denied}, want: looking(33 * second)},
		"denied":                    {h: Assessment{Convicted: true}, r: channels.Result{Outcome: channels.Denied}, want: Transition{State: Held, Reason: CredentialDenied, Spent: 1, Hold: HoldCredential}},
		"denied, of an old version": {h: Assessment{Stale: true}, r: channels.Result{Outcome: channels.Denied}, want: pending(0, 1)},

		// Interrupted, unknown.
		"interrupted": {r: channels.Result{Outcome: channels.Interrupted}, want: pending(0, 1)},
		"unknown":     {r: channels.Result{Outcome: channels.Unknown}, want: pending(0, 1)},

		// At most once: whatever was written and not answered is over.
		"at most once, retry":       {d: Progress{AtMostOnce: true}, r: channels.Result{Outcome: channels.Retry, Ambiguous: true}, want: Transition{State: Dead, Reason: Ambiguous, Spent: 2}},
		"at most once, interrupted": {d: Progress{AtMostOnce: true}, r: channels.Result{Outcome: channels.Interrupted, Ambiguous: true}, want: Transition{State: Dead, Reason: Ambiguous, Spent: 2}},
		"at most once, not written": {d: Progress{AtMostOnce: true}, r: channels.Result{Outcome: channels.Retry}, want: pending(2*m, 2)},
		"at most once, renewal":     {d: Progress{AtMostOnce: true}, r: channels.Result{Outcome: channels.Retry, Ambiguous: true, Renew: channels.RenewConnection}, want: Transition{State: Dead, Reason: Ambiguous, Spent: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := x.d
			if d.Channel == 0 {
				d.Channel = push
			}
			d.Spent = max(d.Spent, 0)
			if x.d.Spent == 0 {
				d.Spent = 1
			}
			if d.ExpiresAt.IsZero() {
				d.ExpiresAt = in(time.Hour)
			}
			p := x.p
			if p.Delays == nil {
				p.Delays = jittered(0).Delays
			}
			require.Equal(t, x.want, Next(d, x.r, p, x.h, at, x.j))
		})
	}
}

func jittered(share float64) Policy {
	return Policy{Delays: []time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute}, Jitter: share}
}

// anything draws the arguments of Next.
func anything(t *rapid.T) (d Progress, r channels.Result, p Policy, h Assessment, jitter float64) {
	span := func(name string, most time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, name))
	}
	p.Delays = make([]time.Duration, rapid.IntRange(1, tenants.MaxDelays).Draw(t, "delays"))
	for i := range p.Delays {
		p.Delays[i] = span("delay", tenants.MaxDelay)
	}
	p.Jitter = rapid.Float64Range(0, tenants.MaxJitter).Draw(t, "share")
	if rapid.Bool().Draw(t, "has floor") {
		f := span("floor", tenants.MaxFloor)
		p.Floor = &f
	}
	d = Progress{Channel: rapid.SampledFrom(channels.Kinds()).Draw(t, "channel"), Spent: rapid.IntRange(0, len(p.Delays)).Draw(t, "spent"),
		ExpiresAt: at.Add(span("life", tenants.MaxWebhookTTL)), AtMostOnce: rapid.Bool().Draw(t, "once"), Renewed: channels.Renewal(rapid.IntRange(0, 4).Draw(t, "renewed"))}
	r = channels.Result{Outcome: channels.Outcome(rapid.IntRange(1, 8).Draw(t, "outcome")), Scope: channels.Scope(rapid.IntRange(0, 2).Draw(t, "scope")),
		Wider: channels.Scope(rapid.IntRange(0, 2).Draw(t, "wider")), Floor: span("answer's floor", time.Hour), MaxTries: rapid.IntRange(0, 4).Draw(t, "tries"), Renew: channels.Renewal(rapid.IntRange(0, 4).Draw(t, "renew")),
		Ambiguous: rapid.Bool().Draw(t, "ambiguous"), Unreached: rapid.Bool().Draw(t, "unreached"), Doubtful: rapid.Bool().Draw(t, "doubtful")}
	if rapid.Bool().Draw(t, "retry after") {
		r.NotBefore = at.Add(span("not before", channels.MaxRetryAfter))
	}
	h = Assessment{Believed: rapid.Bool().Draw(t, "believed"), Convicted: rapid.Bool().Draw(t, "convicted"), Alone: rapid.Bool().Draw(t, "alone"), Stale: rapid.Bool().Draw(t, "stale")}
	return d, r, p, h, rapid.Float64Range(0, 1).Draw(t, "jitter")
}

func TestNextKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d, r, p, h, jitter := anything(t)
		n := Next(d, r, p, h, at, jitter)
		require.Equal(t, n, Next(d, r, p, h, at, jitter), "same arguments, same answer")

		require.Contains(t, []State{Pending, Held, Sent, Dropped, Dead}, n.State)
		require.Equal(t, n.State == Pending || n.State == Sent, n.Reason == NoReason, "whatever does not go on says why")
		require.Equal(t, n.State == Held, n.Hold != 0)
		require.Contains(t, []int{d.Spent, d.Spent + 1}, n.Spent, "an attempt costs one or nothing")
		require.LessOrEqual(t, n.Spent, MaxSpent)
		if !n.WiderUntil.IsZero() {
			require.Greater(t, n.WiderScope, n.WaitScope)
			require.False(t, n.WiderUntil.After(at.Add(throttleFloor)), "what no answer names does not wait for long")
			require.False(t, n.WiderUntil.Before(at.Add(throttleLeast)))
		}
		if n.Hold == HoldRefusal {
			require.False(t, n.DueAt.Before(at.Add(lookLeast)))
			require.Equal(t, d.Spent, n.Spent)
			return
		}
		if n.State != Pending {
			require.Zero(t, n.DueAt)
			return
		}
		require.False(t, n.DueAt.Before(at))
		if r.Outcome == channels.Retry || r.Outcome == channels.Throttled {
			// "Too fast" may end early: it is looked at now and then, and kept until the deadline.
			looks := r.Outcome == channels.Throttled
			require.True(t, !n.DueAt.Before(r.NotBefore) || looks && (!n.DueAt.Before(at.Add(lookEvery)) || n.DueAt.Equal(d.ExpiresAt)), "not before what the provider said")
			require.True(t, n.DueAt.Before(d.ExpiresAt) || looks && n.DueAt.Equal(d.ExpiresAt), "never sent late")
			if r.Unreached && r.Renew == channels.RenewNothing && r.MaxTries == 0 && r.Outcome == channels.Retry && d.Channel != channels.Webhook {
				require.Equal(t, d.Spent, n.Spent)
			}
		}
		require.LessOrEqual(t, n.Spent, len(p.Delays), "another attempt is left")
	})
}

func TestADeliveryAlwaysEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d, _, p, _, _ := anything(t)
		d.Spent, d.AtMostOnce = 0, false
		now := at
		for tries := 0; ; tries++ {
			require.Less(t, tries, 5*tenants.MaxDelays, "renewals do not go on for ever")
			_, r, _, h, jitter := anything(t)
			r.Outcome, r.Unreached = channels.Retry, false // until its deadline otherwise
			n := Next(d, r, p, h, now, jitter)
			if n.State != Pending {
				return
			}
			d.Spent, d.Renewed, now = n.Spent, n.Renew, latest(now, n.DueAt)
		}
	})
}
