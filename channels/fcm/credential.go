package fcm

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

const (
	googleTokenURI = "https://oauth2.googleapis.com/token"
	// legacyTokenURI stands in service account files of before 2018; Google
	// still serves it, and googleTokenURI takes the same keys.
	legacyTokenURI = "https://accounts.google.com/o/oauth2/token"
	maxCredential  = 32 << 10
	minKeyBits     = 2048
	maxKeyBits     = 4096 // Google makes 2,048; signing with a huge one takes seconds of CPU
)

// projectID is the syntax of Google Cloud project ids, with the older form that
// has a domain in front. It also keeps the id safe within a URL's path.
var projectID = regexp.MustCompile(`^([a-z0-9][a-z0-9.-]{1,60}\.[a-z]{2,20}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)

// settings is what may be read back of a credential.
type settings struct {
	ProjectID    string `json:"project_id"`
	ClientEmail  string `json:"client_email"`
	PrivateKeyID string `json:"private_key_id"`
}

// secret is what is sealed: enough to sign for a token.
type secret struct {
	PrivateKey string `json:"private_key"`
	TokenURI   string `json:"token_uri"`
}

// serviceAccount is the file that the Firebase console hands out.
type serviceAccount struct {
	Type string `json:"type"`
	settings
	secret
}

// ParseCredential reads {"service_account": {…}} with the object of a service
// account's key file. Other kinds of Google credential are refused: they can
// name files, commands and hosts. The token endpoint must be Google's, since the
// file is a tenant's and the request would come from us. A key of another
// project than the one before is refused.
func (c *Channel) ParseCredential(input []byte, prior json.RawMessage) (channels.Credential, error) {
	var in map[string]json.RawMessage
	if len(input) > maxCredential || json.Unmarshal(input, &in) != nil || in == nil {
		return channels.Credential{}, problem.New(problem.Invalid,
			`The credential must be a JSON object of at most %d bytes: {"service_account": {…}}.`, maxCredential)
	}
	var faults problem.Fields
	for name := range in {
		if name != "service_account" && name != "expires_at" {
			faults.Add(name, "is unknown; a credential for FCM has service_account, the object of the key file, and expires_at")
		}
	}
	var expires time.Time
	if raw, ok := in["expires_at"]; ok && (json.Unmarshal(raw, &expires) != nil || !expires.IsZero() && !expires.After(c.now())) {
		faults.Add("expires_at", "must be a time that is still to come, such as 2027-01-31T00:00:00Z")
	}
	var a serviceAccount
	if raw, ok := in["service_account"]; !ok || json.Unmarshal(raw, &a) != nil {
		faults.Add("service_account", "must be the JSON object of the key file that the Firebase console made")
	}
	if err := faults.Err(); err != nil {
		return channels.Credential{}, err
	}
	if err := c.check(&a); err != nil {
		return channels.Credential{}, err
	}
	if len(prior) > 0 {
		var old settings
		if err := json.Unmarshal(prior, &old); err != nil {
			return channels.Credential{}, fmt.Errorf("settings of the prior credential: %w", err)
		}
		if old.ProjectID != a.ProjectID {
			return channels.Credential{}, refuse("project_id",
				"is %q, but the devices are registered with project %q, whose tokens no other project can reach; use a key of that project or make another app", a.ProjectID, old.ProjectID)
		}
	}
	shown, err := json.Marshal(a.settings)
	if err != nil {
		return channels.Credential{}, err
	}
	sealed, err := json.Marshal(a.secret)
	if err != nil {
		return channels.Credential{}, err
	}
	return channels.Credential{Settings: shown, Secret: sealed, ExpiresAt: expires.UTC()}, nil
}

// check refuses what cannot work, and chooses the token endpoint.
func (c *Channel) check(a *serviceAccount) error {
	for _, m := range []struct{ name, value string }{{"project_id", a.ProjectID}, {"client_email", a.ClientEmail}, {"private_key", a.PrivateKey}} {
		if m.value == "" {
			return refuse(m.name, "is missing; give the object of the key file as the Firebase console made it")
		}
	}
	if a.Type != "service_account" {
		return refuse("type", `must be "service_account"; make a key in the Firebase console under Project settings, Service accounts`)
	}
	if !projectID.MatchString(a.ProjectID) {
		return refuse("project_id", "is not a Google Cloud project id")
	}
	if !strings.Contains(a.ClientEmail, "@") || len(a.ClientEmail) > 320 {
		return refuse("client_email", "is not the e-mail address of a service account")
	}
	if len(a.PrivateKeyID) > 128 {
		return refuse("private_key_id", "is longer than any key id of Google's")
	}
	a.PrivateKey = channels.UnescapeLines(a.PrivateKey)
	if _, err := parseKey(a.PrivateKey); err != nil {
		return refuse("private_key", "%s", err)
	}
	switch uri := a.TokenURI; {
	case uri == "":
		a.TokenURI = c.tokenURIs[0]
	case uri == legacyTokenURI && slices.Contains(c.tokenURIs, googleTokenURI):
		a.TokenURI = googleTokenURI
	case !slices.Contains(c.tokenURIs, uri):
		return refuse("token_uri", "must be %s", c.tokenURIs[0])
	}
	return nil
}

func refuse(field, format string, args ...any) error {
	e := problem.AtField("service_account."+field, format, args...)
	e.Code, e.Detail = problem.CredentialRefused, "The service account cannot be used."
	return e
}

// parseKey reads a PEM with an RSA key, PKCS #8 or PKCS #1. Its errors hold
// nothing of the key.
func parseKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("is not PEM; copy it from the key file as it is, line breaks included")
	}
	var key *rsa.PrivateKey
	if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		key, _ = parsed.(*rsa.PrivateKey)
	} else if parsed, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		key = parsed
	}
	switch {
	case key == nil:
		return nil, fmt.Errorf("is not an RSA private key")
	case key.N.BitLen() < minKeyBits:
		return nil, fmt.Errorf("has %d bits; Google's keys have at least %d", key.N.BitLen(), minKeyBits)
	case key.N.BitLen() > maxKeyBits:
		return nil, fmt.Errorf("has %d bits; at most %d are taken", key.N.BitLen(), maxKeyBits)
	}
	return key, nil
}

// account is an opened credential.
type account struct {
	project, email, keyID, tokenURI string
	key                             *rsa.PrivateKey
}

func openAccount(cred channels.Credential) (account, error) {
	var (
		shown  settings
		sealed secret
	)
	if err := json.Unmarshal(cred.Settings, &shown); err != nil {
		return account{}, fmt.Errorf("fcm: settings of %v: %w", cred, err)
	}
	if err := json.Unmarshal(cred.Secret, &sealed); err != nil {
		return account{}, fmt.Errorf("fcm: secret of %v cannot be read", cred)
	}
	key, err := parseKey(sealed.PrivateKey)
	if err != nil {
		return account{}, fmt.Errorf("fcm: private key of %v %w", cred, err)
	}
	return account{project: shown.ProjectID, email: shown.ClientEmail, keyID: shown.PrivateKeyID, tokenURI: sealed.TokenURI, key: key}, nil
}
