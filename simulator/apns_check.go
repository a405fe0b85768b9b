package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const collapseIDMax = 64 // bytes

// authorize checks the provider token of a request and binds it to the
// connection. It gives Apple's reason for a refusal, "" when all is well.
func (a *apnsService) authorize(r *http.Request, c *conn, sandbox bool) (reason, detail string) {
	if reason, detail, known := a.certified(r, sandbox); known {
		return reason, detail
	}
	const scheme = "bearer "
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return "MissingProviderToken", "There is no authorization header."
	}
	raw := values[0]
	if len(raw) <= len(scheme) || !strings.EqualFold(raw[:len(scheme)], scheme) {
		return "MissingProviderToken", "The authorization header is not \"bearer <token>\"."
	}
	raw = raw[len(scheme):]
	t, ok := a.proven.get(raw)
	if !ok {
		if t, detail = a.prove(raw); detail != "" {
			return "InvalidProviderToken", detail
		}
		a.proven.put(raw, t)
	}
	switch good, here := a.good(t.key, sandbox); {
	case !good:
		return "InvalidProviderToken", "The key was revoked."
	case !here:
		return "BadEnvironmentKeyIdInToken", "The key is limited to the other environment."
	}
	now := a.core.now()
	switch age := now.Sub(t.issued); {
	case age > providerLife:
		return "ExpiredProviderToken", fmt.Sprintf("iat is %s ago; at most an hour is allowed.", age.Round(time.Second))
	case age < -clockSkew:
		return "InvalidProviderToken", "iat is in the future."
	}
	return c.bind(raw, t.key.team, now)
}

// good tells whether a key stands, and whether it may be used at a gateway.
func (a *apnsService) good(key *providerKey, sandbox bool) (good, here bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, k := range a.keys {
		if k == key {
			return true, !k.limited || k.sandbox == sandbox
		}
	}
	return false, false
}

// prove checks form and signature. detail is "" when they are good.
func (a *apnsService) prove(raw string) (t *providerToken, detail string) {
	token, err := parseJWT(raw)
	if err != nil {
		return nil, "The token is " + err.Error() + "."
	}
	a.mu.RLock()
	key := a.keys[token.header.Kid]
	a.mu.RUnlock()
	switch {
	case token.header.Alg != "ES256":
		return nil, "alg is not ES256."
	case key == nil:
		return nil, "kid is not a key of this simulator."
	case token.claims.Iss != key.team:
		return nil, "iss is not the team of the key."
	case token.claims.Iat == 0:
		return nil, "iat is missing."
	case !token.signedES256(key.key):
		return nil, "The signature does not fit the key."
	}
	return &providerToken{key: key, issued: time.Unix(token.claims.Iat, 0)}, ""
}

// bind lets a connection serve one team, and a new token every 20 minutes.
// Requests that were on their way with the token before are let through.
func (c *conn) bind(raw, team string, now time.Time) (reason, detail string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.team != "" && c.team != team {
		return "InvalidProviderToken", "The connection belongs to another team."
	}
	switch {
	case c.token == raw, c.previous == raw:
	case c.token != "" && now.Sub(c.tokenFrom) < renewEvery:
		return "TooManyProviderTokenUpdates", "The connection saw another token less than 20 minutes ago."
	default:
		c.token, c.previous, c.tokenFrom = raw, c.token, now
	}
	c.team = team
	return "", ""
}

// forget makes room for another token at once when the newest one was refused.
func (c *conn) forget(authorization string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && strings.HasSuffix(authorization, " "+c.token) {
		c.token, c.previous = "", ""
	}
}

// topicSuffix is what a push type adds to the bundle id.
func topicSuffix(pushType string) (suffix string, known bool) {
	switch pushType {
	case "alert", "background", "mdm":
		return "", true
	case "voip", "complication":
		return "." + pushType, true
	case "fileprovider":
		return ".pushkit.fileprovider", true
	case "location":
		return ".location-query", true
	case "liveactivity", "controls", "widgets":
		return ".push-type." + pushType, true
	case "pushtotalk":
		return ".voip-ptt", true
	}
	return "", false
}

// checkHeaders finds what APNs would refuse in the headers and the payload.
func (a *apnsService) checkHeaders(h http.Header, payload []byte) (answer, bool) {
	for name, values := range h {
		if strings.HasPrefix(name, "Apns-") && len(values) > 1 {
			return bad("DuplicateHeaders", name+" is there more than once.")
		}
	}
	pushType := h.Get("Apns-Push-Type")
	if pushType == "" {
		pushType = "alert" // as it was before the header existed
	}
	suffix, known := topicSuffix(pushType)
	topic, priority := h.Get("Apns-Topic"), h.Get("Apns-Priority")
	if id := h.Get("Apns-Id"); id != "" && !validUUID(id) {
		return bad("BadMessageId", "apns-id is not a lower-case UUID.")
	}
	switch expiration := h.Get("Apns-Expiration"); {
	case !known:
		return bad("InvalidPushType", "apns-push-type is unknown.")
	case topic == "":
		return bad("MissingTopic", "There is no apns-topic.")
	case !validPackage(strings.ReplaceAll(topic, "-", "_")):
		return bad("BadTopic", "apns-topic is not a bundle id.")
	case !strings.HasSuffix(topic, suffix):
		return bad("TopicDisallowed", "The topic of push type "+pushType+" ends in "+suffix+".")
	case !slices.Contains(a.topics, strings.TrimSuffix(topic, suffix)):
		return bad("DeviceTokenNotForTopic", "This simulator serves "+strings.Join(a.topics, ", ")+".")
	case expiration != "" && !validExpiration(expiration):
		return bad("BadExpirationDate", "apns-expiration is not in Unix seconds.")
	case priority != "" && !validAPNsPriority(priority):
		return bad("BadPriority", "apns-priority is not 10, 5 or 1.")
	case pushType == "background" && priority != "5":
		return bad("BadPriority", "A background push has apns-priority 5.")
	case len(h.Get("Apns-Collapse-Id")) > collapseIDMax:
		return bad("BadCollapseId", "apns-collapse-id is over 64 bytes.")
	}
	return checkPayload(pushType, payload)
}

func bad(reason, detail string) (answer, bool) {
	return apnsError(http.StatusBadRequest, reason, detail), true
}

// checkPayload compares the payload with the push type. Apple names no reason
// for a mismatch and may just drop the push; here it is InvalidPushType, so that
// nobody overlooks it.
func checkPayload(pushType string, payload []byte) (answer, bool) {
	limit := apnsLimit
	if pushType == "voip" {
		limit = voipLimit
	}
	if len(payload) > limit {
		return apnsError(http.StatusRequestEntityTooLarge, "PayloadTooLarge",
			fmt.Sprintf("More than %d bytes.", limit)), true
	}
	var p struct {
		APS *struct {
			Alert       json.RawMessage `json:"alert"`
			Badge       json.RawMessage `json:"badge"`
			Sound       json.RawMessage `json:"sound"`
			Available   json.RawMessage `json:"content-available"`
			Event       json.RawMessage `json:"event"`
			Timestamp   json.RawMessage `json:"timestamp"`
			State       json.RawMessage `json:"content-state"`
			Changed     json.RawMessage `json:"content-changed"`
			Interaction string          `json:"interruption-level"`
		} `json:"aps"`
	}
	if len(payload) == 0 || payload[0] != '{' || json.Unmarshal(payload, &p) != nil {
		return bad("PayloadEmpty", "The payload is not a JSON object with a well-formed aps.")
	}
	shows := p.APS != nil && (p.APS.Alert != nil || p.APS.Badge != nil || p.APS.Sound != nil)
	switch {
	case pushType == "alert" && !shows:
		return bad("InvalidPushType", "An alert push has aps.alert, badge or sound.")
	case pushType == "background" && (shows || p.APS == nil || string(p.APS.Available) != "1"):
		return bad("InvalidPushType", "A background push has aps.content-available 1 and no alert, badge or sound.")
	case pushType == "liveactivity" && (p.APS == nil || p.APS.Event == nil || p.APS.Timestamp == nil || p.APS.State == nil):
		return bad("InvalidPushType", "A live activity push has aps.event, timestamp and content-state.")
	case pushType == "widgets" && (p.APS == nil || string(p.APS.Changed) != "true"):
		return bad("InvalidPushType", "A widget push has aps.content-changed true.")
	case p.APS != nil && !slices.Contains([]string{"", "passive", "active", "time-sensitive", "critical"}, p.APS.Interaction):
		return bad("InvalidPushType", "aps.interruption-level is unknown.")
	}
	return answer{}, false
}

func validAPNsPriority(s string) bool { return s == "10" || s == "5" || s == "1" }

func validExpiration(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n >= 0 && n < 1<<33 // seconds: milliseconds would be beyond the year 2242
}

// validUUID is true for the lower-case canonical form, which Apple wants.
func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
