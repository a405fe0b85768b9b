package webhooks

import (
	"errors"
	"fmt"
	"strings"

	"github.com/carillonhq/carillon/problem"
)

const (
	// MaxType is the longest event type in bytes.
	MaxType = 128
	// MaxSubscription is how many patterns an endpoint may list.
	MaxSubscription = 100

	reserved = "carillon"
)

// Reserved tells whether a type belongs to Carillon's own callbacks, such as
// carillon.delivery.dead.
func Reserved(eventType string) bool {
	return eventType == reserved || strings.HasPrefix(eventType, reserved+".")
}

// CheckType refuses an event type that a caller may not send: see CheckName for
// the form; Reserved types are refused too. The error is a sentence without the
// field's path.
func CheckType(t string) error {
	if err := CheckName(t); err != nil {
		return err
	}
	if Reserved(t) {
		return fmt.Errorf("types below %q are reserved for Carillon's callbacks", reserved+".")
	}
	return nil
}

// CheckName refuses what does not have the form of an event type, reserved or
// not: at most MaxType bytes, parts of a-z, 0-9 and _ with dots between.
func CheckName(t string) error {
	if len(t) > MaxType {
		return fmt.Errorf("has %d bytes; at most %d are allowed", len(t), MaxType)
	}
	for part := range strings.SplitSeq(t, ".") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return errors.New("consists of a-z, 0-9 and _ in parts with a dot between, such as order.shipped")
		}
	}
	return nil
}

// CheckSubscription refuses a list of patterns for Endpoint.EventTypes. A
// pattern is an event type, a type followed by ".*" for everything below it, or
// "*" for everything but Reserved types. It returns a *problem.Error that names
// every pattern at fault as event_types[i].
func CheckSubscription(types []string) error {
	var faults problem.Fields
	if len(types) > MaxSubscription {
		faults.Add("event_types", "lists %d types; at most %d are allowed, and order.* stands for all below order", len(types), MaxSubscription)
		return faults.Err()
	}
	seen := make(map[string]bool, len(types))
	for i, pattern := range types {
		at := fmt.Sprintf("event_types[%d]", i)
		if pattern != "*" {
			if err := CheckName(strings.TrimSuffix(pattern, ".*")); err != nil {
				faults.Add(at, "%s; order.* and * are allowed too", err)
				continue
			}
		}
		if seen[pattern] {
			faults.Add(at, "is listed twice")
		}
		seen[pattern] = true
	}
	return faults.Err()
}

// matches says whether a checked pattern covers a type.
func matches(pattern, eventType string) bool {
	if pattern == "*" {
		return eventType != "" && !Reserved(eventType)
	}
	if above, ok := strings.CutSuffix(pattern, "*"); ok {
		return len(eventType) > len(above) && strings.HasPrefix(eventType, above)
	}
	return pattern == eventType && eventType != ""
}
