package store_test

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/storetest"
)

var _ storetest.Store = (*store.Store)(nil)

// TestMain runs everything on SQLite, and on PostgreSQL all but what looks into
// SQLite's own workings.
func TestMain(m *testing.M) {
	// Each step of the model is a commit; -rapid.checks asks for more.
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	os.Exit(pgtest.OnBoth(m, "OneFaultNever", "ATroubledDatabase", "AFullQueue", "CloseWritesWhatWaits", "QueriesUseTheirIndexes", "ADatabaseThatTakesNoWrites", "LeasesOfADeadProcess", "OneEngineAtATime", "SecretsAreNowhereInTheFiles",
		// These are about files, or bring a server of their own.
		"ALineThatACrash", "ARestoredBackup", "TheSubjectOfAUser",
		"AnOlderBackupIsMigrated", "ABackupOfOtherColumns", "SchemaWithoutThePause", "FaultsOfTheFile", "FaultsOfPostgres"))
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		t.Helper()
		o := options(t)
		return behind(t, o, storetest.Opened{Store: open(t, o), Clock: o.clock, IDs: o.IDs, Join: joins(t, o)})
	})
}

// testOptions are the options of a store in a folder of the test.
type testOptions struct {
	store.Options
	clock *storetest.Clock
}

func options(t *testing.T) testOptions {
	t.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	clock := storetest.NewClock()
	return testOptions{clock: clock, Options: store.Options{URL: pgtest.URL(t, migrated), KeyRing: ring, Now: clock.Now, Machine: clock.Now,
		IDs: ids.NewGenerator(1, clock.Now), Migrate: true, Connections: 8}}
}

func migrated(url string) error {
	_, err := db.Migrations(context.Background(), url, true)
	return err
}

func open(t *testing.T, o testOptions) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), o.Options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
