package simulator

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The code of a fault in an APNs device token; the package comment draws it.
const (
	hexMark     = "5e"
	sandboxMark = "5adb0c5"
	codeEnd     = 34 // the code's last digit is before this one
	tokenLen    = 64 // hexadecimal digits of the tokens that are made here
)

const (
	flagReset = 1
	flagCut   = 2
)

// hexToken writes f as a device token. What does not fit is capped: 999 times,
// 99,999 s of Retry-After, 999.999 s of latency.
func hexToken(f Fault, sandbox bool, seq uint64) string {
	flags, env := 0, 0
	if f.Reset {
		flags |= flagReset
	}
	if f.CutBody {
		flags |= flagCut
	}
	if sandbox {
		env = 1
	}
	at := int64(0)
	if !f.Timestamp.IsZero() {
		at = min(max(f.Timestamp.Unix(), 0), 9_999_999_999)
	}
	return fmt.Sprintf("%s%03d%03d%02d%05d%06d%d%d0%010d%014d%016x", hexMark,
		f.Status, min(f.Times, 999), reasonNumber(f.Reason),
		min(int64(f.RetryAfter/time.Second), 99_999), min(f.Latency.Milliseconds(), 999_999),
		flags, env, at, 0, seq)
}

// parseHexToken reads the fault of a device token. It is false for a token
// without one; real tokens are random, and 32 decimal digits after the mark are
// as good as impossible by chance.
func parseHexToken(token string) (f Fault, sandbox, ok bool) {
	if strings.HasPrefix(token, sandboxMark) {
		return Fault{}, true, false
	}
	if len(token) < codeEnd || !strings.HasPrefix(token, hexMark) {
		return Fault{}, false, false
	}
	for i := len(hexMark); i < codeEnd; i++ {
		if token[i] < '0' || token[i] > '9' {
			return Fault{}, false, false
		}
	}
	digits := func(from, to int) int64 {
		n, _ := strconv.ParseInt(token[from:to], 10, 64) // decimal, as checked
		return n
	}
	f = Fault{Status: int(digits(2, 5)), Times: int(digits(5, 8)),
		RetryAfter: time.Duration(digits(10, 15)) * time.Second,
		Latency:    time.Duration(digits(15, 21)) * time.Millisecond}
	if reasons := apnsReasons(); digits(8, 10) < int64(len(reasons)) {
		f.Reason = reasons[digits(8, 10)].reason
	}
	flags := digits(21, 22)
	f.Reset, f.CutBody = flags&flagReset != 0, flags&flagCut != 0
	if at := digits(24, 34); at > 0 {
		f.Timestamp = time.Unix(at, 0).UTC()
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return Fault{}, false, false
	}
	return f, digits(22, 23) == 1, true
}

// apnsReasons numbers the reasons of APNs for device tokens: the number is the
// place in the list. Append only.
func apnsReasons() []code {
	return []code{
		{}, // 00: the usual reason of the status
		{400, "BadCollapseId"}, {400, "BadDeviceToken"}, {400, "BadExpirationDate"}, {400, "BadMessageId"},
		{400, "BadPriority"}, {400, "BadTopic"}, {400, "DeviceTokenNotForTopic"}, {400, "DuplicateHeaders"},
		{400, "IdleTimeout"}, {400, "InvalidPushType"}, {400, "MissingDeviceToken"}, {400, "MissingTopic"},
		{400, "PayloadEmpty"}, {400, "TopicDisallowed"},
		{403, "BadCertificate"}, {403, "BadCertificateEnvironment"}, {403, "ExpiredProviderToken"}, {403, "Forbidden"},
		{403, "InvalidProviderToken"}, {403, "MissingProviderToken"}, {403, "UnrelatedKeyIdInToken"},
		{403, "BadEnvironmentKeyIdInToken"},
		{404, "BadPath"}, {405, "MethodNotAllowed"},
		{410, "ExpiredToken"}, {410, "Unregistered"},
		{413, "PayloadTooLarge"}, {429, "TooManyProviderTokenUpdates"}, {429, "TooManyRequests"},
		{500, "InternalServerError"}, {503, "ServiceUnavailable"}, {503, "Shutdown"},
	}
}

func reasonNumber(reason string) int {
	for i, c := range apnsReasons() {
		if c.reason == reason {
			return i
		}
	}
	return 0
}
