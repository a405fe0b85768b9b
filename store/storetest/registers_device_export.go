package storetest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
)

// exportsDevices: all of a tenant, page by page, and nobody else's; who asks is in the audit.
func exportsDevices(k *kit) {
	other := &kit{T: k.T, Opened: k.Opened, ctx: k.ctx, tenant: k.newTenant("other")}
	other.device("alice", "a")
	var want []devices.Device
	for i := range devices.ExportPage + 2 {
		want = append(want, k.device(fmt.Sprint("u", i), fmt.Sprint("a", i)))
	}
	var got []devices.Device
	for after := ids.ID(0); ; after = got[len(got)-1].ID {
		page, err := k.Store.DevicesAfter(k.ctx, k.tenant, after)
		k.ok(err)
		got = append(got, page...)
		if len(page) < devices.ExportPage {
			require.Len(k, page, 2)
			break
		}
	}
	require.Equal(k, want, got)
	k.ok(k.Store.RecordExport(k.ctx, k.tenant, "key_test", "csv app=shop"))
	rows := k.Dump(k.T)["audit"].Rows
	last := rows[len(rows)-1]
	require.Equal(k, []any{"key_test", "devices.export", "csv app=shop"}, []any{last["actor"], last["action"], last["subject"]})
}
