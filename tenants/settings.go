package tenants

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// Limits of settings.
const (
	MaxDelays  = 20
	MaxDelay   = 7 * 24 * time.Hour
	MaxJitter  = 0.5
	MaxFloor   = 24 * time.Hour
	MaxOrigins = 100

	// MinRetention bounds how soon dead letters and rows may go: not while an
	// idempotency key has its answer, which names them.
	MinRetention = 24 * time.Hour
	MaxRetention = 366 * 24 * time.Hour

	// MinStale keeps devices whose app registers once a month, as Google advises.
	MinStale = 31 * 24 * time.Hour
	MaxStale = 2 * 366 * 24 * time.Hour

	MaxPushTTL    = 28 * 24 * time.Hour
	MaxWebhookTTL = 30 * 24 * time.Hour // the longest of any channel
)

// MaxTTL is the longest time to live on a channel.
func MaxTTL(k channels.Kind) time.Duration {
	if k == channels.Webhook {
		return MaxWebhookTTL
	}
	return MaxPushTTL
}

// Check refuses settings that are out of bounds. It returns a *problem.Error that
// names every member at fault, with paths such as retry.fcm.delays_ms[3].
func (s Settings) Check() error {
	var faults problem.Fields
	for _, kind := range slices.Sorted(maps.Keys(s.Retry)) {
		if knownKind(&faults, "retry", kind) {
			s.Retry[kind].check(&faults, "retry."+kind.String())
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(s.TTL)) {
		ttl, most := s.TTL[kind], int64(MaxTTL(kind)/time.Second)
		if knownKind(&faults, "ttl", kind) && (ttl < 1 || ttl > most) {
			faults.Add("ttl."+kind.String(), "is %d; use 1 to %d seconds", ttl, most)
		}
	}
	checkOrigins(&faults, s.Origins)
	checkKept(&faults, "retention.sent_ms", s.Retention.Sent, 0, MaxRetention)
	checkKept(&faults, "retention.dead_ms", s.Retention.Dead, MinRetention, MaxRetention)
	checkKept(&faults, "retention.rows_ms", s.Retention.Rows, MinRetention, MaxRetention)
	if s.StaleAfter != nil && *s.StaleAfter != 0 {
		checkKept(&faults, "stale_after_ms", s.StaleAfter, MinStale, MaxStale)
	}
	return faults.Err()
}

func knownKind(faults *problem.Fields, path string, kind channels.Kind) bool {
	known := slices.Contains(channels.Kinds(), kind)
	if !known {
		faults.Add(path, "names an unknown channel; use fcm, apns, webpush or webhook")
	}
	return known
}

func (p RetryPolicy) check(faults *problem.Fields, path string) {
	switch {
	case p.Preset != "" && p.Delays != nil:
		faults.Add(path+".preset", "cannot be combined with delays_ms; leave one of them out")
	case p.Preset != "" && !slices.Contains(Presets(), p.Preset):
		faults.Add(path+".preset", "is not a preset; use %s", strings.Join(Presets(), ", "))
	case p.Delays != nil && len(p.Delays) == 0:
		faults.Add(path+".delays_ms", "is empty; list at least one delay, or leave it out for the preset default")
	case len(p.Delays) > MaxDelays:
		faults.Add(path+".delays_ms", "has %d delays; at most %d are allowed", len(p.Delays), MaxDelays)
	default:
		for i, d := range p.Delays {
			checkMillis(faults, fmt.Sprintf("%s.delays_ms[%d]", path, i), d, MaxDelay)
		}
	}
	if p.Jitter != nil && !(*p.Jitter >= 0 && *p.Jitter <= MaxJitter) { // so that NaN is refused
		faults.Add(path+".jitter", "is out of range; use a share of 0 to %g", MaxJitter)
	}
	if p.Floor != nil {
		checkMillis(faults, path+".floor_ms", *p.Floor, MaxFloor)
	}
}

func checkMillis(faults *problem.Fields, path string, ms int64, most time.Duration) {
	if ms < 0 || ms > most.Milliseconds() {
		faults.Add(path, "is %d; use 0 to %d milliseconds", ms, most.Milliseconds())
	}
}

func checkKept(faults *problem.Fields, path string, ms *int64, least, most time.Duration) {
	if ms != nil && (*ms < least.Milliseconds() || *ms > most.Milliseconds()) {
		faults.Add(path, "is %d; use %d to %d milliseconds (%d to %d days)", *ms, least.Milliseconds(), most.Milliseconds(),
			least/(24*time.Hour), most/(24*time.Hour))
	}
}

func checkOrigins(faults *problem.Fields, origins []string) {
	if len(origins) > MaxOrigins {
		faults.Add("origins", "lists %d origins; at most %d are allowed", len(origins), MaxOrigins)
		return
	}
	for i, o := range origins {
		if why := originFault(o); why != "" {
			faults.Add(fmt.Sprintf("origins[%d]", i), "%s", why)
		} else if slices.Contains(origins[:i], o) {
			faults.Add(fmt.Sprintf("origins[%d]", i), "is listed twice")
		}
	}
}

// originFault says what keeps a text from being an origin as browsers send it
// (RFC 6454 section 6.2): it is compared with their Origin header byte by byte.
func originFault(s string) string {
	const form = "is not an origin; use https:// and a host without a path, such as https://app.example.com"
	u, err := url.Parse(s)
	switch {
	case len(s) > 255 || err != nil || u.Scheme == "" || u.Hostname() == "" || s != u.Scheme+"://"+u.Host:
		return form
	case s != strings.ToLower(s):
		return "has upper-case letters; write it as browsers send it, in lower case"
	case strings.ContainsAny(u.Host, "*%") || !isASCII(u.Host):
		return form + "; wildcards are not allowed, and other alphabets are written as xn--"
	case !isPort(u.Port()):
		return "names a port that does not exist; use 1 to 65535"
	case strings.HasSuffix(u.Host, ":") || (u.Scheme == "https" && u.Port() == "443") || (u.Scheme == "http" && u.Port() == "80"):
		return "names the default port; leave it out, as browsers do"
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return ""
	}
	return "must begin with https://; http:// is allowed for localhost and 127.0.0.1 only"
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' || r <= ' ' })
}

// isPort tells whether a text is no port, or one without leading zeros.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || (err == nil && n > 0 && s[0] != '0')
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && addr.IsLoopback())
}
