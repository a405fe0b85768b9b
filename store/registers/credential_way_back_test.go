package registers

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhereARollbackLeads: each row is the versions from the first on, as the version
// that their content was first in; a minus: the provider has refused it; 0: destroyed.
func TestWhereARollbackLeads(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		versions []int
		want     int
	}{
		{nil, 0},
		{[]int{1}, 0},
		{[]int{1, 2}, 1},
		{[]int{1, 2, 1}, 0},          // once back, there is nothing further
		{[]int{1, 2, 3, 2}, 1},       // further back
		{[]int{1, 2, 3, 2, 1}, 0},    // and further
		{[]int{1, 2, 1, 4}, 3},       // a new one after that
		{[]int{1, -2, 3}, 1},         // past what is refused
		{[]int{1, -2, 2, 4}, 1},      // in whichever version it was
		{[]int{1, 0, 3}, 1},          // past what is destroyed
		{[]int{0, 2}, 0},             // nothing is left
		{[]int{-1, 2, -1, 4}, 0},     // not to what was gone back from, though all else is refused
		{[]int{1, 2, 2, 2}, 1},       // the same content again is no step
		{[]int{1, 2, 3, 3, 2, 6}, 5}, // to where it was before the newest
	} {
		list := make([]version, len(x.versions))
		for i, content := range x.versions {
			list[len(list)-1-i] = version{number: i + 1, content: max(content, -content), kept: content != 0, refused: content < 0}
			if content == 0 {
				list[len(list)-1-i].content = i + 1
			}
		}
		require.Equal(t, x.want, backFrom(list), x.versions)
	}
}
