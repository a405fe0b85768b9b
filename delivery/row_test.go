package delivery

import (
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
)

func TestUUIDsOfDeliveries(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string][2]ids.ID{}
	r := rand.New(rand.NewPCG(1, 2))
	note := func(ntf, target ids.ID) {
		u := uuidOf(ntf, target)
		require.Regexp(t, form, u)
		require.Equal(t, u, uuidOf(ntf, target))
		if other, ok := seen[u]; ok {
			require.Equal(t, [2]ids.ID{ntf, target}, other, "two deliveries have the same id")
		}
		seen[u] = [2]ids.ID{ntf, target}
	}
	// Neighbours, as generators make them, and anything of the next years.
	base := ids.Before(at)
	for i := range ids.ID(200) {
		for _, step := range []ids.ID{1, 1 << 12, 1 << 15, 1 << 22} {
			note(base+i*step, base)
			note(base, base+i*step)
		}
	}
	span := int64(ids.Before(at.AddDate(7, 0, 0)))
	for range 100_000 {
		note(ids.ID(r.Int64N(span)), ids.ID(r.Int64N(span)))
	}
}
