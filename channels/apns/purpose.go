package apns

import (
	"encoding/json"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
)

var _ channels.Purposeful = (*Channel)(nil)

// PurposeOf says which device tokens a message is for, by its push type. Push types
// whose tokens have no purpose of their own, such as complication, go to those
// for alerts.
func (*Channel) PurposeOf(m channels.Message) channels.Purpose {
	var o struct {
		PushType apns2.EPushType `json:"push_type"`
		APS      struct {
			Event string `json:"event"`
		} `json:"aps"`
	}
	// What is of another type is Prepare's to refuse; the rest is read all the same.
	_ = json.Unmarshal(m.Override, &o)
	switch o.PushType {
	case apns2.PushTypeVOIP:
		return channels.VoIP
	case apns2.PushTypeLiveActivity:
		if o.APS.Event == "start" {
			return channels.PushToStart
		}
		return channels.Activity
	case pushTypeWidgets:
		return channels.Widget
	}
	return channels.Alert
}
