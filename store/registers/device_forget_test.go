package registers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
)

// TestWhatAUsersTokenPushesOutIsNotWrittenDown: an event that would be removed at once.
func TestWhatAUsersTokenPushesOutIsNotWrittenDown(t *testing.T) {
	t.Parallel()
	d := openDB(t)
	_, err := d.Writes().ExecContext(t.Context(), fmt.Sprintf(`CREATE TRIGGER none BEFORE INSERT ON device_events WHEN NEW.event=%d
 BEGIN SELECT RAISE(ABORT, 'written down'); END`, devices.EventDeleted))
	require.NoError(t, err)
	s, tenant := &deviceRegister{db: d}, d.IDs().Next()
	for i := range devices.MaxOwn + 3 {
		_, err := s.UpsertDevice(t.Context(), devices.Device{Tenant: tenant, ID: d.IDs().Next(), User: "alice", App: "default", Channel: channels.FCM,
			InstallationID: fmt.Sprint(i), Target: channels.Target{Kind: channels.FCMToken, Address: fmt.Sprint("token", i)}}, devices.Caller{Own: true, Actor: "usk_1"})
		require.NoError(t, err)
	}
	var left, told int
	require.NoError(t, d.Reads().QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM devices),(SELECT count(*) FROM device_events)").Scan(&left, &told))
	require.Equal(t, devices.MaxOwn, left)
	require.Equal(t, devices.MaxOwn, told, "the registrations of those that are there")
}
