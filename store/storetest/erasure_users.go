package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

func erasureTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Erasure/NothingOfTheUserIsLeft":      nothingOfTheUserIsLeft,
		"Erasure/OthersKeepWhatIsTheirs":      othersKeepTheirs,
		"Erasure/WhatIsInHandIsTakenAway":     erasureTakesWhatIsInHand,
		"Erasure/WhatWasOnItsWayIsFoundLater": erasureLooksTwice,
		"Erasure/MoreThanOneTransaction":      erasesMuch,
		"Erasure/AnUnknownUserIsLookedFor":    erasesUnknown,
		"Erasure/TheUserMayComeBack":          erasedMayComeBack,
		"Erasure/ReceiptsAreOnesOwn":          receiptsAreOnesOwn,
	}
}

// marker is in everything that is stored of the user whom these tests erase.
const marker = "zq7person"

// seeded lists the tables that hold something of a user, and what the seed puts
// into them. A table that is in neither list fails the tests: say how an erasure
// treats it, and seed it here.
var seeded = map[string]string{
	"users":         "the user",
	"devices":       "one of each channel",
	"device_events": "of the user's devices, and of one that another has by now",
	"endpoints":     "one that is bound to the user",
	"holds":         "of the endpoint, with a reason that names the user",
	"payloads":      "for the user alone, with others, scheduled",
	"deliveries":    "in every state, with details of attempts",
	"attempts":      "with details",
	"newest":        "of a delivery with a collapse key that names the user",
	"skips":         "of the user",
	"fanouts":       "of notifications that name the user",
	"idempotency":   "an answer and a key that name the user",
	"jobs":          "one that selects by the user",
	"erasures":      "an earlier one",
}

// noUserData lists the tables that hold nothing of a user, and why.
var noUserData = map[string]string{
	"tenants":             "the tenant's own",
	"api_keys":            "the tenant's own",
	"user_keys":           "the tenant's own: users' tokens are not stored",
	"apps":                "the tenant's own",
	"credentials":         "the tenant's own",
	"credential_versions": "the tenant's own",
	"notifications":       "no content, and nobody's",
	"audit":               "subjects are ids, never a user's",
	"nodes":               "servers",
	"shared_gates":        "credentials and origins that wait",
	"waits":               "credentials, origins and endpoints, and what providers said",
	"shared_refusals":     "internal numbers of who was refused, for ten minutes",
	"shared_successes":    "when something has succeeded",
	"shared_verdicts":     "counts of a credential version",
	"shared_uses":         "counts of a tenant",
	"duties":              "background work",
	"installation":        "facts about the whole, as operators say them",
	"schema_info":         "the schema",
	"goose_db_version":    "the schema",
	"sqlite_sequence":     "the schema",
}

// dump reads everything, and refuses tables that the tests do not know.
func (k *kit) dump() Dump {
	k.Helper()
	d := k.Dump(k.T)
	for name := range d {
		_, a := seeded[name]
		_, b := noUserData[name]
		require.NotEqual(k, a, b, "the table %s is new: say in seeded or noUserData whether it holds anything of a user", name)
	}
	return d
}

// find lists where the marker is, or the internal id of the user.
func (k *kit) find(d Dump, user ids.ID) []string {
	k.Helper()
	hash := sha256.Sum256([]byte(marker + "-token"))
	orderKey := k.orderKey(marker + "-score")
	var out []string
	for name, table := range d {
		for _, row := range table.Rows {
			for column, v := range row {
				found := false
				switch v := v.(type) {
				case string:
					found = strings.Contains(v, marker)
				case []byte:
					found = bytes.Contains(v, []byte(marker)) || bytes.Contains(v, hash[:])
				case int64:
					found = user != 0 && v == int64(user) || v == orderKey
				}
				if found {
					out = append(out, name+"."+column)
				}
			}
			if name == "payloads" {
				body, err := k.Store.Content(k.ctx, ids.ID(row["tenant_id"].(int64)), ids.ID(row["notification_id"].(int64)))
				k.ok(err)
				if bytes.Contains(body, []byte(marker)) {
					out = append(out, "payloads: sealed")
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// work takes the steps of all jobs until none is left, and moves the time to when
// the next may be taken.
func (k *kit) work() (steps int) {
	k.Helper()
	for ; steps < 10_000; steps++ {
		now := k.Clock.Now()
		j, next, err := k.Store.ClaimJob(k.ctx, jobs.ClaimOrder{Kinds: []jobs.Kind{jobs.EraseUser, jobs.DeleteTenant}, Now: now,
			Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next())})
		k.ok(err)
		switch {
		case j.ID != 0:
			k.step(j)
		case next.IsZero():
			return steps
		default:
			k.Clock.Advance(max(next.Sub(now), time.Millisecond))
		}
	}
	k.Fatal("the jobs do not end")
	return steps
}

func (k *kit) step(j jobs.Job) {
	k.Helper()
	take := k.Store.EraseStep
	if j.Kind == jobs.DeleteTenant {
		take = k.Store.DeleteTenantStep
	}
	_, err := take(k.ctx, j)
	k.ok(err)
}

func (k *kit) erase(user string) (delivery.Erasure, ids.ID) {
	k.Helper()
	e, id, err := k.Store.EraseUser(k.ctx, k.tenant, user, "key_1")
	k.ok(err)
	return e, id
}

// content makes a request that names users, with the marker in it where it is for
// nobody else.
func requestTo(users ...string) delivery.Request {
	r := delivery.Request{To: delivery.To{Users: users}, Title: "Hello"}
	if slices.Equal(users, []string{marker}) {
		r.Body = "Dear " + marker
	}
	return r
}

// send stores a notification to devices of users, with a row for each.
func (k *kit) send(r delivery.Request, to ...devices.Device) delivery.Accepted {
	k.Helper()
	a := k.notification()
	for _, d := range to {
		now := k.Clock.Now()
		a.Rows = append(a.Rows, delivery.Row{Tenant: k.tenant, Notification: a.ID, Target: d.ID, Channel: d.Channel, Lane: a.Lane, State: delivery.Pending,
			UserID: d.UserID, Epoch: d.Epoch, DueAt: now, ExpiresAt: now.Add(time.Hour), Round: 1, UpdatedAt: now})
		if r.CollapseKey != "" {
			a.Rows[len(a.Rows)-1].OrderKey = k.orderKey(r.CollapseKey)
		}
	}
	k.fill(&a, r)
	k.accept(a)
	return a
}

func (k *kit) fill(a *delivery.Accepted, r delivery.Request) {
	k.Helper()
	var err error
	a.Body, err = json.Marshal(r)
	k.ok(err)
}

// person is what the seed has made.
type person struct {
	id           ids.ID
	phone        devices.Device // of the user
	bob          devices.Device // of another
	alone, both  delivery.Accepted
	pending      delivery.Row // of the user, not in hand
	inHand       delivery.Claimed
	later        delivery.Accepted // scheduled, for the user alone
	laterForBoth delivery.Accepted
	over         delivery.Accepted // for both, and all sent
}

// seedPerson puts something of the user into every table.
func (k *kit) seedPerson() (p person) {
	k.Helper()
	k.device(marker, marker+"-token")
	_, _ = k.erase(marker) // once before
	k.work()
	p.phone = k.device(marker, marker+"-token", func(d *devices.Device) {
		d.InstallationID, d.Tags = marker+"-installation", map[string]string{"name": marker}
	})
	p.id, p.bob = p.phone.UserID, k.device("bob", "bobs-token")
	k.device(marker, "handed-on")
	k.device("bob", "handed-on")
	k.device(marker, "https://push.example/"+marker, func(d *devices.Device) {
		d.Channel, d.Target.Kind = channels.WebPush, channels.Subscription
		d.Target.P256dh, d.Target.Auth = make([]byte, 65), make([]byte, 16)
	})
	e := k.endpoint(func(e *webhooks.Endpoint) {
		e.User, e.URL, e.Description = marker, "https://"+marker+".example/in", "for "+marker
	})
	was := e.UpdatedAt
	e.Status, e.StatusReason, e.UpdatedAt = webhooks.Paused, marker+" asked for it", k.Clock.Now().Add(time.Millisecond)
	k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, webhooks.Edit{Actor: "test"}))
	_, current := k.notes(delivery.NoteWait{Wait: k.wait(channels.Webhook, e.ID, "", 0), URL: e.URL})
	require.True(k, current)

	// One delivery in every state; the dead and the sent one have older attempts.
	k.send(requestTo(marker), p.phone) // to be retried, then dead
	p.over = k.send(requestTo(marker, "bob"), p.phone, p.bob)
	held := k.send(requestTo(marker), p.phone)
	dropped := k.send(requestTo(marker), p.phone)
	for _, c := range k.claim() {
		a := k.attempt(c.Row, channels.Retry, "busy")
		if c.UserID == p.id {
			a.Detail, a.ProviderID = "no room for "+marker, marker
		}
		k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1}, Attempt: a})
	}
	for _, c := range k.claim() {
		a := k.attempt(c.Row, channels.Accepted, "ok")
		if c.UserID == p.id {
			a.Detail, a.ProviderID = "for "+marker, marker
		}
		f := delivery.Finish{Row: c.Row, Attempt: a, Transition: delivery.Transition{State: delivery.Dead, Reason: delivery.Rejected}}
		switch c.Notification {
		case p.over.ID:
			f.Transition = delivery.Transition{State: delivery.Sent}
		case held.ID:
			f.Transition, f.Hold = delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}, delivery.Hold{App: "default", Channel: channels.FCM}
		case dropped.ID:
			f.Transition = delivery.Transition{State: delivery.Dropped, Reason: delivery.Gone}
		}
		k.finish(f)
	}
	p.alone = k.send(requestTo(marker), p.phone)
	p.inHand = k.claim()[0]
	p.both = k.send(requestTo(marker, "bob"), p.phone, p.bob)
	p.pending = p.both.Rows[0]
	score := requestTo(marker)
	score.CollapseKey = marker + "-score"
	k.send(score, p.phone)

	skip := k.notification(p.bob.ID)
	k.fill(&skip, requestTo(marker, "bob"))
	skip.Skips = []delivery.Skip{{User: marker, Channel: channels.APNs, Reason: delivery.SkipNoDevice}}
	k.accept(skip)
	later := func(r delivery.Request) delivery.Accepted {
		a := k.notification()
		a.Scheduled, a.SendAt = true, k.Clock.Now().Add(time.Hour)
		k.fill(&a, r)
		k.accept(a)
		return a
	}
	p.later, p.laterForBoth = later(requestTo(marker)), later(requestTo("bob", marker))
	later(delivery.Request{To: delivery.To{Devices: []ids.ID{p.phone.ID}}, Title: marker + " has mail"})

	for key, answer := range map[string]string{
		"order-1":            `{"id":"ntf_1","deliveries":[{"id":"dlv_1","user":"` + marker + `"},{"id":"dlv_2","user":"bob"}],"n":9007199254740993}`,
		"hello-" + marker:    `{}`,
		"order-2-of-another": `{"user":"bob"}`,
	} {
		_, err := k.Store.Accept(k.ctx, k.batch(key, 1, answer, k.notification()))
		k.ok(err)
	}
	k.Exec(k.T, `INSERT INTO jobs (id,tenant_id,kind,state,spec,cursor,result,total,done,skipped,failed,error,retries,actor,created_at,started_at,updated_at,finished_at,lease_until,claim)
 VALUES (?,?,1,3,?,'','',0,0,0,0,'',0,'key_1',1,1,1,1,0,0)`, int64(k.IDs.Next()), int64(k.tenant), `{"filter":{"user":"`+marker+`"}}`)
	return p
}

// nothingOfTheUserIsLeft walks the whole database, whatever is in it.
func nothingOfTheUserIsLeft(k *kit) {
	p := k.seedPerson()
	d := k.dump()
	where := map[string]bool{}
	for _, at := range k.find(d, p.id) {
		table, _, _ := strings.Cut(strings.ReplaceAll(at, ":", "."), ".")
		where[table] = true
	}
	for table := range seeded {
		require.NotEmpty(k, d[table].Rows, "the seed puts nothing into %s", table)
	}
	for _, table := range []string{"users", "devices", "endpoints", "holds", "payloads", "deliveries", "attempts", "newest", "skips", "idempotency", "jobs"} {
		require.True(k, where[table], "the seed leaves no trace of the user in %s, so the test proves nothing", table)
	}
	if k.Files != nil {
		require.True(k, bytes.Contains(k.Files(k.T), []byte(marker)), "the file shows what is stored")
	}

	e, id := k.erase(marker)
	require.Equal(k, p.id, id)
	require.NotContains(k, fmt.Sprint(e), marker)
	k.work()
	k.ended(1000)

	require.Empty(k, k.find(k.dump(), p.id))
	if k.Files != nil {
		require.False(k, bytes.Contains(k.Files(k.T), []byte(marker)), "the file has been overwritten")
	}
	receipt, err := k.Store.Erasure(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, e.Subject, receipt.Subject)
	require.Equal(k, "key_1", receipt.Actor)
	require.False(k, receipt.FinishedAt.IsZero())
	require.Subset(k, slices.Collect(maps.Keys(receipt.Rows)), []string{"users", "devices", "endpoints", "deliveries", "attempts", "payloads", "skips", "fanouts", "idempotency", "jobs"})
	require.Equal(k, 1, receipt.Rows["users"])
	require.Equal(k, 2, receipt.Rows["devices"])
	j, err := k.Store.Job(k.ctx, k.tenant, e.Job)
	k.ok(err)
	require.Equal(k, jobs.Done, j.State)

	for row, want := range map[delivery.Row]string{
		p.inHand.Row: "dropped erased", p.pending: "dropped erased", p.over.Rows[0]: "sent ", p.over.Rows[1]: "sent ", p.both.Rows[1]: "pending ",
	} {
		v := k.view(row)
		require.Equal(k, want, v.State.String()+" "+v.Reason.String())
	}
	again, _ := k.erase(marker)
	k.work()
	receipt, err = k.Store.Erasure(k.ctx, k.tenant, again.ID)
	k.ok(err)
	require.Empty(k, receipt.Rows, "there was nothing left")
	require.Equal(k, e.Subject, receipt.Subject)
}

// othersKeepTheirs: what others still wait for stays, without the user.
func othersKeepTheirs(k *kit) {
	p := k.seedPerson()
	_, _ = k.erase(marker)
	k.work()
	for _, a := range []delivery.Accepted{p.both, p.laterForBoth} {
		body, err := k.Store.Content(k.ctx, k.tenant, a.ID)
		k.ok(err)
		var r delivery.Request
		k.ok(json.Unmarshal(body, &r))
		require.Equal(k, delivery.Request{To: delivery.To{Users: []string{"bob"}}, Title: "Hello"}, r)
	}
	k.content(p.alone.ID, false)
	k.content(p.later.ID, false)
	k.content(p.over.ID, false)
	view, err := k.Store.Notification(k.ctx, k.tenant, p.later.ID)
	k.ok(err)
	require.False(k, view.Scheduled)
	require.Equal(k, []delivery.Skip{{Reason: delivery.SkipErased}}, view.Skips)
	due, err := k.Store.DueScheduled(k.ctx, k.Clock.Now().Add(2*time.Hour), 10)
	k.ok(err)
	require.Len(k, due, 1)
	require.Equal(k, p.laterForBoth.ID, due[0].Notification)
	bob, err := k.Store.Device(k.ctx, k.tenant, p.bob.ID)
	k.ok(err)
	require.Equal(k, p.bob, bob)

	got, err := k.Store.Accept(k.ctx, k.batch("order-1", 1, "another", k.notification()))
	k.ok(err)
	require.True(k, got.Replayed, "the key still counts")
	require.JSONEq(k, `{"id":"ntf_1","deliveries":[{"id":"dlv_1","user":"[erased]"},{"id":"dlv_2","user":"bob"}],"n":9007199254740993}`, string(got.Body))
	require.Contains(k, string(got.Body), "9007199254740993")
	got, err = k.Store.Accept(k.ctx, k.batch("order-2-of-another", 1, "another", k.notification()))
	k.ok(err)
	require.Equal(k, `{"user":"bob"}`, string(got.Body))
}

// erasureTakesWhatIsInHand: a node that was sending cannot write the user back.
func erasureTakesWhatIsInHand(k *kit) {
	p := k.seedPerson()
	_, _ = k.erase(marker)
	k.is(p.inHand.Row, delivery.Dropped, delivery.Erased)
	late := func() delivery.FinishResult {
		a := k.attempt(p.inHand.Row, channels.Accepted, "ok")
		a.Detail, a.ProviderID = marker, marker
		return k.finish(delivery.Finish{Row: p.inHand.Row, Attempt: a, Transition: delivery.Transition{State: delivery.Sent, Device: delivery.DeviceConfirmed}})
	}
	require.True(k, late().Lost)
	k.work()
	require.True(k, late().Lost)
	require.Equal(k, []bool{false}, k.renew(time.Hour, p.inHand.Row))
	k.ended(1000)
	require.Empty(k, k.find(k.dump(), p.id))
	for _, c := range k.claim() {
		require.NotEqual(k, p.phone.ID, c.Target, "nothing of the user is claimed")
	}
}

// erasureLooksTwice: a request that had read the user before the erasure writes
// after it.
func erasureLooksTwice(k *kit) {
	p := k.seedPerson()
	e, _ := k.erase(marker)
	for done := false; !done; { // the first round
		now := k.Clock.Now()
		j, next, err := k.Store.ClaimJob(k.ctx, jobs.ClaimOrder{Kinds: []jobs.Kind{jobs.EraseUser}, Now: now, Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next())})
		k.ok(err)
		if done = j.ID == 0; done {
			require.Equal(k, e.RequestedAt.Add(delivery.EraseGrace), next.UTC())
		} else {
			k.step(j)
		}
	}
	open, err := k.Store.Erasure(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.True(k, open.FinishedAt.IsZero())
	late := k.send(requestTo(marker), p.phone)
	both := k.notification(p.bob.ID)
	k.fill(&both, requestTo("bob", marker))
	both.Skips = []delivery.Skip{{User: marker, Channel: channels.APNs, Reason: delivery.SkipNoDevice}}
	k.accept(both)
	require.NotEmpty(k, k.find(k.dump(), p.id))
	k.work()
	k.ended(1000)
	require.Empty(k, k.find(k.dump(), p.id))
	k.is(late.Rows[0], delivery.Dropped, delivery.Erased)
}

// erasesMuch: what is more than one transaction takes is removed as well.
func erasesMuch(k *kit) {
	const n = 450
	var last devices.Device
	for i := range n {
		last = k.device(marker, fmt.Sprintf("%s-%d", marker, i))
		k.send(requestTo(marker), last)
	}
	e, id := k.erase(marker)
	k.work()
	require.Empty(k, k.find(k.dump(), id))
	if k.Files != nil {
		require.False(k, bytes.Contains(k.Files(k.T), []byte(marker)), "whole pages have been overwritten")
	}
	receipt, err := k.Store.Erasure(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, n, receipt.Rows["devices"])
	require.Equal(k, n, receipt.Rows["payloads"])
	list, err := k.Store.Deliveries(k.ctx, k.tenant, delivery.Query{Reason: delivery.Erased, Limit: 500})
	k.ok(err)
	require.Len(k, list, n)
}

// erasesUnknown: who was never seen may be named in what is scheduled.
func erasesUnknown(k *kit) {
	a := k.notification()
	a.Scheduled, a.SendAt = true, k.Clock.Now().Add(time.Hour)
	k.fill(&a, requestTo(marker))
	k.accept(a)
	e, id := k.erase(marker)
	require.Zero(k, id)
	require.Empty(k, e.Rows)
	k.work()
	require.Empty(k, k.find(k.dump(), 0))
	receipt, err := k.Store.Erasure(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, map[string]int{"fanouts": 1, "payloads": 1}, receipt.Rows)
}

// erasedMayComeBack: an erasure is no ban, and takes nothing that came after it.
func erasedMayComeBack(k *kit) {
	old := k.device(marker, marker+"-token")
	_, _ = k.erase(marker)
	back := k.device(marker, marker+"-token")
	require.NotEqual(k, old.UserID, back.UserID)
	require.NotEqual(k, old.ID, back.ID)
	a := k.send(requestTo(marker), back)
	k.work()
	k.is(a.Rows[0], delivery.Pending, delivery.NoReason)
	got, err := k.Store.Device(k.ctx, k.tenant, back.ID)
	k.ok(err)
	require.Equal(k, back, got)
}

func receiptsAreOnesOwn(k *kit) {
	first, _ := k.erase("a")
	second, _ := k.erase("b")
	list, err := k.Store.Erasures(k.ctx, k.tenant, 0, 10)
	k.ok(err)
	require.Equal(k, []ids.ID{second.ID, first.ID}, []ids.ID{list[0].ID, list[1].ID})
	list, err = k.Store.Erasures(k.ctx, k.tenant, second.ID, 10)
	k.ok(err)
	require.Len(k, list, 1)
	mine := k.tenant
	k.tenant = k.newTenant("other")
	list, err = k.Store.Erasures(k.ctx, k.tenant, 0, 10)
	k.ok(err)
	require.Empty(k, list)
	_, err = k.Store.Erasure(k.ctx, k.tenant, first.ID)
	k.code(problem.NotFound, err)
	same, _ := k.erase("a")
	require.NotEqual(k, first.Subject, same.Subject, "another tenant's user of the same name has another hash")
	k.tenant = mine
	_, _, err = k.Store.EraseUser(k.ctx, k.IDs.Next(), "a", "test")
	k.code(problem.NotFound, err)
}
