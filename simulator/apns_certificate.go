package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"
)

// Extensions of Apple's push certificates.
var (
	oidSandbox    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidProduction = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidTopics     = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
)

// APNsCertificate is a push certificate with its key, as Apple gives one out.
type APNsCertificate struct {
	Leaf *x509.Certificate
	Key  *ecdsa.PrivateKey
	PEM  []byte // both
}

// NewCertificate makes a push certificate for topics, good until a time at production,
// the sandbox or both.
func (a APNsAccess) NewCertificate(topics []string, production, sandbox bool, until time.Time) (APNsCertificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return APNsCertificate{}, fmt.Errorf("making a push certificate: %w", err)
	}
	empty, _ := asn1.Marshal(asn1.NullRawValue)
	var extensions []pkix.Extension
	if production {
		extensions = append(extensions, pkix.Extension{Id: oidProduction, Value: empty})
	}
	if sandbox {
		extensions = append(extensions, pkix.Extension{Id: oidSandbox, Value: empty})
	}
	list := []any{}
	for _, t := range topics {
		list = append(list, asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte(t)}, []asn1.RawValue{{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte("app")}})
	}
	var body []byte
	for _, x := range list {
		b, err := asn1.Marshal(x)
		if err != nil {
			return APNsCertificate{}, fmt.Errorf("making a push certificate: %w", err)
		}
		body = append(body, b...)
	}
	all, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
	if err != nil {
		return APNsCertificate{}, fmt.Errorf("making a push certificate: %w", err)
	}
	extensions = append(extensions, pkix.Extension{Id: oidTopics, Value: all})
	now := a.service.core.now()
	ca := a.service.authority
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()),
		Subject:   pkix.Name{CommonName: "Apple Push Services: " + topics[0], OrganizationalUnit: []string{a.TeamID}},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: extensions}, ca.ca, key.Public(), ca.key)
	if err != nil {
		return APNsCertificate{}, fmt.Errorf("making a push certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return APNsCertificate{}, fmt.Errorf("making a push certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return APNsCertificate{}, fmt.Errorf("making a push certificate: %w", err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	return APNsCertificate{Leaf: leaf, Key: key, PEM: text}, nil
}

// certified judges a request that has no provider token but came over a connection with
// a certificate. known is false where there is none.
func (a *apnsService) certified(r *http.Request, sandbox bool) (reason, detail string, known bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || len(r.Header["Authorization"]) > 0 {
		return "", "", false
	}
	c := r.TLS.PeerCertificates[0]
	want := oidProduction
	if sandbox {
		want = oidSandbox
	}
	if !slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(want) }) {
		return "BadCertificateEnvironment", "It is for the other environment.", true
	}
	return "", "", true
}
