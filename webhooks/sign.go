package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	HeaderID        = "Webhook-Id"        // the notification: the same on every attempt, the receiver's idempotency key
	HeaderTimestamp = "Webhook-Timestamp" // of the attempt, in Unix seconds
	HeaderSignature = "Webhook-Signature" // "v1,<base64>" for every key that counts, with spaces between
)

// Tolerance is how far a timestamp may be from the receiver's clock, either
// way, where the receiver has no opinion of its own.
const Tolerance = 5 * time.Minute

const (
	version  = "v1,"
	maxStamp = 12 // digits; beyond year 30000, where arithmetic on times would wrap
)

// What Sign and Verify refuse.
var (
	ErrKey       = errors.New("webhooks: no key, or a key that is not 24 to 64 bytes long")
	ErrID        = errors.New("webhooks: the id is empty or holds a dot")
	ErrHeader    = errors.New("webhooks: a header is missing or malformed")
	ErrTooOld    = errors.New("webhooks: the timestamp is too old")
	ErrTooNew    = errors.New("webhooks: the timestamp is too far ahead")
	ErrSignature = errors.New("webhooks: no signature matches")
)

// Sign gives the Webhook-Signature header for exactly these bytes: one signature
// per key, in the order of keys. Sign again for each attempt, with its time.
func Sign(keys [][]byte, id string, at time.Time, body []byte) (string, error) {
	if id == "" || strings.Contains(id, ".") { // a dot would let id and timestamp shift
		return "", ErrID
	}
	if err := checkKeys(keys); err != nil {
		return "", err
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	var out strings.Builder
	for i, key := range keys {
		if i > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(signature(key, id, stamp, body))
	}
	return out.String(), nil
}

// Verify checks a received request: header as it came, body as it was read,
// before any decoding. keys are the secrets that the receiver holds, through
// ParseSecret; one match is enough. tolerance is Tolerance where it is not
// positive. It returns one of ErrKey, ErrHeader, ErrTooOld, ErrTooNew and
// ErrSignature. To answer a replay within the tolerance, remember Webhook-Id.
func Verify(keys [][]byte, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	id, stamp, given := header.Get(HeaderID), header.Get(HeaderTimestamp), header.Get(HeaderSignature)
	if id == "" || strings.Contains(id, ".") || given == "" {
		return ErrHeader
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != stamp || len(stamp) > maxStamp {
		return ErrHeader
	}
	if tolerance <= 0 {
		tolerance = Tolerance
	}
	switch age := now.Sub(time.Unix(seconds, 0)); {
	case age > tolerance:
		return ErrTooOld
	case age < -tolerance:
		return ErrTooNew
	}
	for _, key := range keys {
		want := []byte(signature(key, id, stamp, body))
		for one := range strings.FieldsSeq(given) {
			if hmac.Equal([]byte(one), want) {
				return nil
			}
		}
	}
	return ErrSignature
}

func checkKeys(keys [][]byte) error {
	for _, key := range keys {
		if checkKey(key) != nil {
			return ErrKey
		}
	}
	if len(keys) == 0 {
		return ErrKey
	}
	return nil
}

func signature(key []byte, id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(id + "." + stamp + ".")) // a hash never fails to write
	_, _ = mac.Write(body)
	return version + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
