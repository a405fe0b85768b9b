package devices

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// RestoreFilter selects devices that are to be made active again, such as those
// that a wrong credential made suspect or that were retired by mistake. Zero
// members select everything.
type RestoreFilter struct {
	Status     Status // Retired, or Suspect; 0 is Retired
	Reason     string // as the device shows it, such as fcm.unregistered
	Channel    channels.Kind
	App        string
	User       string
	Credential ids.ID // whose verdict it was
	Version    int    // of that credential; 0: any
	Since      time.Time
	Until      time.Time // when they came to the status: Since and later, before Until
}

// restoreJSON is a RestoreFilter in the spec of a job, as people read it.
type restoreJSON struct {
	Status     string    `json:"status"`
	Reason     string    `json:"reason,omitempty"`
	Channel    string    `json:"channel,omitempty"`
	App        string    `json:"app,omitempty"`
	User       string    `json:"user,omitempty"`
	Credential string    `json:"credential,omitempty"`
	Version    int       `json:"version,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Until      time.Time `json:"until,omitzero"`
}

// Of is the status that the filter selects.
func (f RestoreFilter) Of() Status {
	if f.Status == 0 {
		return Retired
	}
	return f.Status
}

// Check finds what is wrong with a filter. Paths in the error begin with filter.
func (f RestoreFilter) Check() error {
	var faults problem.Fields
	if f.Status != 0 && f.Status != Retired && f.Status != Suspect {
		faults.Add("filter.status", "must be retired or suspect: other devices need no restoring")
	}
	rest := f
	rest.Status = 0
	if rest == (RestoreFilter{}) {
		faults.Add("filter", "must have at least one member beside status; to select all, give until")
	}
	if f.Version != 0 && f.Credential == 0 {
		faults.Add("filter.version", "is of a credential: give that too")
	}
	if f.Version < 0 {
		faults.Add("filter.version", "must be 1 or more")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults.Add("filter.until", "must be after since")
	}
	return faults.Err()
}

// MarshalJSON writes names and ids as people know them.
func (f RestoreFilter) MarshalJSON() ([]byte, error) {
	out := restoreJSON{Status: f.Of().String(), Reason: f.Reason, App: f.App, User: f.User, Version: f.Version, Since: f.Since, Until: f.Until}
	if f.Channel != 0 {
		out.Channel = f.Channel.String()
	}
	if f.Credential != 0 {
		out.Credential = f.Credential.Format(ids.Credential)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote. What it does not know is an error: a
// filter that is understood in part selects too much.
func (f *RestoreFilter) UnmarshalJSON(b []byte) error {
	var in restoreJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	out := RestoreFilter{Reason: in.Reason, App: in.App, User: in.User, Version: in.Version, Since: in.Since, Until: in.Until}
	var known bool
	if out.Status, known = ParseStatus(in.Status); !known {
		return fmt.Errorf("unknown status %q", in.Status)
	}
	if out.Channel, known = channels.ParseKind(in.Channel); !known && in.Channel != "" {
		return fmt.Errorf("unknown channel %q", in.Channel)
	}
	if in.Credential != "" {
		id, err := ids.Parse(ids.Credential, in.Credential)
		if err != nil {
			return err
		}
		out.Credential = id
	}
	*f = out
	return nil
}
