package devices_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func (s *memory) RecordExport(_ context.Context, _ ids.ID, actor, what string) error {
	s.exports = append(s.exports, actor+": "+what)
	return nil
}

func (s *memory) DevicesAfter(_ context.Context, _, after ids.ID) (out []devices.Device, _ error) {
	for _, d := range s.upserted {
		if d.ID > after && len(out) < devices.ExportPage {
			out = append(out, d)
		}
	}
	return out, nil
}

func TestAnExportIsWrittenDown(t *testing.T) {
	t.Parallel()
	r, s := registry()
	require.NoError(t, r.BeginExport(t.Context(), 1, devices.Filter{}, "csv", "key_1"))
	require.NoError(t, r.BeginExport(t.Context(), 1, devices.Filter{App: "shop", Channel: channels.APNs, Status: devices.Retired, After: 7}, "ndjson", "key_1"))
	err := r.BeginExport(t.Context(), 1, devices.Filter{App: "Shop\n"}, "csv", "key_1")
	require.Equal(t, problem.Invalid, problem.CodeOf(err))
	require.Equal(t, []string{"key_1: csv", "key_1: ndjson app=shop channel=apns status=retired after=" + ids.ID(7).Format(ids.Device)}, s.exports)
}

// TestAnExportHasWhatCanBeSentTo, unless what cannot is asked for.
func TestAnExportHasWhatCanBeSentTo(t *testing.T) {
	t.Parallel()
	r, s := registry()
	s.upserted = []devices.Device{
		{ID: 1, App: "a", Channel: channels.FCM, Status: devices.Active},
		{ID: 2, App: "b", Channel: channels.APNs, Status: devices.Suspect},
		{ID: 3, App: "a", Channel: channels.FCM, Status: devices.Retired, ExpiresAt: now},
		{ID: 4, App: "a", Channel: channels.WebPush, Status: devices.Active, ExpiresAt: now},
		{ID: 5, App: "a", Channel: channels.WebPush, Status: devices.Active, ExpiresAt: now.Add(time.Second)},
	}
	for _, c := range []struct {
		f    devices.Filter
		want []ids.ID
	}{
		{devices.Filter{}, []ids.ID{1, 2, 5}},
		{devices.Filter{After: 1}, []ids.ID{2, 5}},
		{devices.Filter{App: "a"}, []ids.ID{1, 5}},
		{devices.Filter{Channel: channels.APNs}, []ids.ID{2}},
		{devices.Filter{Status: devices.Active}, []ids.ID{1, 5}},
		{devices.Filter{Status: devices.Suspect}, []ids.ID{2}},
		{devices.Filter{Status: devices.Retired}, []ids.ID{3}},
		{devices.Filter{After: 5}, nil},
	} {
		list, next, err := r.ExportPage(t.Context(), 1, c.f)
		require.NoError(t, err)
		require.Zero(t, next)
		var got []ids.ID
		for _, d := range list {
			got = append(got, d.ID)
		}
		require.Equal(t, c.want, got, "%+v", c.f)
	}
}

// TestAnExportGoesOnBehindWhatItPassedOver: a page may have none that is selected, and is
// not the last for that.
func TestAnExportGoesOnBehindWhatItPassedOver(t *testing.T) {
	t.Parallel()
	r, s := registry()
	for i := range devices.ExportPage + 1 {
		s.upserted = append(s.upserted, devices.Device{ID: ids.ID(i + 1), Status: devices.Retired})
	}
	s.upserted[devices.ExportPage].Status = devices.Active
	list, next, err := r.ExportPage(t.Context(), 1, devices.Filter{})
	require.NoError(t, err)
	require.Empty(t, list)
	require.EqualValues(t, devices.ExportPage, next)
	list, next, err = r.ExportPage(t.Context(), 1, devices.Filter{After: next})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Zero(t, next)
}
