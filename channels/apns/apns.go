// Package apns is the channel to Apple devices: APNs over HTTP/2 with provider
// tokens. It builds on github.com/sideshow/apns2, and keeps its own
// connections, JWT renewal and reading of answers.
//
// Files: apns.go is the channel, sender.go its sender, message.go and
// override.go make the payload, purpose.go says which tokens a message is for, classify.go and reasons.go turn answers into
// verdicts, credential.go reads keys, token.go signs, key_reach.go knows
// which gateways take a key, gateway.go keeps connections, exchange.go makes one
// request.
package apns

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/sideshow/apns2"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// Options configure New. The zero value is for Apple's service.
type Options struct {
	ProductionURL string         // default https://api.push.apple.com
	SandboxURL    string         // default https://api.sandbox.push.apple.com
	RootCAs       *x509.CertPool // nil: the system's
	// Conns bounds the connections of one credential version to one
	// environment; default 2. More than one is opened only under load.
	Conns int
	// Now is the clock for deadlines and for the age of JWTs; default time.Now.
	// A JWT always says the real time.
	Now func() time.Time
}

// Channel sends by APNs.
type Channel struct {
	hosts    map[channels.Environment]host
	err      error // a URL that is none
	maxConns int
	now      func() time.Time
	signers  *signers
}

var (
	_ channels.Channel = (*Channel)(nil)
	_ channels.Sender  = (*sender)(nil)
)

// New makes the channel. A bad URL in o shows itself in Open.
func New(o Options) *Channel {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Conns <= 0 {
		o.Conns = 2
	}
	config := &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
	production, err1 := newHost(cmp.Or(o.ProductionURL, apns2.HostProduction), config)
	sandbox, err2 := newHost(cmp.Or(o.SandboxURL, apns2.HostDevelopment), config)
	return &Channel{
		hosts:    map[channels.Environment]host{channels.Production: production, channels.Sandbox: sandbox},
		err:      errors.Join(err1, err2),
		maxConns: o.Conns,
		now:      o.Now,
		signers:  &signers{now: o.Now, all: map[signerID]*signer{}},
	}
}

// Kind is channels.APNs.
func (*Channel) Kind() channels.Kind { return channels.APNs }

// deviceToken is deliberately open in length: Apple tells not to rely on it.
var deviceToken = regexp.MustCompile(`^([0-9a-f]{2}){32,100}$`)

// CheckTarget takes a hexadecimal device token and its environment, auto where
// that is not known, and gives the token back in lower case.
func (*Channel) CheckTarget(t channels.Target) (channels.Target, error) {
	var faults problem.Fields
	t.Address = strings.ToLower(strings.TrimSpace(t.Address))
	if t.Kind != channels.APNsToken {
		faults.Add("kind", "must be %s for this channel", channels.APNsToken)
	}
	if !deviceToken.MatchString(t.Address) {
		faults.Add("address", "must be the device token as 64 to 200 hexadecimal digits")
	}
	switch t.Environment {
	case channels.Production, channels.Sandbox, channels.Auto:
	case "":
		t.Environment = channels.Auto
	default:
		faults.Add("environment", "must be production, sandbox or auto")
	}
	if err := faults.Err(); err != nil {
		return channels.Target{}, err
	}
	return t, nil
}

// Open makes a sender. It signs the first JWT, so a key that cannot sign is
// found here.
func (c *Channel) Open(cred channels.Credential) (channels.Sender, error) {
	if c.err != nil {
		return nil, c.err
	}
	var set settings
	if err := json.Unmarshal(cred.Settings, &set); err != nil {
		return nil, fmt.Errorf("apns: settings of %v: %w", cred, err)
	}
	if err := set.check(); err != nil {
		return nil, err
	}
	var (
		jwt         *signer
		certificate *tls.Certificate
		err         error
	)
	if set.Certificate != nil {
		certificate, err = openCertificate(cred.Secret)
	} else {
		jwt, err = c.openKey(cred.Secret, &set)
	}
	if err != nil {
		return nil, err
	}
	s := &sender{channel: c, signer: jwt, until: cred.ExpiresAt, topic: set.Topics[0], gateways: map[channels.Environment]*gateway{}, reach: newKeyReach()}
	for env, h := range c.hosts {
		if set.Environment == "" || set.Environment == env {
			s.gateways[env] = &gateway{dial: func(ctx context.Context) (*http2.ClientConn, error) { return h.dial(ctx, certificate) }, maxConns: c.maxConns}
		}
	}
	return s, nil
}

// openKey gives the signer of a stored key.
func (c *Channel) openKey(secret []byte, set *settings) (*signer, error) {
	_, key, err := parseKey(secret)
	if err != nil {
		return nil, refused("key", err.Error())
	}
	jwt, err := c.signers.acquire(set.TeamID, set.KeyID, key)
	if err != nil {
		return nil, fmt.Errorf("apns: %w", err)
	}
	return jwt, nil
}
