package queue

import (
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// selectDueShared takes the due rows of some tenants, at most $5 of each, and
// passes over what other nodes have under their hands. $6 is the mark.
const selectDueShared = `SELECT x.* FROM unnest($1::bigint[]) AS t(id) CROSS JOIN LATERAL (
 SELECT ` + rowColumns + `, coalesce((SELECT n.flags FROM notifications n WHERE n.tenant_id=d.tenant_id AND n.id=d.notification_id),0) AS notification_flags,
  d.flags AS own_flags
 FROM deliveries d WHERE d.lane=$2 AND d.tenant_id=t.id AND d.state<4 AND d.due_at<=$3 AND d.due_at>=$6
 ORDER BY d.due_at LIMIT $5 FOR UPDATE OF d SKIP LOCKED) x LIMIT $4`

const leaseShared = `UPDATE deliveries d SET state=2, due_at=$6, claim=$7, hold_id=0, takeovers=v.takeovers, flags=v.flags, updated_at=$8
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::smallint[],$5::smallint[]) AS v(tenant,notification,target,takeovers,flags)
 WHERE d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target`

const renewShared = `UPDATE deliveries d SET due_at=$5
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[]) AS v(tenant,notification,target,claim)
 WHERE d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target AND d.claim=v.claim AND d.state=2
 RETURNING d.tenant_id,d.notification_id,d.target_id`

const (
	// lookShare: looking for tenants that have something due takes at most one part
	// in so many of the time. It is quick, unless an old snapshot somewhere keeps
	// the entries of finished rows in the index.
	lookShare = 20
	lookQuick = 5 * time.Millisecond
	// markSlack is how long before now a row may still come that is due before it:
	// a commit that took long, a clock that was set.
	markSlack  = 5 * time.Second
	wholeLook  = 30 * time.Second // without the mark, for whatever came later still
	mostAtOnce = 1000
	latelyDue  = 5 * time.Minute
)

// claimShared claims beside other nodes. What finished lately leaves dead entries
// at the front of the index until they are vacuumed, which an old snapshot can put
// off for hours; so once a claim has found everything that was due, the next
// begins behind a mark.
func (s *claims) takeShared(t *db.Tx, o delivery.ClaimOrder) ([]delivery.Claimed, error) {
	s.turns.mu.Lock()
	defer s.turns.mu.Unlock()
	u := &s.turns.lanes[o.Lane]
	if o.Now.Sub(u.wholeAt) >= wholeLook {
		u.mark, u.wholeAt = 0, o.Now // and no mark again until everything is found
	}
	if err := s.lookForTenants(t, u, o); err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(u.from(u.tenants), func(id ids.ID) bool { return slices.Contains(o.Full, id) })
	list = list[:min(len(list), mostAtOnce)]
	if len(list) == 0 {
		if len(u.tenants) == 0 {
			u.moveMark()
		}
		return nil, nil
	}
	rows, err := t.Query(selectDueShared, db.Int64s(list), o.Lane, db.Millis(o.Now), o.Limit, o.PerTenant, u.mark)
	if err != nil {
		return nil, err
	}
	found, err := db.Collect(rows, scanClaimed)
	if err != nil {
		return nil, err
	}
	u.advance(list, found, o, len(list) == len(u.tenants))
	return s.leaseTogether(t, found, o)
}

// lookForTenants finds those that have something due. Between two looks that take
// long, those that had something lately are asked.
func (s *claims) lookForTenants(t *db.Tx, u *turn, o delivery.ClaimOrder) (err error) {
	now := s.db.Machine() // no node has to agree with it
	if u.mark != 0 && u.took > lookQuick && now.Sub(u.looked) < lookShare*u.took {
		maps.DeleteFunc(u.lately, func(_ ids.ID, at time.Time) bool { return now.Sub(at) > latelyDue })
		u.tenants = slices.Sorted(maps.Keys(u.lately))
		return nil
	}
	u.tenants, err = tenantsDue(t, o.Lane, o.Now, u.mark)
	u.asOf = o.Now
	u.looked, u.took = now, s.db.Machine().Sub(now)
	if u.lately == nil {
		u.lately = map[ids.ID]time.Time{}
	}
	for _, tenant := range u.tenants {
		u.lately[tenant] = now
	}
	return err
}

// advance notes where the next claim goes on.
func (u *turn) advance(list []ids.ID, found []claimed, o delivery.ClaimOrder, whole bool) {
	counts, full := map[ids.ID]int{}, len(found) >= o.Limit
	for i := range found {
		counts[found[i].Tenant]++
		full = full || counts[found[i].Tenant] >= o.PerTenant
	}
	u.served = list[len(list)-1]
	if len(found) >= o.Limit {
		u.served = found[len(found)-1].Tenant
	}
	if whole && !full {
		u.moveMark()
	}
}

// moveMark says that everything was found that is due. Of tenants that had nothing
// lately that is known as of the last look for tenants, and no later.
func (u *turn) moveMark() { u.mark = db.Millis(u.asOf.Add(-markSlack)) }

// leaseTogether leases rows that are locked, and reads their targets.
func (s *claims) leaseTogether(t *db.Tx, found []claimed, o delivery.ClaimOrder) ([]delivery.Claimed, error) {
	if len(found) == 0 {
		return nil, nil
	}
	var (
		tenants, notifications, targets []int64
		takeovers, flags                []int16
	)
	for i := range found {
		c := &found[i]
		if err := recordLost(t, c); err != nil {
			return nil, err
		}
		tenants, notifications, targets = append(tenants, int64(c.Tenant)), append(notifications, int64(c.Notification)), append(targets, int64(c.Target))
		takeovers, flags = append(takeovers, int16(c.Takeovers)), append(flags, int16(c.leased(o)))
	}
	if err := t.Exec(leaseShared, tenants, notifications, targets, takeovers, flags, db.Millis(o.Lease), o.Claim, db.Millis(o.Now)); err != nil {
		return nil, err
	}
	return s.targets.of(t, found)
}

func renewTogether(t *db.Tx, rows []delivery.Row, until time.Time, kept []bool) error {
	ordered := slices.Clone(rows)
	slices.SortFunc(ordered, func(a, b delivery.Row) int { return compareKeys(keyOfRow(&a), keyOfRow(&b)) })
	tenants, notifications, targets, claims := keysOf(ordered)
	list, err := t.Query(renewShared, tenants, notifications, targets, claims, db.Millis(until))
	if err != nil {
		return err
	}
	ours, err := db.Collect(list, scanRowKey)
	if err != nil {
		return err
	}
	still := make(map[rowKey]bool, len(ours))
	for _, k := range ours {
		still[k] = true
	}
	for i := range rows {
		kept[i] = still[keyOfRow(&rows[i])]
	}
	return nil
}

func scanRowKey(r *sql.Rows) (k rowKey, err error) {
	err = r.Scan(&k.tenant, &k.notification, &k.target)
	return k, err
}
