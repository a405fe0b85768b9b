//go:build !failpoints

package failpoint

import (
	"fmt"
	"time"
)

// Arm refuses to be told anything: who asks for failures wants to see them.
func Arm(spec string) error {
	if spec != "" {
		return fmt.Errorf("%s is set, but this program was built without fail points; build it with -tags failpoints, or unset the variable", Variable)
	}
	return nil
}

// Hit marks a point.
func Hit(string) {}

// Duration is usual.
func Duration(_ string, usual time.Duration) time.Duration { return usual }
