package channels

import "fmt"

// Purpose is what an address is for, where a channel has several kinds of them in
// one installation of an app: APNs. The numbers are stored; a test pins them.
type Purpose uint8

// The purposes.
const (
	Alert       Purpose = 1 // notifications, and all that has no purpose of its own; also where none is known
	VoIP        Purpose = 2 // PushKit: calls
	PushToStart Purpose = 3 // starts Live Activities
	Activity    Purpose = 4 // updates and ends one Live Activity
	Widget      Purpose = 5 // makes widgets load their content
)

var purposeNames = [...]string{Alert: "alert", VoIP: "voip", PushToStart: "push_to_start", Activity: "activity", Widget: "widget"}

func (p Purpose) String() string {
	if int(p) < len(purposeNames) && purposeNames[p] != "" {
		return purposeNames[p]
	}
	return fmt.Sprintf("purpose(%d)", uint8(p))
}

// ParsePurpose reads a purpose's name.
func ParsePurpose(s string) (Purpose, bool) {
	for p, name := range purposeNames {
		if name == s && s != "" {
			return Purpose(p), true
		}
	}
	return 0, false
}

// Purposeful is a channel whose addresses have purposes.
type Purposeful interface {
	// PurposeOf says which addresses a message is for. It judges nothing: what is
	// wrong with a message is for Prepare to say.
	PurposeOf(Message) Purpose
}
