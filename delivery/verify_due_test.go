package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// TestWhenACredentialIsVerifiedAgain: every one at a time of its own.
func TestWhenACredentialIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		id    ids.ID
		state tenants.VerificationState
		age   time.Duration
		due   bool
	}{
		{0, tenants.Verified, verifyAge, true},
		{0, tenants.Verified, verifyAge - 1, false},
		{3600, tenants.Verified, verifyAge + time.Hour - 1, false},
		{3600, tenants.Verified, verifyAge + time.Hour, true},
		{7200, tenants.NotChecked, verifyAge, true},
		{3600, tenants.Unverified, verifyAgain, true},
		{3600, tenants.Refused, verifyAgain, true},
	} {
		x := tenants.Credential{ID: c.id, UpdatedAt: now.Add(-c.age), Verification: tenants.Verification{State: c.state, At: now.Add(-c.age - time.Hour)}}
		require.Equal(t, c.due, dueForVerification(&x, now), c)
	}
}
