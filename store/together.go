package store

import (
	"database/sql"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

// On PostgreSQL every statement costs a trip to the server, so what is alike in a
// batch is written together: a submission is a row of arrays. SQLite is in the
// process, where a prepared statement for each row costs less than a long one.

const (
	insertIdempotencies = `INSERT INTO idempotency (tenant_id,principal_id,route,key,body_hash,status,answer,expires_at)
 SELECT * FROM unnest($1::bigint[],$2::bigint[],$3::text[],$4::text[],$5::bytea[],$6::smallint[],$7::bytea[],$8::bigint[])
 ON CONFLICT DO NOTHING RETURNING tenant_id,principal_id,route,key`

	insertNotifications = `INSERT INTO notifications (tenant_id,id,lane,type,created_at,send_at,flags,targets)
 SELECT * FROM unnest($1::bigint[],$2::bigint[],$3::smallint[],$4::text[],$5::bigint[],$6::bigint[],$7::smallint[],$8::bigint[])`

	insertPayloads = `INSERT INTO payloads (notification_id,tenant_id,sensitive,body)
 SELECT * FROM unnest($1::bigint[],$2::bigint[],$3::smallint[],$4::bytea[])`

	insertDeliveries = `INSERT INTO deliveries
 (tenant_id,notification_id,target_id,channel,lane,state,reason,user_id,device_epoch,credential_id,due_at,expires_at,claim,
  hold_id,round,spent,attempts,takeovers,flags,renewed,updated_at,
  att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 SELECT tenant,notification,target,channel,lane,state,0,nullif(owner,0),epoch,credential,due,expires,claim,
  0,1,0,0,0,0,0,updated,0,0,0,0,0,'','',''
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::smallint[],$5::smallint[],$6::smallint[],$7::bigint[],$8::integer[],$9::bigint[],
  $10::bigint[],$11::bigint[],$12::bigint[],$13::bigint[])
  AS v(tenant,notification,target,channel,lane,state,owner,epoch,credential,due,expires,claim,updated)`

	canceledOf = `SELECT n.tenant_id,n.id FROM notifications n JOIN unnest($1::bigint[],$2::bigint[]) AS v(tenant,id)
 ON n.tenant_id=v.tenant AND n.id=v.id WHERE n.flags&4<>0`

	shareNotifications = `SELECT n.flags FROM notifications n JOIN unnest($1::bigint[],$2::bigint[]) AS v(tenant,id)
 ON n.tenant_id=v.tenant AND n.id=v.id ORDER BY n.tenant_id,n.id FOR SHARE OF n`

	keepAttempts = `INSERT INTO attempts (tenant_id,notification_id,target_id,number,at,ms,outcome,status,ambiguous,code,detail,provider_id)
 SELECT d.tenant_id,d.notification_id,d.target_id,d.attempts,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[]) AS v(tenant,notification,target,claim)
 JOIN deliveries d ON d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target AND d.claim=v.claim AND d.state=2 AND d.attempts>0
 ORDER BY d.tenant_id,d.notification_id,d.target_id FOR UPDATE OF d
 ON CONFLICT DO NOTHING`

	finishAttempts = `UPDATE deliveries d SET state=v.state, reason=v.reason, due_at=v.due, expires_at=v.expires, hold_id=0, spent=v.spent, renewed=v.renewed,
  updated_at=v.updated, attempts=v.attempts, credential_id=v.credential, att_at=v.at, att_ms=v.ms, att_outcome=v.outcome, att_status=v.status,
  att_ambiguous=v.ambiguous, att_code=v.code, att_detail=v.detail, att_provider_id=v.provider
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[],$5::smallint[],$6::smallint[],$7::bigint[],$8::bigint[],$9::smallint[],$10::smallint[],
  $11::bigint[],$12::integer[],$13::bigint[],$14::bigint[],$15::integer[],$16::smallint[],$17::smallint[],$18::smallint[],$19::text[],$20::text[],$21::text[])
  AS v(tenant,notification,target,claim,state,reason,due,expires,spent,renewed,updated,attempts,credential,at,ms,outcome,status,ambiguous,code,detail,provider)
 WHERE d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target AND d.claim=v.claim AND d.state=2
 RETURNING d.tenant_id,d.notification_id,d.target_id,d.claim`
)

// together writes those members of a batch that may share statements, and tells
// which they were.
func (t *tx) together(batch []op) (done []bool, err error) {
	done = make([]bool, len(batch))
	if err := t.acceptTogether(batch, done); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	if err := t.finishTogether(batch, done); err != nil {
		return nil, fmt.Errorf("finish: %w", err)
	}
	return done, nil
}

// pipeline sends statements in one go.
func (t *tx) pipeline(fill func(*pgx.Batch)) error {
	return rawConn(t.conn, func(c *pgx.Conn) error {
		var b pgx.Batch
		fill(&b)
		if b.Len() == 0 {
			return nil
		}
		return c.SendBatch(t.ctx, &b).Close()
	})
}

type idempotencyKey struct {
	tenant, principal int64
	route, key        string
}

func keyOfBatch(b *delivery.Batch) idempotencyKey {
	i := b.Idempotency
	return idempotencyKey{int64(b.Tenant), int64(i.Principal), i.Route, i.Key}
}

func (t *tx) acceptTogether(batch []op, done []bool) error {
	mine, err := t.reserveTogether(batch)
	if err != nil {
		return err
	}
	var (
		n notificationColumns
		p payloadColumns
		d deliveryColumns
	)
	for i, o := range batch {
		a := o.accept
		if a == nil || len(a.batch.Accepted) == 0 || !plainAccept(a) || (a.batch.Idempotency != nil && !mine[i]) {
			continue // those whose key is taken, or wants a second look, take the long way
		}
		done[i], a.stored = true, nil
		for k := range a.batch.Accepted {
			x := &a.batch.Accepted[k]
			n = n.add(x)
			if len(x.Rows) > 0 {
				p = p.add(x, a.sealed[k])
			}
			d = d.add(x)
		}
	}
	return t.pipeline(func(b *pgx.Batch) { n.queue(b); p.queue(b); d.queue(b) })
}

// plainAccept: nothing but notifications and their deliveries.
func plainAccept(a *accepting) bool {
	return !a.maybe && !slices.ContainsFunc(a.batch.Accepted, func(x delivery.Accepted) bool { return x.Scheduled || len(x.Skips) > 0 })
}

// reserveTogether takes the idempotency keys that are free, and tells whose they are.
func (t *tx) reserveTogether(batch []op) (mine map[int]bool, err error) {
	wanted := map[idempotencyKey]int{}
	var (
		tenants, principals, expires []int64
		routes, keys                 []string
		hashes, answers              [][]byte
		statuses                     []int16
	)
	for i, o := range batch {
		if o.accept == nil || o.accept.batch.Idempotency == nil || !plainAccept(o.accept) {
			continue
		}
		b := &o.accept.batch
		k := keyOfBatch(b)
		if _, twice := wanted[k]; twice {
			continue
		}
		wanted[k] = i
		tenants, principals = append(tenants, k.tenant), append(principals, k.principal)
		routes, keys = append(routes, k.route), append(keys, k.key)
		hashes, answers = append(hashes, b.Idempotency.BodyHash[:]), append(answers, b.Answer.Body)
		statuses, expires = append(statuses, int16(b.Answer.Status)), append(expires, millis(b.ExpiresAt))
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	rows, err := t.conn.QueryContext(t.ctx, insertIdempotencies, tenants, principals, routes, keys, hashes, statuses, answers, expires)
	if err != nil {
		return nil, err
	}
	taken, err := collect(rows, func(r *sql.Rows) (k idempotencyKey, err error) {
		return k, r.Scan(&k.tenant, &k.principal, &k.route, &k.key)
	})
	mine = make(map[int]bool, len(taken))
	for _, k := range taken {
		mine[wanted[k]] = true
	}
	return mine, err
}

// The columns of rows that are inserted together.
type notificationColumns struct {
	tenants, ids, created, sendAt, targets []int64
	lanes, flags                           []int16
	types                                  []string
}

func (c notificationColumns) add(a *delivery.Accepted) notificationColumns {
	c.tenants, c.ids, c.lanes = append(c.tenants, int64(a.Tenant)), append(c.ids, int64(a.ID)), append(c.lanes, int16(a.Lane))
	c.types, c.created, c.sendAt = append(c.types, storable(a.Type)), append(c.created, millis(a.CreatedAt)), append(c.sendAt, millis(a.SendAt))
	c.flags, c.targets = append(c.flags, int16(flagsOf(a))), append(c.targets, int64(len(a.Rows)))
	return c
}

func (c notificationColumns) queue(b *pgx.Batch) {
	if len(c.ids) > 0 {
		b.Queue(insertNotifications, c.tenants, c.ids, c.lanes, c.types, c.created, c.sendAt, c.flags, c.targets)
	}
}

type payloadColumns struct {
	notifications, tenants []int64
	sensitive              []int16
	bodies                 [][]byte
}

func (c payloadColumns) add(a *delivery.Accepted, sealed []byte) payloadColumns {
	c.notifications, c.tenants, c.bodies = append(c.notifications, int64(a.ID)), append(c.tenants, int64(a.Tenant)), append(c.bodies, sealed)
	c.sensitive = append(c.sensitive, number01(a.Sensitive))
	return c
}

func (c payloadColumns) queue(b *pgx.Batch) {
	if len(c.notifications) > 0 {
		b.Queue(insertPayloads, c.notifications, c.tenants, c.sensitive, c.bodies)
	}
}

type deliveryColumns struct {
	tenants, notifications, targets, users, credentials, due, expires, claims, updated []int64
	kinds, lanes, states                                                               []int16
	epochs                                                                             []int32
}

func (c deliveryColumns) add(a *delivery.Accepted) deliveryColumns {
	for i := range a.Rows {
		r := &a.Rows[i]
		c.tenants, c.notifications, c.targets = append(c.tenants, int64(r.Tenant)), append(c.notifications, int64(r.Notification)), append(c.targets, int64(r.Target))
		c.kinds, c.lanes, c.states = append(c.kinds, int16(r.Channel)), append(c.lanes, int16(r.Lane)), append(c.states, int16(r.State))
		c.users, c.epochs, c.credentials = append(c.users, int64(r.UserID)), append(c.epochs, int32(r.Epoch)), append(c.credentials, int64(r.Credential))
		c.due, c.expires, c.claims = append(c.due, millis(r.DueAt)), append(c.expires, millis(r.ExpiresAt)), append(c.claims, r.Claim)
		c.updated = append(c.updated, millis(a.CreatedAt))
	}
	return c
}

func (c deliveryColumns) queue(b *pgx.Batch) {
	if len(c.targets) > 0 {
		b.Queue(insertDeliveries, c.tenants, c.notifications, c.targets, c.kinds, c.lanes, c.states, c.users, c.epochs, c.credentials,
			c.due, c.expires, c.claims, c.updated)
	}
}

func number01(b bool) int16 {
	if b {
		return 1
	}
	return 0
}

// rowKey is the primary key of a delivery.
type rowKey struct{ tenant, notification, target int64 }

func keyOfRow(r *delivery.Row) rowKey {
	return rowKey{int64(r.Tenant), int64(r.Notification), int64(r.Target)}
}

func compareKeys(a, b rowKey) int {
	for _, d := range [3][2]int64{{a.tenant, b.tenant}, {a.notification, b.notification}, {a.target, b.target}} {
		if d[0] != d[1] {
			if d[0] < d[1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// plainFinish: an attempt whose verdict changes its own row and no other.
func plainFinish(f *delivery.Finish) bool {
	n := &f.Transition
	effect := n.Device != delivery.DeviceUntouched && (n.Device != delivery.DeviceConfirmed || f.Row.Channel != channels.Webhook)
	return f.Attempt != nil && n.Hold == 0 && n.State != delivery.Held && !effect && !f.Prove && f.Learned == ""
}

func (t *tx) finishTogether(batch []op, done []bool) error {
	var plain []int
	for i, o := range batch {
		if o.finish != nil && plainFinish(&o.finish.f) {
			plain = append(plain, i)
		}
	}
	if len(plain) == 0 {
		return nil
	}
	// Everybody locks rows in the order of their keys, so that none waits for the other.
	slices.SortFunc(plain, func(a, b int) int {
		return compareKeys(keyOfRow(&batch[a].finish.f.Row), keyOfRow(&batch[b].finish.f.Row))
	})
	canceled, err := t.canceledOf(batch, plain)
	if err != nil {
		return err
	}
	plain = slices.DeleteFunc(plain, func(i int) bool {
		r := &batch[i].finish.f.Row
		return canceled[[2]int64{int64(r.Tenant), int64(r.Notification)}]
	})
	if err := t.keepTogether(batch, plain); err != nil {
		return err
	}
	return t.updateTogether(batch, plain, done)
}

// canceledOf finds the notifications among those to be tried again that have been
// canceled, and keeps the others from it until the commit.
func (t *tx) canceledOf(batch []op, plain []int) (map[[2]int64]bool, error) {
	var tenants, notifications []int64
	for _, i := range plain {
		if f := &batch[i].finish.f; f.Transition.State.Unfinished() {
			tenants, notifications = append(tenants, int64(f.Row.Tenant)), append(notifications, int64(f.Row.Notification))
		}
	}
	if len(tenants) == 0 {
		return nil, nil
	}
	if err := t.exec(shareNotifications, tenants, notifications); err != nil {
		return nil, err
	}
	rows, err := t.query(canceledOf, tenants, notifications)
	if err != nil {
		return nil, err
	}
	found, err := collect(rows, func(r *sql.Rows) (k [2]int64, err error) { return k, r.Scan(&k[0], &k[1]) })
	out := map[[2]int64]bool{}
	for _, k := range found {
		out[k] = true
	}
	return out, err
}

func (t *tx) keepTogether(batch []op, plain []int) error {
	var tenants, notifications, targets, claims []int64
	for _, i := range plain {
		if r := &batch[i].finish.f.Row; r.Attempts > 0 {
			tenants, notifications = append(tenants, int64(r.Tenant)), append(notifications, int64(r.Notification))
			targets, claims = append(targets, int64(r.Target)), append(claims, r.Claim)
		}
	}
	if len(tenants) == 0 {
		return nil
	}
	return t.exec(keepAttempts, tenants, notifications, targets, claims)
}

func (t *tx) updateTogether(batch []op, plain []int, done []bool) error {
	if len(plain) == 0 {
		return nil
	}
	var (
		tenants, notifications, targets, claims, due, expires, updated, credentials, at []int64
		states, reasons, spent, renewed, outcomes, statuses, ambiguous                  []int16
		attempts, took                                                                  []int32
		codes, details, providers                                                       []string
	)
	for _, i := range plain {
		f := &batch[i].finish.f
		r, n, a := &f.Row, &f.Transition, f.Attempt
		dueAt := millis(n.DueAt)
		if !n.State.Unfinished() {
			dueAt = 0
		}
		tenants, notifications, targets, claims = append(tenants, int64(r.Tenant)), append(notifications, int64(r.Notification)), append(targets, int64(r.Target)), append(claims, r.Claim)
		states, reasons, due, expires = append(states, int16(n.State)), append(reasons, int16(n.Reason)), append(due, dueAt), append(expires, millis(f.ExpiresAt))
		spent, renewed, updated = append(spent, int16(n.Spent)), append(renewed, int16(n.Renew)), append(updated, millis(f.Now))
		attempts, credentials, at = append(attempts, int32(a.Number)), append(credentials, int64(f.Credential)), append(at, millis(a.At))
		took, outcomes, statuses = append(took, int32(a.Duration.Milliseconds())), append(outcomes, int16(a.Outcome)), append(statuses, int16(a.Status))
		ambiguous, codes, details, providers = append(ambiguous, number01(a.Ambiguous)), append(codes, storable(a.Code)), append(details, storable(a.Detail)), append(providers, storable(a.ProviderID))
	}
	rows, err := t.conn.QueryContext(t.ctx, finishAttempts, tenants, notifications, targets, claims, states, reasons, due, expires, spent, renewed,
		updated, attempts, credentials, at, took, outcomes, statuses, ambiguous, codes, details, providers)
	if err != nil {
		return err
	}
	type leased struct { // a claim that was lost may share the batch with the one that holds
		rowKey
		claim int64
	}
	list, err := collect(rows, func(r *sql.Rows) (l leased, err error) {
		return l, r.Scan(&l.tenant, &l.notification, &l.target, &l.claim)
	})
	if err != nil {
		return err
	}
	written := make(map[leased]bool, len(list))
	for _, l := range list {
		written[l] = true
	}
	for _, i := range plain {
		x := batch[i].finish
		x.res = delivery.FinishResult{Written: x.f.Transition, Lost: !written[leased{keyOfRow(&x.f.Row), x.f.Row.Claim}]}
		if !x.f.Transition.State.Unfinished() {
			x.res.Written.DueAt = fromMillis(0)
		}
		done[i] = true
	}
	return nil
}

// keysOf splits the keys and claims of rows into columns.
func keysOf(rows []delivery.Row) (tenants, notifications, targets, claims []int64) {
	for i := range rows {
		r := &rows[i]
		tenants, notifications = append(tenants, int64(r.Tenant)), append(notifications, int64(r.Notification))
		targets, claims = append(targets, int64(r.Target)), append(claims, r.Claim)
	}
	return tenants, notifications, targets, claims
}
