package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

// TestATokenOfTheVersionBeforeIsForAlerts: that version names no purpose.
func TestATokenOfTheVersionBeforeIsForAlerts(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	tenant := o.IDs.Next()
	require.NoError(t, s.CreateTenant(t.Context(), tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	r, err := s.UpsertDevice(t.Context(), devices.Device{Tenant: tenant, ID: o.IDs.Next(), User: "alice", App: "default", Channel: channels.APNs,
		Target: channels.Target{Kind: channels.APNsToken, Address: "aa"}, Purpose: channels.VoIP, InstallationID: "phone"}, devices.Caller{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	const before = `tenant_id,user_id,epoch,app,channel,kind,address,environment,keys,vapid_key,installation_id,os,app_version,locale,
 time_zone,tags,registered_at,last_seen_at,expires_at,status,reason,status_at,credential_id,version,created_at,updated_at`
	old := o.IDs.Next()
	raw(t, o, `INSERT INTO devices (id,address_hash,`+before+`) SELECT ?,keys,`+before+` FROM devices WHERE id=?`, old, r.Device.ID)
	s = open(t, o)
	d, err := s.Device(t.Context(), tenant, old)
	require.NoError(t, err)
	require.Equal(t, channels.Alert, d.Purpose)
	require.Empty(t, d.ActivityID)
}
