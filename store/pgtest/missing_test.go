package pgtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// verdict is what a test is told first.
type verdict struct {
	testing.TB
	said string
}

func (v *verdict) Helper() {}

func (v *verdict) Fatalf(format string, args ...any) { v.say("failed: "+format, args...) }

func (v *verdict) Skipf(format string, args ...any) { v.say("skipped: "+format, args...) }

func (v *verdict) say(format string, args ...any) {
	if v.said == "" {
		v.said = fmt.Sprintf(format, args...)
	}
}

func TestMissing(t *testing.T) {
	reason := errors.New("apt-get install it")
	for required, want := range map[string]string{
		"":                        "skipped: POSTGRES IS MISSING, SO THIS TEST DID NOT RUN: apt-get install it",
		"firefox postgresql":      "skipped: POSTGRES IS MISSING, SO THIS TEST DID NOT RUN: apt-get install it",
		"firefox postgres race":   "failed: postgres is required here: apt-get install it",
		"pg_auto_failover":        "skipped: POSTGRES IS MISSING, SO THIS TEST DID NOT RUN: apt-get install it",
		"pgbouncer postgres node": "failed: postgres is required here: apt-get install it",
	} {
		t.Setenv("CARILLON_REQUIRE", required)
		v := &verdict{TB: t}
		missing(v, "postgres", reason)
		require.Equal(t, want, v.said, required)
	}
}
