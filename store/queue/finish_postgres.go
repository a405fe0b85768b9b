package queue

import (
	"database/sql"
	"slices"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

const (
	selectCanceled = `SELECT n.tenant_id,n.id FROM notifications n JOIN unnest($1::bigint[],$2::bigint[]) AS v(tenant,id)
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

// plainFinish: an attempt whose verdict changes its own row and no other. Of what
// Amend asks about it only a cancellation matters, which is looked for. What may have
// been superseded is no such attempt, unless it has ended.
func plainFinish(f *delivery.Finish) bool {
	n := &f.Transition
	effect := n.Device != delivery.DeviceUntouched && (n.Device != delivery.DeviceConfirmed || f.Row.Channel != channels.Webhook)
	return f.Attempt != nil && n.Hold == 0 && n.State != delivery.Held && !effect && (f.Row.OrderKey == 0 || !n.State.Unfinished()) && !f.Prove && f.Learned == "" && f.LearnedKey == ""
}

// plainly is what a plain finish writes.
func plainly(f *delivery.Finish) delivery.Transition {
	return delivery.Amend(f.Transition, delivery.Found{Channel: f.Row.Channel, Spent: f.Row.Spent, ExpiresAt: f.ExpiresAt, Now: f.Now})
}

// finishTogether also drops what is superseded in the same transaction.
func finishTogether(t *db.Tx, members []any, done []bool, older superseding) error {
	var plain []*finishing
	places := map[*finishing]int{}
	for i, m := range members {
		if x, ok := m.(*finishing); ok && plainFinish(&x.f) {
			plain = append(plain, x)
			places[x] = i
		}
	}
	if len(plain) == 0 {
		return dropTogether(t, older, nil)
	}
	// Everybody locks rows in the order of their keys, so that none waits for the other.
	slices.SortFunc(plain, func(a, b *finishing) int { return compareKeys(keyOfRow(&a.f.Row), keyOfRow(&b.f.Row)) })
	canceled, err := canceledOf(t, plain)
	if err != nil {
		return err
	}
	plain = slices.DeleteFunc(plain, func(x *finishing) bool {
		return canceled[[2]int64{int64(x.f.Row.Tenant), int64(x.f.Row.Notification)}]
	})
	others := make([]rowKey, len(plain))
	for i, x := range plain {
		others[i] = keyOfRow(&x.f.Row)
	}
	if err := dropTogether(t, older, others); err != nil {
		return err
	}
	if err := keepTogether(t, plain); err != nil {
		return err
	}
	if err := updateTogether(t, plain); err != nil {
		return err
	}
	for _, x := range plain {
		done[places[x]] = true
	}
	return nil
}

// canceledOf finds the notifications among those to be tried again that have been
// canceled, and keeps the others from it until the commit.
func canceledOf(t *db.Tx, plain []*finishing) (map[[2]int64]bool, error) {
	var tenants, notifications []int64
	for _, x := range plain {
		if f := &x.f; f.Transition.State.Unfinished() {
			tenants, notifications = append(tenants, int64(f.Row.Tenant)), append(notifications, int64(f.Row.Notification))
		}
	}
	if len(tenants) == 0 {
		return nil, nil
	}
	if err := t.Exec(shareNotifications, tenants, notifications); err != nil {
		return nil, err
	}
	rows, err := t.Query(selectCanceled, tenants, notifications)
	if err != nil {
		return nil, err
	}
	found, err := db.Collect(rows, func(r *sql.Rows) (k [2]int64, err error) { return k, r.Scan(&k[0], &k[1]) })
	out := map[[2]int64]bool{}
	for _, k := range found {
		out[k] = true
	}
	return out, err
}

func keepTogether(t *db.Tx, plain []*finishing) error {
	var tenants, notifications, targets, claims []int64
	for _, x := range plain {
		if r := &x.f.Row; r.Attempts > 0 {
			tenants, notifications = append(tenants, int64(r.Tenant)), append(notifications, int64(r.Notification))
			targets, claims = append(targets, int64(r.Target)), append(claims, r.Claim)
		}
	}
	if len(tenants) == 0 {
		return nil
	}
	return t.Exec(keepAttempts, tenants, notifications, targets, claims)
}

func updateTogether(t *db.Tx, plain []*finishing) error {
	if len(plain) == 0 {
		return nil
	}
	var (
		tenants, notifications, targets, claims, due, expires, updated, credentials, at []int64
		states, reasons, spent, renewed, outcomes, statuses, ambiguous                  []int16
		attempts, took                                                                  []int32
		codes, details, providers                                                       []string
	)
	for _, x := range plain {
		f := &x.f
		r, n, a := &f.Row, plainly(f), f.Attempt
		tenants, notifications, targets, claims = append(tenants, int64(r.Tenant)), append(notifications, int64(r.Notification)), append(targets, int64(r.Target)), append(claims, r.Claim)
		states, reasons, due, expires = append(states, int16(n.State)), append(reasons, int16(n.Reason)), append(due, db.Millis(n.DueAt)), append(expires, db.Millis(f.ExpiresAt))
		spent, renewed, updated = append(spent, int16(n.Spent)), append(renewed, int16(n.Renew)), append(updated, db.Millis(f.Now))
		attempts, credentials, at = append(attempts, int32(a.Number)), append(credentials, int64(f.Credential)), append(at, db.Millis(a.At))
		took, outcomes, statuses = append(took, int32(a.Duration.Milliseconds())), append(outcomes, int16(a.Outcome)), append(statuses, int16(a.Status))
		ambiguous, codes, details, providers = append(ambiguous, db.Bit(a.Ambiguous)), append(codes, db.Storable(a.Code)), append(details, db.Storable(a.Detail)), append(providers, db.Storable(a.ProviderID))
	}
	rows, err := t.Query(finishAttempts, tenants, notifications, targets, claims, states, reasons, due, expires, spent, renewed,
		updated, attempts, credentials, at, took, outcomes, statuses, ambiguous, codes, details, providers)
	if err != nil {
		return err
	}
	type leased struct { // a claim that was lost may share the batch with the one that holds
		rowKey
		claim int64
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (l leased, err error) {
		return l, r.Scan(&l.tenant, &l.notification, &l.target, &l.claim)
	})
	if err != nil {
		return err
	}
	written := make(map[leased]bool, len(list))
	for _, l := range list {
		written[l] = true
	}
	for _, x := range plain {
		x.res = delivery.FinishResult{Written: plainly(&x.f), Lost: !written[leased{keyOfRow(&x.f.Row), x.f.Row.Claim}]}
	}
	return nil
}
