package registers

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// checkPairs refuses one more VAPID pair of an app that was not asked for in so many
// words: every browser from then on subscribes with it.
func checkPairs(t *db.Tx, c tenants.Credential, qualifier string, o tenants.PutOptions) error {
	if c.Channel != channels.WebPush || o.Rotate {
		return nil
	}
	others, err := t.Count(`SELECT count(*) FROM credentials c WHERE c.tenant_id=? AND c.app=? AND c.channel=? AND c.qualifier<>?
 AND NOT EXISTS (SELECT 1 FROM credentials s WHERE s.tenant_id=c.tenant_id AND s.app=c.app AND s.channel=c.channel AND s.qualifier=?)`,
		c.Tenant, c.App, c.Channel, qualifier, qualifier)
	if err != nil || others == 0 {
		return err
	}
	return tenants.AnotherPair()
}

// tryPairs lets subscriptions that fit none of the pairs of an app try those that it
// has now.
func (s *credentialRegister) tryPairs(t *db.Tx, c tenants.Credential) error {
	if c.Channel != channels.WebPush {
		return nil
	}
	rows, err := t.Query("SELECT id FROM credentials WHERE tenant_id=? AND app=? AND channel=?", c.Tenant, c.App, c.Channel)
	if err != nil {
		return err
	}
	pairs, err := db.Collect(rows, db.ScanID)
	if err != nil {
		return err
	}
	for _, id := range pairs {
		if err := s.holds.End(t, delivery.Hold{Tenant: c.Tenant, Scope: delivery.HoldRefusal, Subject: id}, delivery.Resume); err != nil {
			return err
		}
	}
	return nil
}

// HasPair implements devices.Store.
func (s *deviceRegister) HasPair(ctx context.Context, tenant ids.ID, app, key string) (bool, error) {
	n := 0
	err := s.db.Reads().QueryRowContext(ctx, "SELECT count(*) FROM credentials WHERE tenant_id=? AND app=? AND channel=? AND qualifier=?",
		tenant, app, channels.WebPush, key).Scan(&n)
	return n > 0, err
}

// boundToPair looks at subscriptions of an app in the order of the hashes of their
// addresses, which has nothing to do with their pairs: the first are a fair sample of
// all. 3 is channels.WebPush.
const boundToPair = `SELECT count(*),coalesce(sum(CASE WHEN v.status<3 THEN 1 ELSE 0 END),0),coalesce(sum(CASE WHEN v.status<3 AND v.vapid_key=? THEN 1 ELSE 0 END),0),
 coalesce(sum(CASE WHEN v.status<3 AND v.vapid_key='' THEN 1 ELSE 0 END),0) FROM
 (SELECT status,vapid_key FROM devices INDEXED BY devices_address WHERE tenant_id=? AND channel=3 AND app=? ORDER BY address_hash LIMIT ?) v`

// CountBound implements tenants.CredentialStore.
func (s *credentialRegister) CountBound(ctx context.Context, tenant ids.ID, app, key string) (tenants.Bound, error) {
	return s.countBound(ctx, tenant, app, key, tenants.MostBound)
}

func (s *credentialRegister) countBound(ctx context.Context, tenant ids.ID, app, key string, most int) (b tenants.Bound, err error) {
	looked := 0
	if err := s.db.Lists().QueryRowContext(ctx, boundToPair, key, tenant, app, most).Scan(&looked, &b.App, &b.Pair, &b.Unknown); err != nil {
		return b, fmt.Errorf("count subscriptions: %w", err)
	}
	b.LowerBound = looked == most
	return b, nil
}

// wrongPairs looks through devices that verdicts made suspect or retired.
const wrongPairs = `SELECT t.name,count(*) FROM (SELECT tenant_id,channel,status,reason FROM devices INDEXED BY devices_doubt WHERE status>1 LIMIT ?) d
 JOIN tenants t ON t.id=d.tenant_id WHERE d.channel=3 AND d.status=3 AND d.reason='webpush.key_mismatch' GROUP BY t.name ORDER BY t.name LIMIT 100`

// WrongPairs counts, by tenant, the browsers that were retired because another key was
// used for them than theirs, which earlier versions did.
func (s *deviceRegister) WrongPairs(ctx context.Context) (map[string]int, error) {
	const look = 200_000
	rows, err := s.db.Lists().QueryContext(ctx, wrongPairs, look)
	if err != nil {
		return nil, fmt.Errorf("count browsers that were retired by a wrong key: %w", err)
	}
	out := map[string]int{}
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			name string
			n    int
		)
		err = r.Scan(&name, &n)
		out[name] = n
		return none, err
	})
	return out, err
}
