package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

const (
	maxKeyBytes = 16 << 10
	maxTopics   = 400 // what Apple lets one topic-specific key cover
	maxBundleID = 155
	idLength    = 10 // of Apple's key and team ids
)

// settings is what may be read back of a credential.
type settings struct {
	KeyID       string               `json:"key_id,omitempty"` // of a signing key
	TeamID      string               `json:"team_id"`
	Topics      []string             `json:"topics"` // bundle ids; the first is used unless a message names another
	Environment channels.Environment `json:"environment"`
	Certificate *certificateSettings `json:"certificate,omitempty"` // in the place of a signing key
}

// ParseCredential reads a token signing key (.p8) with its ids and bundle ids, or a
// push certificate, which says most of that itself.
// environment "production" or "sandbox" limits the credential to one gateway;
// "" serves both. A key of another team is refused, because device tokens
// belong to the team's app and would all die with it.
func (c *Channel) ParseCredential(input []byte, prior json.RawMessage) (channels.Credential, error) {
	var in struct {
		Key         string    `json:"key"`
		Certificate string    `json:"certificate"`
		P12         string    `json:"p12"`
		Password    string    `json:"password"`
		ExpiresAt   time.Time `json:"expires_at"`
		settings
	}
	if err := checkMembers(input); err != nil {
		return channels.Credential{}, err
	}
	if err := json.Unmarshal(input, &in); err != nil {
		return channels.Credential{}, mistyped(err)
	}
	var secret []byte
	expires := in.ExpiresAt
	if in.Password != "" && in.P12 == "" {
		return channels.Credential{}, refused("password", "It opens a .p12 file; give that as p12, or leave the password out.")
	}
	if in.Certificate != "" || in.P12 != "" {
		if in.Key != "" || in.KeyID != "" {
			return channels.Credential{}, refused("key", "Give a signing key with its key_id, or a certificate; not both.")
		}
		if !in.ExpiresAt.IsZero() {
			return channels.Credential{}, refused("expires_at", "Leave it out: the certificate says when it ends.")
		}
		var err error
		if secret, expires, err = parseCertificate(in.Certificate, in.P12, in.Password, &in.settings); err != nil {
			return channels.Credential{}, err
		}
	}
	if err := in.settings.check(); err != nil {
		return channels.Credential{}, err
	}
	if err := in.settings.checkSuffixes(); err != nil {
		return channels.Credential{}, err
	}
	if in.settings.Certificate == nil {
		if in.Key == "" {
			return channels.Credential{}, refused("key", "It is missing; give the text of the .p8 file, or a certificate as certificate or p12.")
		}
		var err error
		if secret, _, err = parseKey([]byte(channels.UnescapeLines(in.Key))); err != nil {
			return channels.Credential{}, refused("key", err.Error())
		}
	}
	if !expires.IsZero() && !expires.After(c.now()) {
		return channels.Credential{}, refused(expiryMember(in.settings), "It has expired on "+expires.UTC().Format(time.DateOnly)+".")
	}
	if len(prior) > 0 {
		var old settings
		if err := json.Unmarshal(prior, &old); err != nil {
			return channels.Credential{}, fmt.Errorf("settings of the prior credential: %w", err)
		}
		if old.TeamID != in.TeamID && old.TeamID != "" && in.TeamID != "" {
			return channels.Credential{}, refused("team_id", fmt.Sprintf(
				"The devices belong to team %s and cannot be reached by another; use a key of that team or make a new app.", old.TeamID))
		}
	}
	shown, err := json.Marshal(in.settings)
	if err != nil {
		return channels.Credential{}, err
	}
	return channels.Credential{Settings: shown, Secret: secret, Qualifier: string(in.Environment), ExpiresAt: expires}, nil
}

// expiryMember is where the end of a credential comes from.
func expiryMember(s settings) string {
	if s.Certificate != nil {
		return "certificate"
	}
	return "expires_at"
}

// checkMembers refuses what is not an object and names that a credential does not have.
func checkMembers(input []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(input, &members); err != nil || members == nil {
		return problem.New(problem.Invalid, "The credential must be a JSON object.")
	}
	var faults problem.Fields
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains([]string{"key", "key_id", "team_id", "topics", "environment", "expires_at", "certificate", "p12", "password"}, name) {
			faults.Add(name, "Unknown member; a credential has key, key_id and team_id, or certificate, or p12 and password, and topics, environment and expires_at.")
		}
	}
	return faults.Err()
}

// mistyped names the member that is of the wrong type: the one of the error, or the
// time, whose errors name none. Their texts may hold the value, and are not shown.
func mistyped(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return problem.AtField("expires_at", "must be a time, such as 2027-01-31T00:00:00Z")
	}
	member := strings.TrimPrefix(wrong.Field, "settings.") // which is embedded
	if member == "topics" {
		return problem.AtField(member, "must be a list of strings")
	}
	return problem.AtField(member, "must be a string")
}

func (s *settings) check() error {
	var faults problem.Fields
	if s.Certificate == nil && !isAppleID(s.KeyID) {
		faults.Add("key_id", "The key id has 10 characters A-Z and 0-9; it is part of the name of the .p8 file.")
	}
	if s.Certificate == nil && !isAppleID(s.TeamID) {
		faults.Add("team_id", "The team id has 10 characters A-Z and 0-9; Apple shows it under membership details.")
	}
	topics := s.Topics
	if n := len(topics); n == 0 || n > maxTopics {
		faults.Add("topics", "Name 1 to %d bundle ids; the first is used by default.", maxTopics)
		topics = nil // looking for duplicates is quadratic
	}
	for i, topic := range topics {
		switch path := fmt.Sprintf("topics[%d]", i); {
		case !isBundleID(topic):
			faults.Add(path, "A bundle id has letters, digits, dots and hyphens, at most %d; wildcards do not receive notifications.", maxBundleID)
		case slices.Index(topics, topic) < i:
			faults.Add(path, "This bundle id is listed twice.")
		}
	}
	if !slices.Contains([]channels.Environment{"", channels.Production, channels.Sandbox}, s.Environment) {
		faults.Add("environment", "Use production or sandbox, or leave it out for a key that works for both.")
	}
	return faults.Err()
}

// checkSuffixes refuses topics that end in what a push type appends: such a
// credential could send nothing but that type. Credentials of before open with
// theirs, so this is no part of check.
func (s *settings) checkSuffixes() error {
	var faults problem.Fields
	for i, topic := range s.Topics {
		for _, t := range pushTypes() {
			suffix := topicSuffix(t)
			if bundle, ends := strings.CutSuffix(topic, suffix); ends && suffix != "" {
				faults.Add(fmt.Sprintf("topics[%d]", i), "Name the bundle id itself, %s; %s is appended for notifications that set overrides.apns.push_type to %s.", bundle, suffix, t)
			}
		}
	}
	return faults.Err()
}

// parseKey finds the one private key in a PEM text, and gives it back alone and
// parsed. Its errors are sentences for people.
func parseKey(text []byte) ([]byte, *ecdsa.PrivateKey, error) {
	if len(text) > maxKeyBytes {
		return nil, nil, keyError("The key is too long; paste the .p8 file alone.")
	}
	seen := ""
	for block, rest := pem.Decode(bytes.TrimSpace(text)); block != nil; block, rest = pem.Decode(rest) {
		seen = block.Type
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, nil, keyError("The key is encrypted; decrypt it first, Apple's .p8 files have no password.")
		case block.Type == "RSA PRIVATE KEY":
			return nil, nil, keyError("This is an RSA key; APNs takes the P-256 key of a .p8 file.")
		case block.Type == "EC PRIVATE KEY":
			return nil, nil, keyError("The key is in SEC 1 form; convert it with: openssl pkcs8 -topk8 -nocrypt.")
		case block.Type == "PRIVATE KEY":
			key, err := parsePKCS8(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), key, nil
		}
	}
	switch seen {
	case "":
		return nil, nil, keyError("The key is not PEM; paste the .p8 file with its BEGIN and END lines and line breaks. A certificate is given as certificate or p12.")
	case "CERTIFICATE":
		return nil, nil, keyError("This is a certificate without a private key; give it as certificate, with its key.")
	}
	return nil, nil, keyError("The PEM text holds no private key.")
}

func parsePKCS8(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, keyError("The private key cannot be read; the file is damaged or of an unknown kind.")
	}
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve != elliptic.P256() {
			return nil, keyError("The key is on curve " + key.Curve.Params().Name + "; APNs takes P-256 only.")
		}
		return key, nil
	case *rsa.PrivateKey:
		return nil, keyError("This is an RSA key; APNs takes the P-256 key of a .p8 file.")
	}
	return nil, keyError("This kind of key cannot sign for APNs; use the P-256 key of a .p8 file.")
}

// keyError is a sentence about a key, free of its content.
type keyError string

func (e keyError) Error() string { return string(e) }

func refused(field, sentence string) error {
	return &problem.Error{Code: problem.CredentialRefused, Detail: "This credential cannot work.",
		Fields: []problem.Field{{Path: field, Detail: sentence}}}
}

func isAppleID(s string) bool {
	return len(s) == idLength && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// isBundleID checks the characters of a bundle id, which is also what may
// stand in an apns-topic header.
func isBundleID(s string) bool {
	if s == "" || len(s) > maxBundleID {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
