package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func deviceBatch(body string) request {
	return request{method: "POST", path: "/v1/devices/batch", key: keyAdmin, body: body}
}

// TestADeviceBatch: each has its own result, in order, and one that is at fault keeps no
// other back.
func TestADeviceBatch(t *testing.T) {
	t.Parallel()
	w := setup(t)
	rec := w.do(t, deviceBatch(`{"devices":[
		{"user":"u1","channel":"fcm","token":"new"}, {"user":"u2","channel":"fcm","token":"rebound"},
		{"user":"u3","channel":"fcm","token":"a","tokn":"b"}, {"user":"u4"}, 7, {"user":"u5","fid":"refused"},
		{"user":"u6","channel":"fcm","token":"full"}, {"user":"u7","channel":"fcm","token":"replaced"}, {"user":"u8","channel":"fcm","token":"old"},
		{"user":"u9","channel":"fcm","token":"broken"}, {"user":"u10","channel":"fcm","token":"broken"},
		{"user":"u11","subscription":{"endpoint":"https://push.example.com/x","keys":{"p256dh":"p","auth":"a"},"vapid_key":"v"}}]}`))
	got := jsonIn[DeviceBatchResult](t, rec, 200).Results
	require.Len(t, got, 12)
	for i, want := range []string{"created", "rebound", "tokn", "token", "", "fid", "", "replaced", "updated", "", "", "updated"} {
		if got[i].Error == nil {
			require.Equal(t, want, got[i].Status, i)
			require.Equal(t, theDevice.Format(ids.Device), got[i].ID)
			continue
		}
		require.Empty(t, got[i].ID+got[i].Status)
		path := ""
		if len(got[i].Error.Errors) > 0 {
			path = got[i].Error.Errors[0].Path
		}
		require.Equal(t, want, path, i)
	}
	require.Contains(t, got[4].Error.Detail, "object")
	require.Equal(t, problem.Throttled, got[6].Error.Code)
	require.Equal(t, problem.Internal, got[9].Error.Code)
	require.NotEmpty(t, got[9].Error.RequestID, "leads to the log")
	require.NotContains(t, rec.Body.String(), "disk-on-fire")
	require.Equal(t, []string{"register all"}, w.did)
	require.Equal(t, channels.WebPush, w.devices.list[8].Channel)
	require.Equal(t, "v", w.devices.list[8].VAPIDKey)
	require.False(t, w.devices.by.Own)
	require.NotEmpty(t, w.devices.by.Actor)
}

func TestADeviceBatchThatIsNone(t *testing.T) {
	t.Parallel()
	w := setup(t)
	many := strings.TrimSuffix(strings.Repeat("{},", devices.MaxBatch+1), ",")
	for _, bad := range []string{`{"devices":[]}`, `{}`, `{"devices":[` + many + `]}`, `{"devices":{}}`} {
		require.Equal(t, "devices", problemIn(t, w.do(t, deviceBatch(bad))).Errors[0].Path)
	}
	p := problemIn(t, w.do(t, deviceBatch(`{"devices":[{},{"user":"a","user":"b"}]}`)))
	require.Equal(t, "devices[1].user", p.Errors[0].Path)
	require.Empty(t, w.did)
	w.devices.err = problem.New(problem.Unavailable, "later")
	require.Equal(t, problem.Unavailable, problemIn(t, w.do(t, deviceBatch(`{"devices":[{"user":"u1","fid":"new"}]}`))).Code)
}
