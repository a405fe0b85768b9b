package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// WaitCause says what trouble a scope has. The numbers are stored.
type WaitCause uint8

// The causes.
const (
	WaitThrottled   WaitCause = 1 // its provider said "too fast"
	WaitUnreachable WaitCause = 2 // no request reached it
	WaitFailing     WaitCause = 3 // it answers with errors, or not in time
)

var waitCauseNames = [...]string{WaitThrottled: "throttled", WaitUnreachable: "unreachable", WaitFailing: "failing"}

// lines are what the log says when such trouble begins, and when it ends.
func (c WaitCause) lines() (began, ended string) {
	switch c {
	case WaitThrottled:
		return "a scope waits", "a scope waits no more"
	case WaitUnreachable:
		return "a scope cannot be reached", "a scope is reached again"
	case WaitFailing:
		return "a scope fails", "a scope works again"
	}
	return "a scope is in trouble", "a scope is in trouble no more" // noted by another version
}

func (c WaitCause) String() string { return nameOf(waitCauseNames[:], uint8(c), "cause") }

// WaitCauses lists all causes.
func WaitCauses() []WaitCause { return []WaitCause{WaitThrottled, WaitUnreachable, WaitFailing} }

// Wait is a scope in trouble, from the first sign of it until the first success after
// it: a credential, one of its push services, or an endpoint. It is ended by that
// success, by a new version or URL, or by a person who resumes it, on all nodes.
type Wait struct {
	Tenant  ids.ID
	ID      ids.ID
	Subject ids.ID // the credential or endpoint
	Origin  string // of a push service; "": all of the subject
	Channel channels.Kind
	Cause   WaitCause
	Detail  string // what the provider said
	Since   time.Time
	// Until: nothing is sent before, but for a look every few minutes. Zero: each
	// delivery keeps its own schedule.
	Until       time.Time
	NotedAt     time.Time // the newest failure
	LastSuccess time.Time // before it, as far as it is known
}

func (w *Wait) key() flowKey { return flowKey{id: w.Subject, origin: w.Origin} }

// NoteWait is a Wait to be written, and what its trouble is about: what is not so any
// more has no part in it.
type NoteWait struct {
	Wait
	Version int    // of the credential
	URL     string // of the endpoint
}

// WaitStore keeps scopes that are in trouble.
type WaitStore interface {
	// PutWait notes trouble. began: it is new. current: it is about what there is; if
	// not, nothing is written.
	PutWait(ctx context.Context, w NoteWait) (began, current bool, err error)
	// EndWait removes what was noted before a success began; look: though it had to wait
	// still. false: there is nothing of the kind.
	EndWait(ctx context.Context, w Wait, began time.Time, look bool) (bool, error)
}

// mostNotes is how many changes of waits are written at a time, which tenants share: see
// partOf. The first of a tenant finds room though others have it all, up to four times as
// many. What finds none is noted with the next delivery that fails, succeeds or is put off.
const mostNotes = 64

// waits writes down which scopes are in trouble, so that people see it and all nodes
// go by it.
type waits struct {
	*env
	store WaitStore
	gates *gates
	hints *hints

	mu      sync.Mutex
	busy    map[flowKey]ids.ID // scopes that are written of, and their tenants
	of      map[ids.ID]int     // how many are of each tenant
	changed map[ids.ID]bool    // tenants of which it is about to be told
}

// changedWithin is how long it takes until all nodes hear that the waits of a tenant have
// changed. They read all of them then: a tenant of whose endpoints thousands come and go
// has them read once for all changes within that time.
const changedWithin = 200 * time.Millisecond

// tell has all nodes read the waits of a tenant anew, soon.
func (x *waits) tell(tenant ids.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.changed[tenant] {
		return
	}
	if x.changed == nil {
		x.changed = map[ids.ID]bool{}
	}
	x.changed[tenant] = true
	time.AfterFunc(changedWithin, func() {
		x.mu.Lock()
		delete(x.changed, tenant)
		x.mu.Unlock()
		if x.running.Err() == nil {
			x.hints.tenantChanged(tenant)
		}
	})
}

// begin takes the turn to write of a scope; false: somebody has it, or its tenant has as
// many as it may have.
func (x *waits) begin(tenant ids.ID, k flowKey) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	its, n := x.of[tenant], len(x.of)
	if its == 0 {
		n++
	}
	_, has := x.busy[k]
	if has || its >= partOf(mostNotes, n, len(x.busy)-its, true) || len(x.busy) >= 4*mostNotes {
		return false
	}
	if x.busy == nil {
		x.busy, x.of = map[flowKey]ids.ID{}, map[ids.ID]int{}
	}
	x.busy[k] = tenant
	x.of[tenant]++
	return true
}

func (x *waits) end(k flowKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	tenant := x.busy[k]
	delete(x.busy, k)
	if x.of[tenant]--; x.of[tenant] == 0 {
		delete(x.of, tenant)
	}
}

// closed tells of a gate that is closed, unless that is known.
func (x *waits) closed(tenant ids.ID, k flowKey, version int, url string, now time.Time) {
	if !x.begin(tenant, k) {
		return // whoever writes looks again when it has
	}
	w, ok := x.gates.tell(k, now)
	if !ok {
		x.end(k)
		return
	}
	go func() {
		current, err := x.put(NoteWait{Wait: w, Version: version, URL: url})
		switch {
		case err != nil:
			x.gates.written(k, time.Time{})
		case !current:
			x.gates.open(k)
		default:
			x.gates.written(k, x.now())
		}
		x.end(k)
		if err == nil && current {
			x.closed(tenant, k, version, url, x.now())
		}
	}()
}

// failed tells of a scope that fails without a gate.
func (x *waits) failed(w NoteWait) {
	k := w.key()
	if !x.begin(w.Tenant, k) {
		x.gates.untold(k)
		return
	}
	go func() {
		if _, err := x.put(w); err != nil {
			x.gates.untold(k)
		}
		x.end(k)
	}()
}

func (x *waits) put(w NoteWait) (current bool, err error) {
	began, current, err := x.store.PutWait(x.running, w)
	if err != nil {
		x.log.Warn("write down that a scope is in trouble", "error", err)
		return false, err
	}
	if current {
		x.tell(w.Tenant)
	}
	if began {
		line, _ := w.Cause.lines()
		x.log.LogAttrs(x.running, slog.LevelWarn, line, w.attrs(x.who(w.Tenant))...) //nolint:sloglint // one of the constants of WaitCause.lines
	}
	return current, nil
}

// succeeded ends the trouble of the scopes of a delivery that was taken. rows are
// those of its tenant.
func (x *waits) succeeded(p passage, rows map[flowKey]Wait, began, now time.Time, look bool) {
	if len(rows) == 0 {
		return
	}
	for _, k := range p.shared() {
		w, ok := rows[k]
		if !ok || began.Before(w.NotedAt) || w.Until.After(now) && !look || !x.begin(w.Tenant, k) {
			continue
		}
		go func() {
			defer x.end(k)
			ended, err := x.store.EndWait(x.running, w, began, look)
			switch {
			case err != nil:
				x.log.Warn("write down that a scope is in trouble no more", "error", err)
			case ended:
				if w.Until.After(now) {
					x.hints.tenantChanged(w.Tenant) // at once: what is put off by it now is not brought forward
				} else {
					x.tell(w.Tenant)
				}
				_, line := w.Cause.lines()
				x.log.LogAttrs(x.running, slog.LevelInfo, line, w.attrs(x.who(w.Tenant))...) //nolint:sloglint // one of the constants of WaitCause.lines
			}
		}()
	}
}

func (w *Wait) attrs(tenant slog.Value) []slog.Attr {
	subject := slog.String("credential", w.Subject.Format(ids.Credential))
	if w.Channel == channels.Webhook {
		subject = slog.String("endpoint", w.Subject.Format(ids.Endpoint))
	}
	list := []slog.Attr{{Key: "tenant", Value: tenant}, subject, slog.String("channel", w.Channel.String()),
		slog.String("cause", w.Cause.String()), slog.Time("since", w.Since), slog.String("why", w.Detail)}
	if w.Origin != "" {
		list = append(list, slog.String("origin", w.Origin))
	}
	if !w.Until.IsZero() { // what fails has no end that is known
		list = append(list, slog.Time("until", w.Until))
	}
	return list
}
