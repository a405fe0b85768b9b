package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATenantIsToldWhatItUses(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.Limits = Limits{PerSecond: 10, Burst: 20, InFlight: 64} })
	got := jsonIn[List[TenantUsage]](t, w.do(t, get("/v1/usage", keyAdmin)), 200)
	require.Equal(t, []TenantUsage{{Tenant: "acme", Limits: []Limit{
		{Name: "deliveries_due", Used: 250, Limit: 500, Waiting: 3, ClearsAt: epoch.Add(time.Minute)},
		{Name: "requests_in_hand", Used: 1, Limit: 16},
		{Name: "user_requests_in_hand", Limit: 4},
		{Name: "request_bytes_in_hand", Limit: 1 << 28},
		{Name: "requests_per_second", Used: 1, Limit: 10, AtOnce: 20, ClearsAt: epoch.Add(100 * time.Millisecond)},
	}}}, got.Data)
	require.Nil(t, got.NextCursor)
}

func TestAnOperatorSeesTheBusiest(t *testing.T) {
	t.Parallel()
	w := setup(t)
	got := jsonIn[List[TenantUsage]](t, w.do(t, get("/v1/usage", keyOperator)), 200)
	require.Len(t, got.Data, 1, "one of the two was deleted meanwhile")
	require.Equal(t, "acme", got.Data[0].Tenant)
}
