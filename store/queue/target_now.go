package queue

import (
	"context"
	"database/sql"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

const (
	deviceNow   = `SELECT id,user_id,epoch,status,app,vapid_key,expires_at,kind,address,environment,keys,os,registered_at,tenant_id FROM devices`
	endpointNow = `SELECT id,user_id,url,url_sealed,sealed,tenant_id FROM endpoints`
	byID        = ` WHERE id=? AND tenant_id=?`
)

// in reads a target as it is now, in a transaction.
func (s *targets) in(t *db.Tx, tenant, target ids.ID, k channels.Kind) (delivery.TargetNow, error) {
	return s.targetNow(t.QueryRow, tenant, target, k)
}

// Target implements delivery.TargetStore.
func (s *targets) Target(ctx context.Context, tenant, target ids.ID, k channels.Kind) (delivery.TargetNow, error) {
	return s.targetNow(func(query string, args ...any) db.Scanner { return s.db.QueryRow(ctx, query, args...) }, tenant, target, k)
}

func (s *targets) targetNow(row func(query string, args ...any) db.Scanner, tenant, target ids.ID, k channels.Kind) (now delivery.TargetNow, err error) {
	if k == channels.Webhook {
		_, now, err = s.scanEndpointNow(row(endpointNow+byID, target, tenant))
	} else {
		_, now, err = s.scanDeviceNow(row(deviceNow+byID, target, tenant))
		now.Channel = k
	}
	if db.IsNoRows(err) {
		return delivery.TargetNow{ReadAt: s.db.Now(), Channel: k}, nil
	}
	return now, err
}

// owned is the id of a target with whose it is.
type owned struct{ tenant, id ids.ID }

func (s *targets) scanDeviceNow(r db.Scanner) (o owned, now delivery.TargetNow, err error) {
	var (
		registered, expires int64
		keys                []byte
		t                   = &now.Target
	)
	err = r.Scan(&o.id, &now.UserID, &now.Epoch, &now.Device, &now.App, &now.VAPIDKey, &expires,
		&t.Kind, &t.Address, &t.Environment, &keys, &t.OS, &registered, &o.tenant)
	t.RegisteredAt, now.ExpiresAt = db.FromMillis(registered), db.FromMillis(expires)
	t.P256dh, t.Auth = registers.SplitKeys(keys)
	now.CreatedAt, now.ReadAt, now.Exists = o.id.Time(), s.db.Now(), err == nil
	return o, now, err
}

func (s *targets) scanEndpointNow(r db.Scanner) (o owned, now delivery.TargetNow, err error) {
	var (
		url    registers.StoredURL
		sealed []byte
	)
	now.Target.Kind, now.Channel, now.ReadAt = channels.URL, channels.Webhook, s.db.Now()
	err = r.Scan(&o.id, &now.UserID, &url.Clear, &url.Sealed, &sealed, &o.tenant)
	if err == nil {
		now.Target.Address, err = url.Open(s.db, o.tenant, o.id)
	}
	if err == nil {
		now.Target.Secrets, err = registers.SigningKeys(s.db, o.tenant, o.id, sealed, now.ReadAt)
	}
	now.Exists = err == nil
	return o, now, err
}

// of reads the targets of claimed rows as they are now.
func (s *targets) of(t *db.Tx, found []claimed) ([]delivery.Claimed, error) {
	var devices, endpoints []int64
	for i := range found {
		if found[i].Channel == channels.Webhook {
			endpoints = append(endpoints, int64(found[i].Target))
		} else {
			devices = append(devices, int64(found[i].Target))
		}
	}
	known := map[owned]delivery.TargetNow{}
	for _, q := range []struct {
		query string
		ids   []int64
		scan  func(db.Scanner) (owned, delivery.TargetNow, error)
	}{{deviceNow, devices, s.scanDeviceNow}, {endpointNow, endpoints, s.scanEndpointNow}} {
		if len(q.ids) == 0 {
			continue
		}
		rows, err := t.Query(q.query+` WHERE id=ANY($1::bigint[])`, q.ids)
		if err != nil {
			return nil, err
		}
		if _, err := db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
			o, now, err := q.scan(r)
			known[o] = now
			return none, err
		}); err != nil {
			return nil, err
		}
	}
	out := make([]delivery.Claimed, len(found))
	for i := range found {
		c := &found[i].Claimed
		c.Now = known[owned{c.Tenant, c.Target}]
		c.Now.Channel, c.Now.ReadAt = c.Channel, t.Now()
		out[i] = *c
	}
	return out, nil
}
