package problem_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

func TestTheCodeOfAnError(t *testing.T) {
	t.Parallel()
	e := problem.New(problem.NotFound, "There is no such %s.", "device")
	for err, want := range map[error]problem.Code{
		nil: problem.Internal, errors.New("disk on fire"): problem.Internal, e: problem.NotFound,
		fmt.Errorf("read: %w", e): problem.NotFound, errors.Join(errors.New("x"), e): problem.NotFound,
	} {
		require.Equal(t, want, problem.CodeOf(err))
	}
	require.EqualError(t, e, "There is no such device.")
	require.EqualError(t, problem.AtField("to.users[3]", "is %d bytes long", 300),
		"The request has a field that cannot be accepted. (to.users[3]: is 300 bytes long)")
}

func TestFieldsCollectEveryFault(t *testing.T) {
	t.Parallel()
	var f problem.Fields
	require.NoError(t, f.Err())
	f.Merge("x", nil)
	require.NoError(t, f.Err())

	f.Add("title", "is missing")
	f.Merge("overrides.fcm", problem.AtField("android.ttl", "is too long"))
	f.Merge("to.users", problem.AtField("[3]", "is empty"))
	f.Merge("", problem.AtField("data", "is not an object"))
	f.Merge("body", fmt.Errorf("check: %w", problem.AtField("", "is long")))
	f.Merge("ttl", problem.New(problem.PayloadTooLarge, "Too large."))
	f.Merge("url", errors.New("100% wrong"))
	var e *problem.Error
	require.ErrorAs(t, f.Err(), &e)
	require.Equal(t, problem.Invalid, e.Code)
	require.Equal(t, []problem.Field{
		{Path: "title", Detail: "is missing"}, {Path: "overrides.fcm.android.ttl", Detail: "is too long"}, {Path: "to.users[3]", Detail: "is empty"},
		{Path: "data", Detail: "is not an object"}, {Path: "body", Detail: "is long"}, {Path: "ttl", Detail: "Too large."}, {Path: "url", Detail: "100% wrong"},
	}, e.Fields)
	require.Contains(t, e.Error(), "title: is missing; overrides.fcm.android.ttl: is too long")
}

func TestJoin(t *testing.T) {
	t.Parallel()
	for _, x := range [][3]string{{"a", "b", "a.b"}, {"", "b", "b"}, {"a", "", "a"}, {"a", "[0]", "a[0]"}, {"", "", ""}} {
		require.Equal(t, x[2], problem.Join(x[0], x[1]))
	}
}
