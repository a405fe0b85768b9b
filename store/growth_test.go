package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/registers"
)

// TestDoctorKnowsHowADatabaseGrows: by what it had a day ago, whatever it holds.
func TestDoctorKnowsHowADatabaseGrows(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := options(t)
	s := open(t, o)
	require.True(t, examine(t, o, false).Growth.Oldest.IsZero())
	require.NoError(t, s.NoteSize(ctx, o.clock.Now()))
	sound(t, o, s)
	oldest := o.clock.Now()
	require.NoError(t, s.Do(ctx, 1, func(x *db.Tx) error { return x.Exec("CREATE TABLE grown (b " + db.Pick(s.DB, "BLOB", "BYTEA") + ")") }))
	const much = 3 << 20
	for range 3 {
		require.NoError(t, s.Do(ctx, 1, func(x *db.Tx) error {
			return x.Exec(db.Pick(s.DB, "INSERT INTO grown SELECT zeroblob(1048576)", "INSERT INTO grown SELECT string_agg(md5(i::text||random()::text),'')::bytea FROM generate_series(1,32768) i"))
		}))
	}
	o.clock.Advance(19 * time.Hour)
	require.Zero(t, examine(t, o, false).Growth.PerDay, "a night tells nothing of a day")
	o.clock.Advance(29 * time.Hour)
	g := examine(t, o, false).Growth
	require.InEpsilon(t, much/2, g.PerDay, 0.3)
	require.Equal(t, 48*time.Hour, g.Over.Round(time.Hour))
	require.WithinDuration(t, oldest, g.Oldest, time.Minute)
	require.GreaterOrEqual(t, g.Used, int64(much))
	require.GreaterOrEqual(t, g.Files, g.Used-g.Spare)
	if pgtest.Postgres() {
		require.EqualValues(t, -1, g.Room(), "its disk is not ours")
	} else {
		require.Positive(t, g.Free)
		require.NoError(t, s.Do(ctx, 1, func(x *db.Tx) error { return x.Exec("DROP TABLE grown") }))
		after := examine(t, o, false).Growth
		require.InDelta(t, g.Used-much, after.Used, 100_000, "what it can use again is not used")
		require.GreaterOrEqual(t, after.Spare, int64(much))
		require.Equal(t, after.Free+after.Spare, after.Room())
	}
	require.NoError(t, s.NoteSize(ctx, o.clock.Now()))
	facts, err := registers.Facts(ctx, s.Reads())
	require.NoError(t, err)
	require.Equal(t, o.clock.Now().UnixMilli(), facts[registers.FactSizes].At.UnixMilli())
	require.False(t, registers.PauseOf(facts).On())
	require.Equal(t, delivery.Pause{}, registers.PauseOf(facts))
}
