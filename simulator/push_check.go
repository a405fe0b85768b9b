package simulator

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// vapidMismatch is the reason of a key that is not the subscription's.
const vapidMismatch = "VAPID_MISMATCH"

// vapidLife is the longest that a VAPID token may be valid (RFC 8292 section 2).
const vapidLife = 24 * time.Hour

const (
	topicMax       = 32
	topicBase64url = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
)

// authorize checks VAPID (RFC 8292). origin is that of the endpoint as it was
// asked for. It gives the key of the sender, nil without one.
func (p *pushService) authorize(sub *subscription, h http.Header, origin string) (key []byte, refused answer, bad bool) {
	refuse := func(status int, reason, detail string) ([]byte, answer, bool) {
		return nil, pushError(status, reason, detail), true
	}
	header := h.Get("Authorization")
	if header == "" {
		if sub.vapid == nil {
			return nil, answer{}, false
		}
		return refuse(http.StatusUnauthorized, "", "The authorization header must be specified.")
	}
	t, known := p.proven.get(header)
	if !known {
		var detail string
		if t, detail = proveVAPID(header); detail != "" {
			return refuse(http.StatusForbidden, "", detail)
		}
		p.proven.put(header, t)
	}
	if sub.vapid != nil && !bytes.Equal(t.key, sub.vapid) {
		return nil, refusePush(Fault{Status: http.StatusForbidden, Reason: vapidMismatch}), true
	}
	now, exp := p.core.now(), time.Unix(t.claims.Exp, 0)
	switch {
	case t.claims.Aud != origin:
		return refuse(http.StatusForbidden, "", "invalid JWT provided: aud is not the origin of the endpoint, "+origin+".")
	case !exp.After(now):
		return refuse(http.StatusForbidden, "", "invalid JWT provided: exp has passed.")
	case exp.Sub(now) > vapidLife:
		return refuse(http.StatusForbidden, "", "invalid JWT provided: exp is over 24 hours ahead.")
	case !validSubject(t.claims.Sub):
		return refuse(http.StatusForbidden, "", "invalid JWT provided: sub is neither mailto:<address> nor an https URL.")
	}
	return t.key, answer{}, false
}

// vapidToken is a header whose signature was good.
type vapidToken struct {
	*jwt
	key []byte // 65 octets
}

// proveVAPID checks form and signature. detail is "" when they are good.
func proveVAPID(header string) (t *vapidToken, detail string) {
	raw, k, ok := parseVAPID(header)
	if !ok {
		return nil, "The authorization header is not \"vapid t=<token>, k=<key>\"."
	}
	key, err := decodeVAPIDKey(k)
	if err != nil {
		return nil, "k is not a public key of P-256."
	}
	token, err := parseJWT(raw)
	if err != nil || !token.signedES256(ecdsaKey(key)) {
		return nil, "invalid JWT provided: the signature does not fit k."
	}
	return &vapidToken{token, key}, ""
}

// parseVAPID reads "vapid t=..., k=...": the scheme in any case, the parameters
// in any order (RFC 9110 section 11.4).
func parseVAPID(header string) (token, key string, ok bool) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "vapid") {
		return "", "", false
	}
	for param := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		value = strings.Trim(value, `"`)
		switch name {
		case "t":
			token = value
		case "k":
			key = value
		}
	}
	return token, key, token != "" && key != ""
}

// validSubject wants one address or a URL that somebody could be reached by, at
// a name that may resolve, as Apple does.
func validSubject(sub string) bool {
	if address, ok := strings.CutPrefix(sub, "mailto:"); ok {
		parsed, err := mail.ParseAddress(address)
		return err == nil && parsed.Address == address && mayResolve(address[strings.LastIndexByte(address, '@')+1:])
	}
	u, err := url.Parse(sub)
	return err == nil && u.Scheme == "https" && mayResolve(u.Hostname())
}

// mayResolve is false for addresses, single labels, and the top-level domains
// that are reserved or private.
func mayResolve(domain string) bool {
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(domain, ".")), ".")
	top := labels[len(labels)-1]
	return len(labels) > 1 && top != "" && !onlyDigits(top) &&
		!slices.Contains([]string{"test", "example", "invalid", "localhost", "local", "internal", "arpa", "lan", "home", "corp"}, top)
}

// ecdsaKey turns a checked point into a key for signatures.
func ecdsaKey(point []byte) *ecdsa.PublicKey {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return &ecdsa.PublicKey{Curve: elliptic.P256()} // verifies nothing
	}
	return key
}

// checkPushHeaders reads TTL, Topic and Urgency (RFC 8030 section 5).
func checkPushHeaders(h http.Header, m *pushMessage, size int) (answer, bool) {
	ttl, topic, urgency := h.Get("Ttl"), h.Get("Topic"), h.Get("Urgency")
	var err error
	m.ttl, err = strconv.ParseInt(ttl, 10, 33)
	m.topic = topic
	detail := ""
	switch {
	case ttl == "":
		detail = "There is no TTL."
	case err != nil || !onlyDigits(ttl):
		detail = "TTL is not a number of seconds."
	case len(h["Topic"]) > 0 && (topic == "" || len(topic) > topicMax || strings.Trim(topic, topicBase64url) != ""):
		detail = "Topic is not at most 32 characters of base64url."
	case len(h["Urgency"]) > 0 && !validUrgency(urgency):
		detail = "Urgency is not very-low, low, normal or high."
	case size > 0 && h.Get("Content-Encoding") != "aes128gcm":
		detail = "Content-Encoding is not aes128gcm."
	}
	if detail != "" {
		return pushError(http.StatusBadRequest, "", detail), true
	}
	if len(topic)%4 == 1 {
		return appleError(http.StatusBadRequest, "BadWebPushTopic", "Topic does not decode as base64url, as Apple wants it to."), true
	}
	m.ttl = min(m.ttl, int64(30*24*time.Hour/time.Second))
	return answer{}, false
}

func validUrgency(s string) bool {
	return s == "very-low" || s == "low" || s == "normal" || s == "high"
}

// checkRecord looks at the header of an aes128gcm body (RFC 8188 section 2.1,
// RFC 8291 section 4). It gives what is wrong, "" for nothing. An empty body is a
// push without data.
func checkRecord(body, vapid []byte) string {
	if len(body) == 0 {
		return ""
	}
	r, ok := splitRecord(body)
	switch {
	case !ok:
		return "The body has no aes128gcm header with a key of 65 octets."
	case len(r.ciphertext) <= tagLength:
		return "The body has no record."
	case len(r.ciphertext) >= r.size:
		return "The record is not smaller than the record size: there must be exactly one."
	case bytes.Equal(r.sender, vapid):
		return "The message was encrypted with the VAPID key."
	}
	if _, err := ecdh.P256().NewPublicKey(r.sender); err != nil {
		return "The key in the header is not a point of P-256."
	}
	return ""
}

// pushError is an error in the form of Mozilla's service.
func pushError(status int, reason, detail string) answer {
	body, _ := json.Marshal(map[string]any{"code": status, "errno": pushErrno(status), "error": http.StatusText(status),
		"message": detail}) // plain values always encode
	return answer{status: status, reason: reason, detail: detail, kind: "application/json", body: body}
}

// appleError is an error in the form of Apple's service. The simulator has one
// kind of endpoint for all vendors, so it refuses what any of them refuses.
func appleError(status int, reason, detail string) answer {
	body, _ := json.Marshal(map[string]string{"reason": reason}) // a string always encodes
	return answer{status: status, reason: reason, detail: detail, kind: "application/json", body: body}
}

func pushErrno(status int) int {
	switch status {
	case http.StatusBadRequest:
		return 110
	case http.StatusUnauthorized, http.StatusForbidden:
		return 109
	case http.StatusNotFound:
		return 102
	case http.StatusGone:
		return 106
	case http.StatusRequestEntityTooLarge:
		return 104
	case http.StatusServiceUnavailable:
		return 201
	}
	return 999
}

func refusePush(f Fault) answer {
	switch {
	case f.Reason == vapidMismatch:
		return pushError(f.Status, f.Reason, "VAPID public key mismatch: the VAPID credentials in the authorization header "+
			"do not correspond to the credentials used to create the subscriptions.")
	case f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden:
		return pushError(f.Status, f.Reason, "invalid JWT provided")
	case f.Status == http.StatusGone:
		return pushError(f.Status, f.Reason, "The subscription has unsubscribed or expired.")
	}
	return pushError(f.Status, f.Reason, http.StatusText(f.Status))
}
