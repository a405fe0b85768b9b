package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnAppIsDeletedFromTheShell(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.do("PUT", "/v1/apps/shop", nil, nil)
	k.do("PUT", "/v1/devices", map[string]any{"user": "alice", "channel": "fcm", "app": "shop", "token": "in-the-shop"}, nil)
	require.Regexp(t, `(?s)APP +CREATED.*\ndefault +\S+.*\nshop `, k.must("apps", "list"))
	require.Equal(t, "would delete 1 devices and drop 0 waiting deliveries", k.must("apps", "delete", "shop", "--dry-run"))
	require.Regexp(t, `^shop and its credentials are deleted; job_\w+ removes its devices$`, k.must("apps", "delete", "shop"))
	require.NotContains(t, k.must("apps", "list"), "shop")
	eventually(t, func() bool {
		var list struct{ Data []any }
		k.do("GET", "/v1/devices?app=shop", nil, &list)
		return len(list.Data) == 0
	}, "its devices are gone")
}
