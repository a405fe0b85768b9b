package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

const (
	maxCertificate = 64 << 10 // bytes of the file, as PEM or in base64
	maxRSABits     = 4096     // each connection signs with it once
)

// Extensions of Apple's push certificates: which gateways take it, and its topics.
var (
	oidSandbox    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidProduction = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidTopics     = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
	oidUserID     = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
)

// certificateSettings is what may be read back of a certificate.
type certificateSettings struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
}

// parseCertificate reads a push certificate with its private key, from PEM or from a
// .p12 file in base64. Its settings follow from the certificate, but where the caller
// narrows them. The secret is both as PEM.
func parseCertificate(text, p12, password string, in *settings) (secret []byte, expires time.Time, err error) {
	member := "certificate"
	var key any
	var leaf *x509.Certificate
	var chain []*x509.Certificate
	switch {
	case text != "" && p12 != "":
		return nil, expires, refused("p12", "Give the certificate once, as certificate (PEM) or as p12.")
	case p12 != "":
		member = "p12"
		key, leaf, chain, err = decodeP12(p12, password)
	default:
		key, leaf, chain, err = decodePEM(channels.UnescapeLines(text))
	}
	if err == nil {
		err = matches(key, leaf)
	}
	if err != nil {
		return nil, expires, refused(member, err.Error())
	}
	if err := in.fromCertificate(member, leaf); err != nil {
		return nil, expires, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, expires, refused(member, "The private key is of a kind that cannot be used.")
	}
	var out bytes.Buffer
	for _, c := range append([]*x509.Certificate{leaf}, chain...) {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes everything
	}
	_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return out.Bytes(), leaf.NotAfter.UTC(), nil
}

func decodePEM(text string) (key any, leaf *x509.Certificate, chain []*x509.Certificate, err error) {
	if len(text) > maxCertificate {
		return nil, nil, nil, keyError("The file is too long for a push certificate.")
	}
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, nil, keyError("The certificate is damaged.")
			}
			chain = append(chain, c)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			err = keyError("encrypted")
		}
		if err != nil {
			return nil, nil, nil, keyError("The private key cannot be read; it must be PEM and not encrypted.")
		}
	}
	if key == nil || len(chain) == 0 {
		return nil, nil, nil, keyError("A certificate and its private key are needed, both in PEM, one after the other.")
	}
	for i, c := range chain { // whichever the key belongs to
		if matches(key, c) == nil {
			return key, c, slices.Delete(slices.Clone(chain), i, i+1), nil
		}
	}
	return key, chain[0], chain[1:], nil
}

// matches tells whether a private key is that of a certificate, and of bearable size.
func matches(key any, c *x509.Certificate) error {
	ok := false
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if n := k.N.BitLen(); n > maxRSABits {
			return keyError(fmt.Sprintf("The private key has %d bits; at most %d are taken.", n, maxRSABits))
		}
		ok = k.PublicKey.Equal(c.PublicKey)
	case *ecdsa.PrivateKey:
		ok = k.PublicKey.Equal(c.PublicKey)
	}
	if !ok {
		return keyError("The private key does not belong to the certificate.")
	}
	return nil
}

// fromCertificate takes the settings from a certificate.
func (s *settings) fromCertificate(member string, c *x509.Certificate) error {
	var sandbox, production bool
	topics := []string{}
	for _, e := range c.Extensions {
		switch {
		case e.Id.Equal(oidSandbox):
			sandbox = true
		case e.Id.Equal(oidProduction):
			production = true
		case e.Id.Equal(oidTopics):
			topics = append(topics, topicsOf(e.Value)...)
		}
	}
	uid := ""
	for _, n := range c.Subject.Names {
		if n.Type.Equal(oidUserID) {
			uid, _ = n.Value.(string)
		}
	}
	if len(topics) == 0 && uid != "" {
		topics = []string{uid}
	}
	if !sandbox && !production {
		return refused(member, "This is no push certificate of Apple: it says for no gateway that it is meant for it.")
	}
	switch only := onlyOne(sandbox, production); {
	case s.Environment == "" && only != "":
		s.Environment = only
	case only != "" && s.Environment != only:
		return refused("environment", fmt.Sprintf("The certificate is for %s alone.", only))
	}
	if len(s.Topics) == 0 {
		for _, t := range topics { // what a push type appends is no part of one
			if isBundleID(t) && !slices.Contains(s.Topics, t) && !slices.ContainsFunc(pushTypes(), func(p apns2.EPushType) bool {
				return topicSuffix(p) != "" && strings.HasSuffix(t, topicSuffix(p))
			}) {
				s.Topics = append(s.Topics, t)
			}
		}
	} else if len(topics) > 0 {
		var faults problem.Fields
		for i, t := range s.Topics {
			if !slices.Contains(topics, t) {
				faults.Add(fmt.Sprintf("topics[%d]", i), "The certificate is not for this bundle id; it is for %s.", strings.Join(topics, ", "))
			}
		}
		if err := faults.Err(); err != nil {
			return err
		}
	}
	if len(c.Subject.OrganizationalUnit) > 0 {
		s.TeamID = c.Subject.OrganizationalUnit[0]
	}
	s.Certificate = &certificateSettings{Subject: c.Subject.CommonName, NotAfter: c.NotAfter.UTC()}
	return nil
}

func onlyOne(sandbox, production bool) channels.Environment {
	switch {
	case sandbox && !production:
		return channels.Sandbox
	case production && !sandbox:
		return channels.Production
	}
	return ""
}

// topicsOf reads the extension that lists topics, each with what kind it is.
func topicsOf(der []byte) (out []string) {
	var list asn1.RawValue
	if _, err := asn1.Unmarshal(der, &list); err != nil {
		return nil
	}
	for rest := list.Bytes; len(rest) > 0; {
		var v asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil {
			return out
		}
		if v.Tag == asn1.TagUTF8String && v.Class == asn1.ClassUniversal {
			out = append(out, string(v.Bytes))
		}
	}
	return out
}

// openCertificate makes what a connection presents.
func openCertificate(secret []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(secret, secret)
	if err != nil {
		return nil, errors.New("apns: the stored certificate cannot be read") // its text may hold parts of it
	}
	return &c, nil
}
