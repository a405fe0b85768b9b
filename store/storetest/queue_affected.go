package storetest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

func affectedTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Affected/ByATenant":     affectedByTenant,
		"Affected/ByAnEndpoint":  affectedByEndpoint,
		"Affected/ByAUser":       affectedByUser,
		"Affected/ByACredential": affectedByCredential,
		"Affected/IsBounded":     affectedIsBounded,
	}
}

func (k *kit) affected(by delivery.AffectedBy, want delivery.Affected, why ...any) {
	k.Helper()
	got, err := k.Store.Affected(k.ctx, k.tenant, by)
	k.ok(err)
	require.Equal(k, want, got, why...)
}

// queue stores one delivery for each of some targets.
func (k *kit) queue(to ...devices.Device) delivery.Accepted {
	k.Helper()
	return k.send(requestTo("somebody"), to...)
}

func affectedByTenant(k *kit) {
	a, gone := k.device("alice", "a"), k.device("bob", "b")
	k.Clock.Advance(time.Second)
	k.verdict(gone, delivery.DeviceRetired)
	k.endpoint()
	k.queue(a)
	mine := k.tenant
	k.tenant = k.newTenant("other")
	k.affected(delivery.AffectedBy{}, delivery.Affected{})
	k.tenant = mine
	k.affected(delivery.AffectedBy{}, delivery.Affected{Devices: 1, Endpoints: 1, Waiting: 1})
}

func affectedByEndpoint(k *kit) {
	e, other := k.endpoint(), k.endpoint()
	k.accept(k.notification(e.ID))
	k.accept(k.notification(e.ID))
	k.accept(k.notification(other.ID))
	k.affected(delivery.AffectedBy{Endpoint: e.ID}, delivery.Affected{Endpoints: 1, Waiting: 2})
	k.tenant = k.newTenant("other")
	_, err := k.Store.Affected(k.ctx, k.tenant, delivery.AffectedBy{Endpoint: e.ID})
	k.code(problem.NotFound, err)
}

func affectedByUser(k *kit) {
	a, b := k.device("alice", "a"), k.device("bob", "b")
	k.device("alice", "a2")
	k.endpoint(func(e *webhooks.Endpoint) { e.User = "alice" })
	k.queue(a)
	k.queue(a, b)
	k.affected(delivery.AffectedBy{User: "alice"}, delivery.Affected{Devices: 2, Endpoints: 1, Waiting: 2})
	k.affected(delivery.AffectedBy{User: "nobody"}, delivery.Affected{})
}

// affectedByCredential: what another credential serves as well is not affected.
func affectedByCredential(k *kit) {
	fcm := k.credential(channels.FCM, "")
	a := k.device("alice", "a")
	k.device("alice", "elsewhere", func(d *devices.Device) { d.App = "other" })
	k.queue(a)
	k.affected(delivery.AffectedBy{Credential: fcm.ID}, delivery.Affected{Devices: 1, Waiting: 1})

	for i, env := range []channels.Environment{channels.Production, channels.Sandbox, channels.Sandbox, channels.Auto} {
		d := k.device("carol", fmt.Sprint("apns", i), func(d *devices.Device) {
			d.Channel, d.Target.Kind, d.Target.Environment = channels.APNs, channels.APNsToken, env
		})
		k.queue(d)
	}
	production := k.credential(channels.APNs, "production")
	k.affected(delivery.AffectedBy{Credential: production.ID}, delivery.Affected{Devices: 4, Waiting: 4}, "the only one")
	sandbox := k.credential(channels.APNs, "sandbox")
	k.affected(delivery.AffectedBy{Credential: production.ID}, delivery.Affected{Devices: 1, Waiting: 1})
	k.affected(delivery.AffectedBy{Credential: sandbox.ID}, delivery.Affected{Devices: 2, Waiting: 2})
	both := k.credential(channels.APNs, "")
	for _, c := range []delivery.AffectedBy{{Credential: production.ID}, {Credential: sandbox.ID}, {Credential: both.ID}} {
		k.affected(c, delivery.Affected{})
	}

	first := k.credential(channels.WebPush, "first")
	for _, key := range []string{"first", "first", ""} {
		k.device("dave", fmt.Sprint("https://push.example/", k.IDs.Next()), func(d *devices.Device) {
			d.Channel, d.Target.Kind, d.VAPIDKey = channels.WebPush, channels.Subscription, key
			d.Target.P256dh, d.Target.Auth = make([]byte, 65), make([]byte, 16)
		})
	}
	k.affected(delivery.AffectedBy{Credential: first.ID}, delivery.Affected{Devices: 3}, "whose key is unknown, too")
	second := k.credential(channels.WebPush, "second")
	k.affected(delivery.AffectedBy{Credential: first.ID}, delivery.Affected{Devices: 2})
	k.affected(delivery.AffectedBy{Credential: second.ID}, delivery.Affected{})

	k.tenant = k.newTenant("other")
	_, err := k.Store.Affected(k.ctx, k.tenant, delivery.AffectedBy{Credential: first.ID})
	k.code(problem.NotFound, err)
}

// affectedIsBounded: looking costs no more where there is more.
func affectedIsBounded(k *kit) {
	e := k.endpoint()
	k.Exec(k.T, `INSERT INTO endpoints (id,tenant_id,user_id,url,description,event_types,status,reason,sealed,created_at,updated_at)
 WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i<?)
 SELECT e.id-s.i,e.tenant_id,e.user_id,e.url,e.description,e.event_types,e.status,e.reason,e.sealed,e.created_at,e.updated_at FROM endpoints e, s WHERE e.id=?`,
		delivery.AffectedMost-1, int64(e.ID))
	k.affected(delivery.AffectedBy{}, delivery.Affected{Endpoints: delivery.AffectedMost})
	k.endpoint()
	k.affected(delivery.AffectedBy{}, delivery.Affected{Endpoints: delivery.AffectedMost, LowerBound: true})
}
