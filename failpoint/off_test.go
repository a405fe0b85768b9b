//go:build !failpoints

package failpoint_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/failpoint"
)

func TestUsualBuildRefusesToBeArmed(t *testing.T) {
	t.Parallel()
	require.NoError(t, failpoint.Arm(""))
	require.ErrorContains(t, failpoint.Arm("send.begin=kill"), "-tags failpoints")
	failpoint.Hit("send.begin")
	require.Equal(t, time.Second, failpoint.Duration("send_timeout", time.Second))
}
