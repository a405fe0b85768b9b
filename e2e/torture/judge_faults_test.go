package torture_test

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sound is evidence in which nothing is wrong, with one of everything.
func sound() evidence {
	seen := map[string]int{"d-sent": 1, "d-twice": 2, "d-ambiguous": 2, "d-again": 2, "d-stored": 1, "d-once": 1}
	list := []*stored{
		{ID: "d-sent", Notification: "n-1", Channel: "fcm", State: "sent", Round: 1},
		{ID: "d-twice", Notification: "n-1", Channel: "apns", State: "sent", Round: 1, Unknown: true},
		{ID: "d-ambiguous", Notification: "n-1", Channel: "webpush", State: "sent", Round: 1},
		{ID: "d-rejected", Notification: "n-1", Target: "poisoned", Channel: "fcm", State: "dead", Reason: "rejected", Round: 1},
		{ID: "d-gone", Notification: "n-1", Target: "doomed", Channel: "fcm", State: "dropped", Reason: "gone", Round: 1},
		{ID: "d-canceled", Notification: "n-canceled", Channel: "fcm", State: "dropped", Reason: "canceled", Round: 1},
		{ID: "d-once", Notification: "n-once", Channel: "fcm", State: "sent", Round: 1},
		{ID: "d-never", Notification: "n-once", Channel: "apns", State: "dead", Reason: "ambiguous", Round: 1, Unknown: true},
		{ID: "d-again", Notification: "n-once", Channel: "webpush", State: "sent", Round: 2, Unknown: true},
		{ID: "d-stored", Notification: "n-unanswered", Channel: "fcm", State: "sent", Round: 1},
		{ID: "d-crashed", Notification: "n-unanswered", Channel: "apns", State: "dead", Reason: "crashed", Round: 1, Unknown: true},
		{ID: "d-later", Notification: "n-later", Channel: "fcm", State: "dead", Reason: "exhausted", Round: 1},
	}
	e := evidence{
		Promises: []*promise{
			{ID: "n-1", Deliveries: []reference{{ID: "d-sent"}, {ID: "d-twice"}, {ID: "d-ambiguous"}, {ID: "d-rejected"}, {ID: "d-gone"}}},
			{ID: "n-canceled", Deliveries: []reference{{ID: "d-canceled"}}, Canceling: true},
			{ID: "n-once", Deliveries: []reference{{ID: "d-once"}, {ID: "d-never"}, {ID: "d-again"}}},
			{ID: "n-later", Scheduled: true, SendAt: time.Unix(1, 0)},
			{ID: "n-never", Scheduled: true, SendAt: time.Unix(1, 0), Canceling: true, CanceledAhead: true},
		},
		Stored: map[string]*stored{},
		Notifications: map[string]*notification{
			"n-later": {ID: "n-later", Counts: map[string]int{"dead": 1}},
			"n-never": {ID: "n-never", Canceled: true},
		},
		Keys:       []*keyed{{Type: "once.n1", Answers: map[string]bool{"n-1": true}, Tries: 3}},
		Copies:     map[string]int{"once.n1": 1},
		AtMostOnce: func(n string) bool { return n == "n-once" },
		Seen:       func(d *stored) int { return seen[d.ID] },
		Ambiguous:  func(d *stored) bool { return d.ID == "d-ambiguous" },
		Poisoned:   map[string]bool{"poisoned": true}, Doomed: map[string]bool{"doomed": true},
		Canceled: map[string]bool{"n-canceled": true, "n-never": true},
		Refused:  map[string]int{}, Accepted: 5,
	}
	for _, d := range list {
		e.Stored[d.ID] = d
	}
	return e
}

func TestJudgeFindsNothingWhereNothingIsWrong(t *testing.T) {
	t.Parallel()
	v := judge(sound())
	require.Empty(t, v.findings)
	require.Equal(t, 12, v.deliveries)
	require.Equal(t, 3, v.flagged)
	require.Zero(t, v.unflagged)
	require.Equal(t, 1, v.states["dead: crashed"])
}

// TestJudgeFindsEachFault plants one fault at a time. A judge that misses one
// would call a broken server sound.
func TestJudgeFindsEachFault(t *testing.T) {
	t.Parallel()
	seen := func(e *evidence, id string, n int) {
		before := e.Seen
		e.Seen = func(d *stored) int {
			if d.ID == id {
				return n
			}
			return before(d)
		}
	}
	for name, c := range map[string]struct {
		kind  string
		plant func(*evidence)
	}{
		"a promised delivery is not stored":      {lost, func(e *evidence) { delete(e.Stored, "d-sent") }},
		"a scheduled notification is not stored": {lost, func(e *evidence) { delete(e.Notifications, "n-later") }},
		"a scheduled one came to nothing":        {lost, func(e *evidence) { e.Notifications["n-later"].Counts = nil }},
		"canceled, but nobody asked for it": {lost, func(e *evidence) {
			e.Promises[4].Canceling, e.Promises[4].CanceledAhead = false, false
			e.Notifications["n-never"].Canceled = true
		}},
		"a keyed post is not stored":              {lost, func(e *evidence) { e.Copies["once.n1"] = 0 }},
		"still pending":                           {unfinished, func(e *evidence) { e.Stored["d-sent"].State = "pending" }},
		"still sending":                           {unfinished, func(e *evidence) { e.Stored["d-stored"].State = "sending" }},
		"still held":                              {unfinished, func(e *evidence) { e.Stored["d-gone"].State = "held" }},
		"no state at all":                         {unfinished, func(e *evidence) { e.Stored["d-gone"].State = "" }},
		"still scheduled":                         {unfinished, func(e *evidence) { e.Notifications["n-later"].Scheduled = true }},
		"dead without a reason":                   {unexplained, func(e *evidence) { e.Stored["d-rejected"].Reason = "" }},
		"dropped without a reason":                {unexplained, func(e *evidence) { e.Stored["d-canceled"].Reason = "" }},
		"rejected by a provider that takes all":   {unexplained, func(e *evidence) { e.Stored["d-rejected"].Target = "sound" }},
		"gone, but it is there":                   {unexplained, func(e *evidence) { e.Stored["d-gone"].Target = "sound" }},
		"canceled by nobody":                      {unexplained, func(e *evidence) { clear(e.Canceled) }},
		"ambiguous, but repeating was allowed":    {unexplained, func(e *evidence) { e.AtMostOnce = func(string) bool { return false } }},
		"crashed, but no node died with it":       {unexplained, func(e *evidence) { e.Stored["d-crashed"].Unknown = false }},
		"expired":                                 {unexplained, func(e *evidence) { e.Stored["d-gone"].Reason = "expired" }},
		"sent, but the provider never saw it":     {phantom, func(e *evidence) { seen(e, "d-sent", 0) }},
		"one that was never answered is not sent": {phantom, func(e *evidence) { seen(e, "d-stored", 0) }},
		"sent twice without a flag":               {duplicate, func(e *evidence) { seen(e, "d-sent", 2) }},
		"the flag is lost":                        {duplicate, func(e *evidence) { e.Stored["d-twice"].Unknown = false }},
		"the ambiguous attempt is lost":           {duplicate, func(e *evidence) { e.Ambiguous = func(*stored) bool { return false } }},
		"dead, and sent twice without a flag":     {duplicate, func(e *evidence) { seen(e, "d-rejected", 2) }},
		"at most once came twice, though flagged": {duplicate, func(e *evidence) { e.Stored["d-again"].Round = 1 }},
		"sent twice again after a restore": {duplicate, func(e *evidence) {
			seen(e, "d-sent", 3)
			e.Before = map[string]int{"d-sent": 1}
		}},
		"a key has two notifications":       {repeated, func(e *evidence) { e.Copies["once.n1"] = 2 }},
		"a key has two answers":             {repeated, func(e *evidence) { e.Keys[0].Answers["n-2"] = true }},
		"a key has no answer in the end":    {repeated, func(e *evidence) { clear(e.Keys[0].Answers) }},
		"sent though it was canceled ahead": {uncanceled, func(e *evidence) { e.Notifications["n-never"].Counts = map[string]int{"sent": 1} }},
		"an invariant does not hold":        {unsound, func(e *evidence) { e.Violations = []string{"overspent"} }},
		"a node ended by itself":            {crash, func(e *evidence) { e.Crashes = []string{"panic"} }},
		"a good request was refused":        {refusal, func(e *evidence) { e.Refused["422"] = 1 }},
		"no load":                           {blind, func(e *evidence) { e.Accepted = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := sound()
			e.Stored = maps.Clone(e.Stored)
			c.plant(&e)
			v := judge(e)
			require.Len(t, v.findings, 1, "%v", v.findings)
			require.Equal(t, c.kind, v.findings[0].Kind, "%v", v.findings)
		})
	}
}
