package fcm

import (
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
)

// throttled tells the project's quota, for which everything has to wait, from
// the limit of one device.
func throttled(a answer, f failure) channels.Result {
	r := channels.Result{Outcome: channels.Throttled}
	switch f.quotaOf() {
	case ofProject:
		r.Scope, r.Code, r.Detail = channels.ScopeCredential, "fcm.project_quota", "The project's quota of messages per minute is used up."
	case ofDevice:
		r.Code, r.Detail = "fcm.device_quota", "Too many messages to this device."
	default:
		r.Wider, r.Code, r.Detail = channels.ScopeCredential, "fcm.quota", "Too many messages; FCM does not say whether to this device or of the project."
	}
	if a.wait.IsZero() {
		r.Floor = floorQuota
	}
	return r
}

type quotaOwner uint8

const (
	ofNobody quotaOwner = iota // that the answer names
	ofDevice
	ofProject
)

// quotaOf tells whose quota was used up. google.rpc.QuotaFailure names it in
// the subjects of its violations, google.rpc.ErrorInfo is the answer of the
// front end that counts per project. Google's answers about a device have an
// FcmError.
func (f failure) quotaOf() quotaOwner {
	owner := ofNobody
	for _, d := range f.Error.Details {
		switch {
		case d.is("google.rpc.ErrorInfo") && d.Reason == "RATE_LIMIT_EXCEEDED":
			return ofProject
		case d.is("google.firebase.fcm.v1.FcmError"):
			owner = ofDevice
		case d.is("google.rpc.QuotaFailure"):
			for _, v := range d.Violations {
				if v.ofProject() {
					return ofProject
				}
				owner = ofDevice
			}
		}
	}
	return owner
}

// quotaViolation is one of google.rpc.QuotaFailure.
type quotaViolation struct {
	Subject string `json:"subject"` // "project:<id>", "projects/<id>", "project_number:<n>"; of a device anything else
	QuotaID string `json:"quotaId"` // such as SendsPerMinutePerProject
}

func (v quotaViolation) ofProject() bool {
	subject, _ := strings.CutPrefix(strings.ToLower(v.Subject), "consumer:")
	for _, name := range []string{"project:", "projects/", "project_number:", "project_id:"} {
		if strings.HasPrefix(subject, name) {
			return true
		}
	}
	return strings.Contains(v.QuotaID, "PerProject")
}

// waitUntil is the later of the header Retry-After and google.rpc.RetryInfo.
// Zero: the answer names no time.
func (f failure) waitUntil(header time.Time, now time.Time) time.Time {
	for _, d := range f.Error.Details {
		if !d.is("google.rpc.RetryInfo") || !duration.MatchString(d.RetryDelay) {
			continue
		}
		delay, err := time.ParseDuration(d.RetryDelay)
		if err != nil || delay <= 0 {
			continue
		}
		if at := now.Add(min(delay, channels.MaxRetryAfter)); at.After(header) {
			header = at
		}
	}
	return header
}
