package delivery_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

// TestWhatWaitsForADeletedAppIsDropped: whether it is held or meets no credential any
// more, it ends with a reason and is not sent; other apps are served.
func TestWhatWaitsForADeletedAppIsDropped(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	change := tenants.Change{Actor: "key_test", Action: "test"}
	shop, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "shop", Channel: channels.FCM},
		channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte("s")}, tenants.PutOptions{}, change)
	require.NoError(t, err)
	_, err = k.store.PauseCredential(k.ctx, k.tenant, shop.ID, "", change)
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	inShop := func(d *devices.Device) { d.App = "shop" }
	k.device("alice", "paused", channels.FCM, inShop)
	k.device("bob", "missing", channels.APNs, inShop)
	k.device("carol", "other", channels.FCM, nil)
	paused, missing := k.post(toUser("alice")), k.post(toUser("bob"))
	k.ends(paused, 0, delivery.Held, delivery.CredentialPaused)
	k.ends(missing, 0, delivery.Held, delivery.CredentialMissing)
	_, err = k.store.DeleteApp(k.ctx, k.tenant, "shop", change)
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	k.ends(paused, 0, delivery.Dropped, delivery.Gone)
	k.ends(missing, 0, delivery.Dropped, delivery.Gone)
	k.ends(k.post(toUser("carol")), 0, delivery.Sent, delivery.NoReason)
	require.Len(t, k.channels[channels.FCM].attempts(), 1)
	require.Empty(t, k.channels[channels.APNs].attempts())
	k.sound()
}
