package torture_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// wish is something that a caller does.
type wish int

const (
	post      wish = iota // a notification
	postOnce              // with an Idempotency-Key, until it is answered
	postBatch             // several in one request
	postAhead             // scheduled, far enough to be a marker
	postSoon              // scheduled, but not so far
	postAtMostOnce
	cancel
	pauseOrResume
	replay
	changeKey // of a credential: one more VAPID pair, a wrong key, or back
	wishes
)

// usual is how often each wish comes, in a hundred.
func usual() [wishes]int {
	return [wishes]int{post: 34, postOnce: 20, postBatch: 5, postAhead: 10, postSoon: 5, postAtMostOnce: 6, cancel: 8, pauseOrResume: 5, replay: 7, changeKey: 1}
}

// load is callers at work.
type load struct {
	w         *world
	neighbour *neighbour
	ledger    *ledger
	mix       [wishes]int
	gone      []string // users whose phones are gone
	got       atomic.Int64
	serial    *atomic.Int64 // makes types unique over a run
	ahead     time.Duration // how far postAhead looks
	pairs     atomic.Int64  // VAPID pairs added
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

const (
	callers   = 8
	mostPairs = 6 // VAPID pairs that are added in one round
)

// typeAtMostOnce tells notifications that must not be sent twice, also those
// whose answer never came.
const typeAtMostOnce = "order.stop"

// begin puts the callers to work until end, and the neighbour's. Only what they got answers to is
// in the ledger as promised.
func (l *load) begin() {
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(func() { l.neighbour.post(ctx) })
	for caller := range callers {
		l.wg.Go(func() {
			for n := caller; ctx.Err() == nil; n++ {
				if !l.grant(ctx, l.choose(), n) {
					pause(ctx, 2*time.Millisecond) // nobody answers: not too hot
				}
			}
		})
	}
}

func (l *load) end() {
	l.cancel()
	l.wg.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// choose draws a wish.
func (l *load) choose() wish {
	sum := 0
	for _, n := range l.mix {
		sum += n
	}
	k := l.w.intn(sum)
	for x, n := range l.mix {
		if k -= n; k < 0 {
			return wish(x)
		}
	}
	return post
}

// grant does what is wished. false: there was no answer.
func (l *load) grant(ctx context.Context, x wish, n int) bool {
	body := l.body(n)
	switch x {
	case postOnce:
		return l.once(ctx, body)
	case postBatch:
		return l.batch(ctx, n)
	case postAhead:
		return l.send(ctx, body, time.Now().Add(l.ahead))
	case postSoon:
		return l.send(ctx, body, time.Now().Add(300*time.Millisecond))
	case postAtMostOnce:
		body["on_ambiguous"], body["type"] = "stop", typeAtMostOnce
		return l.send(ctx, body, time.Time{})
	case cancel:
		return l.cancelOne(ctx)
	case pauseOrResume:
		return l.turn(ctx)
	case replay:
		return l.replaySome(ctx)
	case changeKey:
		return l.changeKey(ctx)
	default:
	}
	return l.send(ctx, body, time.Time{})
}

// body is a notification over all channels, or for a phone that is gone.
func (l *load) body(n int) map[string]any {
	if len(l.gone) > 0 && l.w.intn(40) == 0 {
		return map[string]any{"to": map[string]any{"users": []string{l.gone[n%len(l.gone)]}}, "title": "n"}
	}
	b := map[string]any{"to": map[string]any{"users": []string{l.w.users[n%len(l.w.users)]}}, "title": "n", "type": "order.shipped",
		"channels": []string{"fcm", "apns", "webpush", "webhook"}}
	if l.w.intn(50) == 0 {
		b["urgent"] = true
	}
	return b
}

// send posts a notification once.
func (l *load) send(ctx context.Context, body map[string]any, at time.Time) bool {
	if !at.IsZero() {
		body["send_at"] = at.UTC().Format(time.RFC3339Nano)
	}
	a, err := l.w.call(ctx, "POST", "/v1/notifications", "", body)
	if !l.heard(a, err, "POST /v1/notifications") {
		return false
	}
	l.take(a.body, at)
	return true
}

// heard tells whether a call was answered with success, and notes what else came.
func (l *load) heard(a answer, err error, what string) bool {
	switch {
	case err != nil:
		l.ledger.with(func() { l.ledger.broken++ })
	case a.status < 300:
		return true
	case a.status < 500 && a.status != http.StatusTooManyRequests:
		l.ledger.with(func() { l.ledger.refused[fmt.Sprintf("%s: %d %.200s", what, a.status, a.body)]++ })
	}
	return false
}

func (l *load) take(raw []byte, at time.Time) (id string) {
	p := &promise{SendAt: at}
	if err := json.Unmarshal(raw, p); err != nil || p.ID == "" {
		l.ledger.with(func() { l.ledger.refused[fmt.Sprintf("an answer that cannot be read: %.200s", raw)]++ })
		return ""
	}
	l.ledger.promised(p)
	l.got.Add(1)
	return p.ID
}

// once posts with a key until it is answered; finish goes on with what could not
// be while the callers were at work.
func (l *load) once(ctx context.Context, body map[string]any) bool {
	k := &keyed{Type: fmt.Sprintf("once.n%d", l.serial.Add(1)), Body: body, Answers: map[string]bool{}}
	k.Body["type"] = k.Type
	if l.w.intn(8) == 0 {
		k.SendAt = time.Now().Add(l.ahead)
		k.Body["send_at"] = k.SendAt.UTC().Format(time.RFC3339Nano)
	}
	l.ledger.with(func() { l.ledger.keys[k.Type] = k })
	for ctx.Err() == nil {
		if l.tryOnce(ctx, k) {
			if l.w.intn(4) > 0 {
				return true
			}
			return l.tryOnce(ctx, k) // once more, as callers do who lost the answer
		}
		pause(ctx, 5*time.Millisecond)
	}
	return false
}

func (l *load) tryOnce(ctx context.Context, k *keyed) bool {
	l.ledger.with(func() { k.Tries++ })
	a, err := l.w.call(ctx, "POST", "/v1/notifications", k.Type, k.Body)
	if !l.heard(a, err, "POST /v1/notifications with a key") {
		return false
	}
	known := false
	var p promise
	if json.Unmarshal(a.body, &p) == nil {
		l.ledger.with(func() {
			known = k.Answers[p.ID]
			if len(k.Answers) == 0 {
				k.At = time.Now()
			}
			k.Answers[p.ID] = true
		})
	}
	if !known {
		l.take(a.body, k.SendAt)
	}
	return true
}

func (l *load) batch(ctx context.Context, n int) bool {
	list := make([]map[string]any, 3+l.w.intn(10))
	for i := range list {
		list[i] = l.body(n + i)
	}
	return l.batchOf(ctx, list)
}

func (l *load) batchOf(ctx context.Context, list []map[string]any) bool {
	a, err := l.w.call(ctx, "POST", "/v1/notifications/batch", "", map[string]any{"notifications": list})
	if !l.heard(a, err, "POST /v1/notifications/batch") {
		return false
	}
	var got struct {
		Results []json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil || len(got.Results) != len(list) {
		return false
	}
	for _, r := range got.Results {
		l.take(r, time.Time{})
	}
	return true
}

// cancelOne cancels a notification that was accepted lately.
func (l *load) cancelOne(ctx context.Context) bool {
	for _, p := range l.ledger.some(1) {
		l.ledger.with(func() { p.Canceling = true; l.ledger.canceled[p.ID] = true })
		a, err := l.w.call(ctx, "POST", "/v1/notifications/"+p.ID+"/cancel", "", nil)
		if !l.heard(a, err, "cancel") {
			return false
		}
		l.ledger.with(func() {
			l.ledger.cancels++
			if now := time.Now(); p.Scheduled && !p.CanceledAhead && now.Before(p.SendAt) {
				p.CanceledAhead, p.CanceledAt = true, now
			}
		})
	}
	return true
}

// turn pauses a credential or an endpoint, or resumes it.
func (l *load) turn(ctx context.Context) bool {
	path := l.w.pausable[l.w.intn(len(l.w.pausable))]
	what := "/pause"
	if l.w.intn(3) > 0 {
		what = "/resume"
	}
	a, err := l.w.call(ctx, "POST", path+what, "", nil)
	return l.heard(a, err, "POST "+path+what)
}

// changeKey puts a credential: one more VAPID pair, while browsers stay with theirs; a
// key that Google does not know, which goes back by itself or is left to be found; or
// it goes back to the version before.
func (l *load) changeKey(ctx context.Context) bool {
	const path = "/v1/apps/default/credentials/"
	var (
		a    answer
		err  error
		what string
	)
	switch l.w.intn(4) {
	case 0:
		if l.pairs.Add(1) > mostPairs {
			return true
		}
		what = "PUT a VAPID pair"
		a, err = l.w.call(ctx, "PUT", path+"webpush", "", map[string]any{"generate": true, "rotate": true, "subject": "mailto:ops@example.com"})
	case 1:
		what = "PUT a wrong key"
		a, err = l.w.call(ctx, "PUT", path+fmt.Sprintf("fcm?verify=false&auto_rollback=%t", l.w.intn(2) == 0), "", l.w.wrongKey)
	case 2:
		what = "roll back"
		a, err = l.w.call(ctx, "POST", l.w.pausable[0]+"/rollback?verify=false", "", nil)
		if err == nil && (a.status == http.StatusConflict || a.status == http.StatusUnprocessableEntity) {
			return true // there is nothing before
		}
	default:
		what = "PUT the right key"
		a, err = l.w.call(ctx, "PUT", path+"fcm", "", l.w.rightKey)
	}
	return l.heard(a, err, what)
}

// replaySome sends dead letters again. Another caller may have been faster.
func (l *load) replaySome(ctx context.Context) bool {
	a, err := l.w.call(ctx, "GET", "/v1/dead-letters?limit=5", "", nil)
	if !l.heard(a, err, "GET /v1/dead-letters") {
		return false
	}
	var list struct {
		Data []stored `json:"data"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil || len(list.Data) == 0 {
		return false
	}
	d := list.Data[l.w.intn(len(list.Data))]
	a, err = l.w.call(ctx, "POST", "/v1/deliveries/"+d.ID+"/replay", "", nil)
	if err == nil && a.status == http.StatusConflict {
		return true
	}
	if !l.heard(a, err, "replay") {
		return false
	}
	l.ledger.with(func() { l.ledger.replays++ })
	return true
}
