package fcm

import (
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
)

// throttled tells the project's quota, for which everything has to wait, from
// the limit of one device.
func throttled(a answer, f failure) channels.Result {
	r := channels.Result{Outcome: channels.Throttled, Code: "fcm.device_quota", Detail: "Too many messages to this device."}
	if f.ofProject() {
		r.Scope, r.Code, r.Detail = channels.ScopeCredential, "fcm.project_quota", "The project's quota of messages per minute is used up."
	}
	if a.wait.IsZero() {
		r.Floor = floorQuota
	}
	return r
}

// ofProject tells whose quota was used up. google.rpc.QuotaFailure names it in
// the subjects of its violations, google.rpc.ErrorInfo is the answer of the
// front end that counts per project. Google's answers about a device have an
// FcmError; without one and without a subject it is the project as well.
func (f failure) ofProject() bool {
	subjects, ofFCM := 0, false
	for _, d := range f.Error.Details {
		switch {
		case d.is("google.rpc.ErrorInfo") && d.Reason == "RATE_LIMIT_EXCEEDED":
			return true
		case d.is("google.firebase.fcm.v1.FcmError"):
			ofFCM = true
		case d.is("google.rpc.QuotaFailure"):
			for _, v := range d.Violations {
				if v.ofProject() {
					return true
				}
				subjects++
			}
		}
	}
	return f.Error.Status == "RESOURCE_EXHAUSTED" && !ofFCM && subjects == 0
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
