package queue

import (
	"database/sql"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

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
  hold_id,order_key,replaces,round,spent,attempts,takeovers,flags,renewed,updated_at,
  att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 SELECT tenant,notification,target,channel,lane,state,0,nullif(owner,0),epoch,credential,due,expires,claim,
  0,nullif(key,0),nullif(before,0),1,0,0,0,0,0,updated,0,0,0,0,0,'','',''
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::smallint[],$5::smallint[],$6::smallint[],$7::bigint[],$8::integer[],$9::bigint[],
  $10::bigint[],$11::bigint[],$12::bigint[],$13::bigint[],$14::bigint[],$15::bigint[])
  AS v(tenant,notification,target,channel,lane,state,owner,epoch,credential,due,expires,claim,updated,key,before)`
)

func insertTogether(t *db.Tx, a *delivery.Accepted) error {
	if len(a.Rows) == 1 {
		return insertEach(t, a)
	}
	return t.Pipeline(func(b *pgx.Batch) { deliveryColumns{}.add(a).queue(b) })
}

type idempotencyKey struct {
	tenant, principal int64
	route, key        string
}

func keyOfBatch(b *delivery.Batch) idempotencyKey {
	i := b.Idempotency
	return idempotencyKey{int64(b.Tenant), int64(i.Principal), i.Route, i.Key}
}

// acceptTogether returns what is superseded by what it stores.
func acceptTogether(t *db.Tx, members []any, done []bool) (superseding, error) {
	mine, err := reserveTogether(t, members)
	if err != nil {
		return nil, err
	}
	var (
		n      notificationColumns
		p      payloadColumns
		d      deliveryColumns
		plain  []*delivery.Accepted
		newest []*delivery.Row
	)
	for i, m := range members {
		a, ok := m.(*accepting)
		if !ok || !plainAccept(a) || (a.batch.Idempotency != nil && !mine[i]) {
			continue // those whose key is taken, or wants a second look, take the long way
		}
		done[i], a.stored = true, nil
		for k := range a.batch.Accepted {
			x := &a.batch.Accepted[k]
			n = n.add(x)
			if len(x.Rows) > 0 {
				p = p.add(x, a.sealed[k])
			}
			plain, newest = append(plain, x), ordered(x, newest)
		}
	}
	if err := moveTogether(t, newest, always); err != nil {
		return nil, err
	}
	for _, x := range plain {
		d = d.add(x)
	}
	older := superseding{}
	older.add(newest)
	return older, t.Pipeline(func(b *pgx.Batch) { n.queue(b); p.queue(b); d.queue(b) })
}

// plainAccept: nothing but notifications and their deliveries.
func plainAccept(a *accepting) bool {
	return !a.maybe && len(a.batch.Accepted) > 0 && !slices.ContainsFunc(a.batch.Accepted, func(x delivery.Accepted) bool { return x.Scheduled || len(x.Skips) > 0 })
}

// reserveTogether takes the idempotency keys that are free, and tells whose they are.
func reserveTogether(t *db.Tx, members []any) (mine map[int]bool, err error) {
	wanted := map[idempotencyKey]int{}
	var (
		tenants, principals, expires []int64
		routes, keys                 []string
		hashes, answers              [][]byte
		statuses                     []int16
	)
	for i, m := range members {
		a, ok := m.(*accepting)
		if !ok || a.batch.Idempotency == nil || !plainAccept(a) {
			continue
		}
		b := &a.batch
		k := keyOfBatch(b)
		if _, twice := wanted[k]; twice {
			continue
		}
		wanted[k] = i
		tenants, principals = append(tenants, k.tenant), append(principals, k.principal)
		routes, keys = append(routes, k.route), append(keys, k.key)
		hashes, answers = append(hashes, b.Idempotency.BodyHash[:]), append(answers, b.Answer.Body)
		statuses, expires = append(statuses, int16(b.Answer.Status)), append(expires, db.Millis(b.ExpiresAt))
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	rows, err := t.Query(insertIdempotencies, tenants, principals, routes, keys, hashes, statuses, answers, expires)
	if err != nil {
		return nil, err
	}
	taken, err := db.Collect(rows, func(r *sql.Rows) (k idempotencyKey, err error) {
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
	c.types, c.created, c.sendAt = append(c.types, db.Storable(a.Type)), append(c.created, db.Millis(a.CreatedAt)), append(c.sendAt, db.Millis(a.SendAt))
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
	c.sensitive = append(c.sensitive, db.Bit(a.Sensitive))
	return c
}

func (c payloadColumns) queue(b *pgx.Batch) {
	if len(c.notifications) > 0 {
		b.Queue(insertPayloads, c.notifications, c.tenants, c.sensitive, c.bodies)
	}
}

type deliveryColumns struct {
	tenants, notifications, targets, users, credentials, due, expires, claims, updated, keys, before []int64
	kinds, lanes, states                                                                             []int16
	epochs                                                                                           []int32
}

func (c deliveryColumns) add(a *delivery.Accepted) deliveryColumns {
	for i := range a.Rows {
		r := &a.Rows[i]
		c.tenants, c.notifications, c.targets = append(c.tenants, int64(r.Tenant)), append(c.notifications, int64(r.Notification)), append(c.targets, int64(r.Target))
		c.kinds, c.lanes, c.states = append(c.kinds, int16(r.Channel)), append(c.lanes, int16(r.Lane)), append(c.states, int16(r.State))
		c.users, c.epochs, c.credentials = append(c.users, int64(r.UserID)), append(c.epochs, int32(r.Epoch)), append(c.credentials, int64(r.Credential))
		c.due, c.expires, c.claims = append(c.due, db.Millis(r.DueAt)), append(c.expires, db.Millis(r.ExpiresAt)), append(c.claims, r.Claim)
		c.updated, c.keys, c.before = append(c.updated, db.Millis(a.CreatedAt)), append(c.keys, r.OrderKey), append(c.before, int64(r.Replaces))
	}
	return c
}

func (c deliveryColumns) queue(b *pgx.Batch) {
	if len(c.targets) > 0 {
		b.Queue(insertDeliveries, c.tenants, c.notifications, c.targets, c.kinds, c.lanes, c.states, c.users, c.epochs, c.credentials,
			c.due, c.expires, c.claims, c.updated, c.keys, c.before)
	}
}
