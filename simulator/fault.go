package simulator

import (
	"strconv"
	"strings"
	"time"
)

// Channel names what a request was for.
type Channel string

// The channels. OAuth is Google's token endpoint.
const (
	FCM     Channel = "fcm"
	APNs    Channel = "apns"
	WebPush Channel = "webpush"
	Webhook Channel = "webhook"
	OAuth   Channel = "oauth"
)

// Channels lists them in a fixed order.
func Channels() []Channel { return []Channel{FCM, OAuth, APNs, WebPush, Webhook} }

// Fault says how a request that would have been accepted is answered instead.
// The zero Fault changes nothing.
type Fault struct {
	// Status to answer, 200 to 599. 0: as usual.
	Status int
	// Reason is the provider's name for the failure: an FCM error code, or one
	// of INVALID_TOKEN (400 that blames the token), PAYLOAD_TOO_LARGE,
	// UNAUTHENTICATED, PERMISSION_DENIED, RATE_LIMIT_EXCEEDED, PROJECT_QUOTA and
	// SOME_QUOTA, or an APNs reason, which FCM passes on as ApnsError; an APNs reason;
	// VAPID_MISMATCH for web push. Empty: the usual one of the status.
	Reason string
	// RetryAfter becomes the header, in whole seconds. 0: no header.
	RetryAfter time.Duration
	// Latency passes before the answer.
	Latency time.Duration
	// Reset closes the connection (TCP RST) after the request was read.
	Reset bool
	// CutBody sends the status and breaks off within the body.
	CutBody bool
	// Times is how many requests meet the fault. 0: all of them.
	Times int
	// Timestamp is what an APNs 410 says. Zero: the time of the answer.
	Timestamp time.Time
}

// code is a status and the provider's name for it.
type code struct {
	status int
	reason string
}

// word is a readable name of an answer; the codes are those of the channels.
type word struct {
	name                        string
	fcm, apns, webpush, webhook code
}

func faultWords() []word {
	return []word{
		{"unregistered", code{404, "UNREGISTERED"}, code{410, "Unregistered"}, code{410, ""}, code{410, ""}},
		{"gone", code{404, "UNREGISTERED"}, code{410, "Unregistered"}, code{410, ""}, code{410, ""}},
		{"invalid", code{400, invalidToken}, code{400, "BadDeviceToken"}, code{404, ""}, code{404, ""}},
		{"sender", code{403, "SENDER_ID_MISMATCH"}, code{400, "DeviceTokenNotForTopic"}, code{403, vapidMismatch}, code{403, ""}},
		{"auth", code{401, "UNAUTHENTICATED"}, code{403, "InvalidProviderToken"}, code{401, ""}, code{401, ""}},
		{"forbidden", code{403, "PERMISSION_DENIED"}, code{403, "Forbidden"}, code{403, ""}, code{403, ""}},
		{"thirdparty", code{401, "THIRD_PARTY_AUTH_ERROR"}, code{403, "BadCertificate"}, code{403, ""}, code{403, ""}},
		{"quota", code{429, "QUOTA_EXCEEDED"}, code{429, "TooManyRequests"}, code{429, ""}, code{429, ""}},
		{"projectquota", code{429, "RATE_LIMIT_EXCEEDED"}, code{429, "TooManyRequests"}, code{429, ""}, code{429, ""}},
		{"apnstoken", code{400, "BadDeviceToken"}, code{400, "BadDeviceToken"}, code{404, ""}, code{404, ""}},
		{"toolarge", code{400, payloadTooLarge}, code{413, "PayloadTooLarge"}, code{413, ""}, code{413, ""}},
	}
}

func (w word) on(ch Channel) code {
	switch ch {
	case APNs:
		return w.apns
	case WebPush:
		return w.webpush
	case Webhook:
		return w.webhook
	}
	return w.fcm
}

// faultPrefix begins every address that asks for a fault by words.
const faultPrefix = "sim-"

// Token builds the address that asks for f: an FCM token, an APNs device token,
// the name of a webhook receiver, or, for web push, what is appended to an
// endpoint after a slash. seq tells addresses with the same fault apart. A
// Reason that the channel does not know gives way to the status.
func Token(ch Channel, f Fault, seq int) string {
	if ch == APNs {
		return hexToken(f, false, uint64(seq))
	}
	return faultPrefix + f.words(ch) + "-n" + strconv.Itoa(seq)
}

// words is the text form of f, without the prefix.
func (f Fault) words(ch Channel) string {
	var parts []string
	times := ""
	if f.Times > 0 {
		times = "x" + strconv.Itoa(f.Times)
	}
	switch {
	case f.Status != 0:
		parts = append(parts, f.answerWord(ch)+times)
	case f.Times > 0:
		parts = append(parts, times)
	}
	if f.RetryAfter > 0 {
		parts = append(parts, f.RetryAfter.String())
	}
	if f.Latency > 0 {
		parts = append(parts, "slow", f.Latency.String())
	}
	if f.Reset {
		parts = append(parts, "reset")
	}
	if f.CutBody {
		parts = append(parts, "cut")
	}
	if len(parts) == 0 {
		return "ok"
	}
	return strings.Join(parts, "-")
}

func (f Fault) answerWord(ch Channel) string {
	for _, w := range faultWords() {
		if c := w.on(ch); c.status == f.Status && c.reason == f.Reason && c.reason != "" {
			return w.name
		}
	}
	return strconv.Itoa(f.Status)
}

// ParseFault reads the text form, with or without the prefix "sim-": "503x2",
// "429-30s", "unregistered". It is false where not even the first part is
// understood; the rest of a text may be anything.
func ParseFault(ch Channel, text string) (Fault, bool) {
	var p faultParser
	p.channel = ch
	p.rest = strings.Split(strings.TrimPrefix(text, faultPrefix), "-")
	understood := false
	for len(p.rest) > 0 && p.next() {
		understood = true
	}
	return p.fault, understood
}

// faultParser takes the parts of a text one after another.
type faultParser struct {
	channel Channel
	rest    []string
	fault   Fault
}

// next reads one part. It is false where the free text begins.
func (p *faultParser) next() bool {
	name, times := cutTimes(p.rest[0])
	if times > 0 && p.fault.Times > 0 {
		return false
	}
	f, used := p.fault, 1
	wait, err := time.ParseDuration(name)
	switch {
	case name == "" && times > 0, name == "ok":
	case name == "reset" && !f.Reset:
		f.Reset = true
	case name == "cut" && !f.CutBody:
		f.CutBody = true
	case name == "slow" && f.Latency == 0 && len(p.rest) > 1:
		if wait, err = time.ParseDuration(p.rest[1]); err != nil || wait <= 0 {
			return false
		}
		f.Latency, used = wait, 2
	case err == nil && wait > 0 && f.RetryAfter == 0:
		f.RetryAfter = wait
	case f.Status == 0 && p.answer(name, &f):
	default:
		return false
	}
	if times > 0 {
		f.Times = times
	}
	p.fault, p.rest = f, p.rest[used:]
	return true
}

func (p *faultParser) answer(name string, f *Fault) bool {
	if n, err := strconv.Atoi(name); err == nil && len(name) == 3 && n >= 200 && n <= 599 {
		f.Status = n
		return true
	}
	for _, w := range faultWords() {
		if w.name == name {
			c := w.on(p.channel)
			f.Status, f.Reason = c.status, c.reason
			return true
		}
	}
	return false
}

// cutTimes splits "503x2" into "503" and 2. Without a count it is 0.
func cutTimes(part string) (name string, times int) {
	i := strings.LastIndexByte(part, 'x')
	if i < 0 {
		return part, 0
	}
	n, err := strconv.Atoi(part[i+1:])
	if err != nil || n < 1 {
		return part, 0
	}
	return part[:i], n
}
