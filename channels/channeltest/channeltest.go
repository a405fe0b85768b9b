// Package channeltest is the contract that every channel passes: what
// channels.Channel and channels.Sender promise, tried against a real server
// over TLS and HTTP/2 (or HTTP/1.1) that answers, resets, hangs and lies.
//
// A channel's test fills in a Harness and calls Run:
//
//	func TestMain(m *testing.M) { channeltest.Main(m) } // no goroutine may be left
//
//	func TestContract(t *testing.T) {
//		channeltest.Run(t, channeltest.Harness{
//			Open:    func(t testing.TB, p *channeltest.Provider) channeltest.Setup { ... aim at p.URL, trust p.Roots ... },
//			Message: channels.Message{Title: "secret title", Data: json.RawMessage(`{"k":"secret value"}`)},
//			OK:      channeltest.Case{Status: 200, Body: `{"name":"projects/p/messages/1"}`},
//			Cases:   []channeltest.Case{{Name: "unregistered", Status: 404, Body: `...`, Want: channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered"}}},
//			Payload: func(t testing.TB, r channeltest.Request) json.RawMessage { return r.Body },
//			Secrets: []string{"secret title", "secret value", token},
//		})
//	}
//
// Every case gets a server and a sender of its own, so cases run in parallel
// and each one can count: exactly one request reaches the provider per Send,
// whatever the answer.
package channeltest

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/carillonhq/carillon/channels"
)

// Harness describes a channel to the suite. Open, Message, OK and Payload are
// required.
type Harness struct {
	// Open makes the channel and a sender with a good credential, both aimed at
	// the provider. Servers of the channel's own (a token endpoint) are its
	// to start; only requests to p count.
	Open func(t testing.TB, p *Provider) Setup
	// HTTP1 runs the provider over HTTP/1.1 instead of HTTP/2.
	HTTP1 bool
	// Message is accepted by Prepare and uses Data.
	Message channels.Message
	// OK is how the provider accepts. Its Want defaults to Outcome Accepted.
	OK Case
	// Cases are answers and the verdicts on them, one row each.
	Cases []Case
	// Probes are the same for Probe.
	Probes []Case
	// Payload takes out of a request what Preview shows, with the parts removed
	// that only the target or the attempt decides.
	Payload func(t testing.TB, r Request) json.RawMessage
	// Secrets are strings that must never appear in a verdict or in a printed
	// credential or target: title, data, key material. The target's address is
	// added by the suite.
	Secrets []string
	// Overrides are refused by Prepare, each with the path that it names, below
	// "overrides.<channel>.". {"no_such_member":1} is added.
	Overrides map[string]string
	// BadTargets are refused by CheckTarget, each with the field that it names.
	BadTargets map[string]channels.Target
	// BadCredentials are refused by ParseCredential. Nil, [] and "x" are added.
	BadCredentials []string
	// Now is the channel's clock; nil: time.Now.
	Now func() time.Time
}

// Setup is an opened channel.
type Setup struct {
	Channel    channels.Channel
	Credential channels.Credential // parsed
	Sender     channels.Sender
	Target     channels.Target // checked by CheckTarget
	// Close, if set, ends what belongs to the channel and not to the sender,
	// such as a transport that its senders share.
	Close func()
}

// Case is a scripted answer and the verdict on it.
type Case struct {
	Name   string
	Status int
	Header http.Header
	Body   string
	Target func(*channels.Target) // changes the target
	Life   func(*channels.Life)   // changes the attempt
	// Want is compared whole, except that Detail may be anything short and
	// free of secrets, that Status zero stands for the answer's, that ProviderID
	// counts only where it is given, and that NotBefore is given by After.
	Want channels.Result
	// After is how far ahead NotBefore lies; 0: NotBefore is zero.
	After time.Duration
	// Again is the verdict when the same answer comes to the next attempt,
	// which has Life.Renewed as the first verdict asked. Nil: not tried.
	Again *channels.Result
}

// Main runs a channel's tests and fails if they leave a goroutine behind.
func Main(m *testing.M) { goleak.VerifyTestMain(m) }

// Run tries the whole contract.
func Run(t *testing.T, h Harness) {
	if h.Now == nil {
		h.Now = time.Now
	}
	if h.OK.Want.Outcome == 0 {
		h.OK.Want.Outcome = channels.Accepted
	}
	t.Run("answers", func(t *testing.T) { t.Parallel(); runAnswers(t, h) })
	t.Run("probes", func(t *testing.T) { t.Parallel(); runProbes(t, h) })
	t.Run("faults", func(t *testing.T) { t.Parallel(); runFaults(t, h) })
	t.Run("hangs", func(t *testing.T) { t.Parallel(); runHangs(t, h) })
	t.Run("payload", func(t *testing.T) { t.Parallel(); runPayload(t, h) })
	t.Run("checks", func(t *testing.T) { t.Parallel(); runChecks(t, h) })
	t.Run("secrets", func(t *testing.T) { t.Parallel(); runSecrets(t, h) })
	t.Run("close", func(t *testing.T) { t.Parallel(); runClose(t, h) })
}
