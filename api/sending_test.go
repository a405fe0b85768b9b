package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

func TestSendingIsPausedAndResumed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	put := func(body string) request {
		return request{method: "PUT", path: "/v1/sending", key: keyOperator, body: body}
	}
	get := func() Sending {
		return jsonIn[Sending](t, w.do(t, request{method: "GET", path: "/v1/sending", key: keyOperator}), 200)
	}
	require.Equal(t, Sending{}, get())
	got := jsonIn[Sending](t, w.do(t, put(`{"paused":true,"reason":"why"}`)), 200)
	require.True(t, got.Paused)
	require.Equal(t, "why", got.Reason)
	require.NotEmpty(t, got.PausedBy)
	require.Equal(t, epoch, got.Since)
	require.Equal(t, got, get())
	require.JSONEq(t, `{"status":"ready","sending":"paused"}`, w.do(t, request{method: "GET", path: "/readyz"}).Body.String())

	require.Equal(t, Sending{}, jsonIn[Sending](t, w.do(t, put(`{"paused":false}`)), 200))
	require.JSONEq(t, `{"status":"ready"}`, w.do(t, request{method: "GET", path: "/readyz"}).Body.String())
	require.Equal(t, []string{"pause sending", "resume sending"}, w.did)

	w.engine.pause = delivery.Pause{Since: epoch, Restored: epoch.Add(time.Second)}
	require.Equal(t, epoch.Add(time.Second), get().RestoredAt)
	require.Equal(t, problem.Conflict, problemIn(t, w.do(t, put(`{"paused":false}`))).Code)
	require.Equal(t, problem.Invalid, problemIn(t, w.do(t, put(`{"reason":"without saying what"}`))).Code)
}
