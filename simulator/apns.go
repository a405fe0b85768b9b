package simulator

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	devicePath     = "/3/device/"
	minTokenDigits = 64
	apnsLimit      = 4096
	voipLimit      = 5120
	providerLife   = time.Hour
	renewEvery     = 20 * time.Minute // a connection may not see new tokens more often
)

// apnsService is the APNs provider API, in both environments.
type apnsService struct {
	core      *core
	authority *authority
	topics    []string
	first     APNsKey
	mu        sync.RWMutex
	keys      map[string]*providerKey // by key id
	proven    proven[*providerToken]
}

type providerKey struct {
	team             string
	key              *ecdsa.PublicKey
	limited, sandbox bool // to one gateway: the sandbox, or production
}

// providerToken is a token whose signature was good.
type providerToken struct {
	key    *providerKey
	issued time.Time
}

// serve is POST /3/device/{token}.
func (a *apnsService) serve(p *port, w http.ResponseWriter, r *http.Request, sandbox bool) {
	x := &exchange{channel: APNs, refuse: a.refuse}
	c := p.connOf(r)
	x.after = func(got answer) {
		if strings.HasSuffix(got.reason, "ProviderToken") {
			c.forget(r.Header.Get("Authorization")) // it must be renewed, whatever its age
		}
	}
	x.answer = a.judge(x, r, c, sandbox)
	id := r.Header.Get("Apns-Id")
	if !validUUID(id) {
		id = newUUID()
	}
	x.answer.header = append(x.answer.header, [2]string{"Apns-Id", id})
	refuse := x.refuse
	x.refuse = func(f Fault) answer {
		got := refuse(f)
		got.header = append(got.header, [2]string{"Apns-Id", id})
		return got
	}
	a.core.respond(p, w, r, x)
}

func (a *apnsService) judge(x *exchange, r *http.Request, c *conn, sandbox bool) answer {
	token, ok := strings.CutPrefix(r.URL.Path, devicePath)
	switch {
	case r.ProtoMajor < 2:
		return apnsError(http.StatusHTTPVersionNotSupported, "HTTPVersionNotSupported", "APNs speaks HTTP/2 only.")
	case !ok || strings.Contains(token, "/"):
		return apnsError(http.StatusNotFound, "BadPath", "The path is "+devicePath+"<token>.")
	case r.Method != http.MethodPost:
		return apnsError(http.StatusMethodNotAllowed, "MethodNotAllowed", "Use POST.")
	}
	token = strings.ToLower(token)
	x.target = token
	body, err := readBody(r, voipLimit)
	x.payload, x.delivery = body, deliveryOf(body)
	if x.delivery == "" {
		x.delivery = r.Header.Get("Apns-Id")
	}
	if err != nil {
		return apnsError(http.StatusBadRequest, "PayloadEmpty", "The body could not be read.")
	}
	if reason, detail := a.authorize(r, c, sandbox); reason != "" {
		status := http.StatusForbidden
		if reason == "TooManyProviderTokenUpdates" {
			status = http.StatusTooManyRequests
		}
		return apnsError(status, reason, detail)
	}
	if refused, bad := a.checkHeaders(r.Header, body); bad {
		return refused
	}
	switch {
	case token == "":
		return apnsError(http.StatusBadRequest, "MissingDeviceToken", "The path ends before the token.")
	case !isDeviceToken(token):
		return apnsError(http.StatusBadRequest, "BadDeviceToken", "A token is at least 64 hexadecimal digits, in pairs.")
	}
	fault, ofSandbox, asked := parseHexToken(token)
	if strings.Trim(token, "0") == "" { // no device has it: Apple tells whether a key is good by what it is asked about
		return apnsError(http.StatusBadRequest, "BadDeviceToken", "Nobody has this token.")
	}
	if ofSandbox != sandbox {
		return apnsError(http.StatusBadRequest, "BadDeviceToken", "The token belongs to the other environment.")
	}
	if !fitsTopic(token, r.Header.Get("Apns-Topic")) {
		return apnsError(http.StatusBadRequest, "DeviceTokenNotForTopic", "The token is for push type "+boundTo(token)+".")
	}
	x.fault, x.asked = fault, asked
	ok200 := answer{status: http.StatusOK, accepted: true}
	if sandbox {
		ok200.header = [][2]string{{"Apns-Unique-Id", newUUID()}}
	}
	return ok200
}

func isDeviceToken(s string) bool {
	return len(s) >= minTokenDigits && len(s)%2 == 0 && strings.Trim(s, "0123456789abcdef") == ""
}

// refuse words a fault as Apple does.
func (a *apnsService) refuse(f Fault) answer {
	reason := f.Reason
	if reason == "" {
		reason = usualAPNsReason(f.Status)
	}
	got := apnsError(f.Status, reason, "")
	if f.Status == http.StatusGone {
		at := f.Timestamp
		if at.IsZero() {
			at = a.core.now()
		}
		got.body = []byte(`{"reason":"` + reason + `","timestamp":` + strconv.FormatInt(at.UnixMilli(), 10) + `}`)
	}
	return got
}

func usualAPNsReason(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "BadDeviceToken"
	case http.StatusForbidden:
		return "InvalidProviderToken"
	case http.StatusGone:
		return "Unregistered"
	case http.StatusTooManyRequests:
		return "TooManyRequests"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailable"
	}
	for _, c := range apnsReasons() {
		if c.status == status && status != 0 {
			return c.reason
		}
	}
	return "InternalServerError"
}

func apnsError(status int, reason, detail string) answer {
	body, _ := json.Marshal(map[string]string{"reason": reason}) // a string always encodes
	return answer{status: status, reason: reason, detail: detail, kind: "application/json", body: body}
}

// deliveryOf reads the delivery's id out of a JSON payload: the top-level member
// "carillon", or the same within "data".
func deliveryOf(payload []byte) string {
	var p struct {
		Carillon json.RawMessage `json:"carillon"`
		Data     json.RawMessage `json:"data"`
	}
	if json.Unmarshal(payload, &p) != nil {
		return ""
	}
	var id string
	if len(p.Carillon) > 0 && json.Unmarshal(p.Carillon, &id) == nil {
		return id
	}
	var data struct {
		Carillon string `json:"carillon"`
	}
	if len(p.Data) > 0 && p.Data[0] == '{' && json.Unmarshal(p.Data, &data) == nil {
		return data.Carillon
	}
	return ""
}

// newUUID is a random UUID (RFC 9562 version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", binary.BigEndian.Uint32(b[:4]), binary.BigEndian.Uint16(b[4:6]),
		binary.BigEndian.Uint16(b[6:8]), binary.BigEndian.Uint16(b[8:10]), b[10:])
}
