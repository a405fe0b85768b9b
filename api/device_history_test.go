package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestTheHistoryOfADeviceIsRead(t *testing.T) {
	t.Parallel()
	w := setup(t)
	res := w.do(t, request{method: "GET", path: "/v1/devices/" + theDevice.Format(ids.Device) + "/history", key: keyWith(tenants.Devices)})
	require.Equal(t, http.StatusOK, res.Code)
	require.JSONEq(t, `{"data":[
 {"at":"2026-03-04T06:06:07Z","event":"retired","reason":"fcm.unregistered","credential":"`+theCredential.Format(ids.Credential)+`","version":2,"actor":"engine"},
 {"at":"2026-03-04T05:06:07Z","event":"registered","user":"u1","actor":"key_1"}],"next_cursor":null}`, res.Body.String())
	require.Equal(t, []string{"history"}, w.did)
}
