package simulator

import (
	"net/http"
	"time"

	"github.com/carillonhq/carillon/problem"
)

// FaultJSON is a Fault over HTTP. Fault is its text form; the other members say
// the same one by one.
type FaultJSON struct {
	Target     string     `json:"target,omitempty"`
	Channel    Channel    `json:"channel,omitempty"` // whose words Fault uses; known from most targets, else fcm
	Fault      string     `json:"fault,omitempty"`   // such as "503x2-30s"
	Status     int        `json:"status,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	RetryAfter string     `json:"retry_after,omitempty"` // such as "30s"
	Latency    string     `json:"latency,omitempty"`     // such as "250ms"
	Reset      bool       `json:"reset,omitempty"`
	CutBody    bool       `json:"cut_body,omitempty"`
	Times      int        `json:"times,omitempty"`
	Timestamp  *time.Time `json:"timestamp,omitempty"`
}

func (s *Simulator) serveFaults(w http.ResponseWriter, _ *http.Request) {
	out := map[string]FaultJSON{}
	for target, f := range s.core.faults.all() {
		out[target] = faultJSON(f)
	}
	reply(w, out)
}

func (s *Simulator) setFaults(w http.ResponseWriter, r *http.Request) {
	var in FaultJSON
	if !decode(w, r, &in) {
		return
	}
	f, err := in.fault()
	if err == nil && in.Target == "" {
		err = problem.AtField("target", "is missing: name an address, or a channel such as fcm")
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.SetFault(in.Target, f)
	w.WriteHeader(http.StatusNoContent)
}

func (in FaultJSON) fault() (Fault, error) {
	if in.Fault != "" {
		ch := in.Channel
		if ch == "" {
			ch = channelOf(in.Target)
		}
		f, ok := ParseFault(ch, in.Fault)
		if !ok {
			return f, problem.AtField("fault", "is not a fault such as 503x2, 429-30s, slow-250ms, reset or unregistered")
		}
		return f, nil
	}
	f := Fault{Status: in.Status, Reason: in.Reason, Reset: in.Reset, CutBody: in.CutBody, Times: in.Times}
	if in.Timestamp != nil {
		f.Timestamp = *in.Timestamp
	}
	var faults problem.Fields
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		faults.Add("status", "is not within 200 and 599")
	}
	if f.Times < 0 {
		faults.Add("times", "is negative")
	}
	f.RetryAfter = duration(&faults, "retry_after", in.RetryAfter)
	f.Latency = duration(&faults, "latency", in.Latency)
	return f, faults.Err()
}

func duration(faults *problem.Fields, path, text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		faults.Add(path, "is not a duration such as 30s or 250ms")
	}
	return d
}

func faultJSON(f Fault) FaultJSON {
	out := FaultJSON{Status: f.Status, Reason: f.Reason, Reset: f.Reset, CutBody: f.CutBody, Times: f.Times}
	if f.RetryAfter > 0 {
		out.RetryAfter = f.RetryAfter.String()
	}
	if f.Latency > 0 {
		out.Latency = f.Latency.String()
	}
	if !f.Timestamp.IsZero() {
		out.Timestamp = &f.Timestamp
	}
	return out
}
