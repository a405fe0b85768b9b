package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/jobs"
)

// TestLapsedLeasesOfJobs: what a process that died had in hand goes on at once; a
// pause that it had made is kept, so that no restart makes a job faster.
func TestLapsedLeasesOfJobs(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := open(t, o)
	ctx := context.Background()
	now := o.clock.Now()
	claim := func() jobs.Job {
		j, _, err := s.ClaimJob(ctx, jobs.ClaimOrder{Kinds: jobs.Kinds(), Now: o.clock.Now(), Lease: now.Add(time.Hour), Claim: int64(o.IDs.Next())})
		require.NoError(t, err)
		return j
	}
	for range 2 {
		_, err := s.CreateJob(ctx, jobs.Job{ID: o.IDs.Next(), Kind: jobs.ReplayDeadLetters, Spec: json.RawMessage(`{}`), CreatedAt: now}, nil, delivery.Answer{}, now)
		require.NoError(t, err)
	}
	leased, paused := claim(), claim()
	_, err := s.ReplayDead(ctx, paused, nil, func(delivery.ReplayCounts) jobs.Progress { return jobs.Progress{NotBefore: now.Add(time.Minute)} })
	require.NoError(t, err)
	require.Zero(t, claim().ID)
	_, err = s.LapseLeases(ctx)
	require.NoError(t, err)
	require.Equal(t, leased.ID, claim().ID)
	require.Zero(t, claim().ID)
	o.clock.Advance(time.Minute)
	require.Equal(t, paused.ID, claim().ID)

	counts, err := s.JobCounts(ctx)
	require.NoError(t, err)
	require.Equal(t, "[{dead_letter_replay running 2}]", fmt.Sprint(counts))
}
