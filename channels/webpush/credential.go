package webpush

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	webpushgo "github.com/SherClockHolmes/webpush-go"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// input is what a tenant puts: a subject, and either a pair or the wish for one.
type input struct {
	Subject    string `json:"subject"`
	Generate   bool   `json:"generate"`
	PublicKey  string `json:"public_key"`
	PrivateKey string `json:"private_key"`
	Rotate     bool   `json:"rotate"` // read by whoever keeps the pairs of an app
}

// settings is what may be read back. Browsers subscribe with the public key.
type settings struct {
	PublicKey string `json:"public_key"` // base64url of the 65-octet point
	Subject   string `json:"subject"`
}

const maxSubject = 255 // bytes

// ParseCredential takes {"subject", "generate": true} or {"subject",
// "public_key", "private_key"}. The pair of a credential can never change,
// since browsers bind their subscriptions to it: a later version may only
// change the subject. Another pair is another credential, told apart by its
// Qualifier.
func (*Channel) ParseCredential(raw []byte, prior json.RawMessage) (channels.Credential, error) {
	in, err := parseInput(raw)
	if err != nil {
		return channels.Credential{}, err
	}
	var before settings
	if len(prior) > 0 {
		if err := json.Unmarshal(prior, &before); err != nil {
			return channels.Credential{}, fmt.Errorf("webpush: the settings of the version before are unreadable: %w", err)
		}
	}
	var faults problem.Fields
	if err := checkSubject(in.Subject); err != nil {
		faults.Add("subject", "%s", err)
	}
	public, private := pair(in, before, &faults)
	if faults.Err() != nil {
		return channels.Credential{}, refused(faults.Err())
	}
	shown, err := json.Marshal(settings{PublicKey: public, Subject: in.Subject})
	if err != nil {
		return channels.Credential{}, err
	}
	return channels.Credential{Settings: shown, Secret: private, Qualifier: public}, nil
}

func parseInput(raw []byte) (input, error) {
	var in input
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return in, problem.New(problem.CredentialRefused, "A VAPID credential is a JSON object with subject, and generate or public_key and private_key.")
	}
	var faults problem.Fields
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var err error
		switch name {
		case "subject":
			err = json.Unmarshal(members[name], &in.Subject)
		case "generate":
			err = json.Unmarshal(members[name], &in.Generate)
		case "rotate":
			err = json.Unmarshal(members[name], &in.Rotate)
		case "public_key":
			err = json.Unmarshal(members[name], &in.PublicKey)
		case "private_key":
			err = json.Unmarshal(members[name], &in.PrivateKey)
		default:
			faults.Add(name, "is not a member of a VAPID credential; there are subject, generate, public_key, private_key and rotate")
		}
		if err != nil { // its text may hold the value
			faults.Add(name, "has the wrong type: generate and rotate are booleans, the others are strings")
		}
	}
	if faults.Err() != nil {
		return in, refused(faults.Err())
	}
	return in, nil
}

// pair gives the public key as it is shown and the private one to seal, made
// here if that was asked for.
func pair(in input, before settings, faults *problem.Fields) (public string, private []byte) {
	switch {
	case in.Generate && (in.PublicKey != "" || in.PrivateKey != ""):
		faults.Add("generate", "makes a new pair; leave out public_key and private_key, or leave out generate")
		return "", nil
	case in.Generate && before.PublicKey != "":
		faults.Add("generate", "would replace the key that browsers have bound their subscriptions to, and end them all; add the new pair as another credential")
		return "", nil
	case in.Generate:
		var err error
		if in.PrivateKey, in.PublicKey, err = webpushgo.GenerateVAPIDKeys(); err != nil {
			faults.Add("generate", "failed; try again")
			return "", nil
		}
	case in.PublicKey == "" && in.PrivateKey == "":
		faults.Add("public_key", "is required, with private_key; or set generate to true for a new pair")
		return "", nil
	}
	for _, m := range []struct{ name, value, other string }{{"public_key", in.PublicKey, "private_key"}, {"private_key", in.PrivateKey, "public_key"}} {
		if m.value == "" {
			faults.Add(m.name, "is missing; it belongs to %s: give both, or set generate to true for a new pair", m.other)
			return "", nil
		}
	}
	point, private := checkPair(in, faults)
	if point == nil {
		return "", nil
	}
	public = base64.RawURLEncoding.EncodeToString(point)
	if before.PublicKey != "" && before.PublicKey != public {
		faults.Add("public_key", "differs from the version before: browsers have bound their subscriptions to that key and would all be lost; add the new pair as another credential")
	}
	return public, private
}

// checkPair decodes both keys and checks that they belong together.
func checkPair(in input, faults *problem.Fields) (point, private []byte) {
	point, err := decode(in.PublicKey)
	if err == nil {
		err = checkPoint(point)
	}
	if err != nil {
		faults.Add("public_key", "%s", err)
	}
	private, perr := decode(in.PrivateKey)
	if perr == nil {
		_, perr = parseKey(private)
	}
	if perr != nil {
		faults.Add("private_key", "%s", perr)
	}
	if err != nil || perr != nil {
		return nil, nil
	}
	key, err := ecdh.P256().NewPrivateKey(private)
	if err != nil || !bytes.Equal(key.PublicKey().Bytes(), point) {
		faults.Add("public_key", "does not belong to private_key")
		return nil, nil
	}
	return point, private
}

// checkPoint wants an uncompressed point on P-256, as VAPID keys and the keys
// of subscriptions are.
func checkPoint(point []byte) error {
	if len(point) != pointSize || point[0] != 4 {
		return errors.New("is not an uncompressed P-256 point: 65 octets of which the first is 4, in base64url")
	}
	if _, err := ecdh.P256().NewPublicKey(point); err != nil {
		return errors.New("is not a point on the curve P-256")
	}
	return nil
}

// checkSubject wants what every push service takes. RFC 8292 section 2.1 only
// recommends a contact; Apple refuses one that it cannot resolve.
func checkSubject(s string) error {
	form := errors.New("must be a contact for push services, such as mailto:ops@example.com or https://example.com/contact")
	if len(s) > maxSubject {
		return fmt.Errorf("has %d bytes; at most %d are allowed", len(s), maxSubject)
	}
	var domain string
	if address, ok := strings.CutPrefix(s, "mailto:"); ok {
		a, err := mail.ParseAddress(address)
		if err != nil || a.Address != address {
			return form
		}
		domain = address[strings.LastIndexByte(address, '@')+1:]
	} else if u, err := url.Parse(s); err == nil && strings.HasPrefix(s, "https://") && u.User == nil {
		domain = u.Hostname()
	}
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if domain == "" || strings.ContainsAny(s, " \t\r\n") {
		return form
	}
	if _, err := netip.ParseAddr(strings.Trim(domain, "[]")); err == nil || !isPublicName(domain) {
		return errors.New("must name a public domain, such as your own; Apple refuses addresses, single labels and names that are reserved or private, such as .test, .local, .lan and .internal")
	}
	return nil
}

// decode reads base64url, and plain base64 too, with or without padding.
func decode(s string) ([]byte, error) {
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "="))
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, errors.New("must be base64url")
	}
	return b, nil
}

// refused is a fault list with the code of a credential that cannot work.
func refused(err error) error {
	var e *problem.Error
	if !errors.As(err, &e) {
		return err
	}
	return &problem.Error{Code: problem.CredentialRefused, Detail: "The VAPID credential cannot be used.", Fields: e.Fields}
}
