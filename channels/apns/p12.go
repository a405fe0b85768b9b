package apns

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// maxIterations is how often a .p12 file may have its keys derived anew: about a
// second of work. Those that are exported by macOS, Windows, OpenSSL and Java say
// 2,000 to 600,000.
const maxIterations = 1_000_000

// decodeP12 opens a .p12 file in base64.
func decodeP12(p12, password string) (key any, leaf *x509.Certificate, chain []*x509.Certificate, err error) {
	if len(p12) > maxCertificate {
		return nil, nil, nil, keyError("The file is too long for a push certificate.")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(p12), ""))
	if err != nil {
		return nil, nil, nil, keyError("The .p12 file must be in base64.")
	}
	if raw, err = boundP12(raw, password); err != nil {
		return nil, nil, nil, err
	}
	if key, leaf, chain, err = pkcs12.DecodeChain(raw, password); err != nil { // its text may hold parts of the file
		return nil, nil, nil, keyError("The .p12 file cannot be opened with this password; export the certificate together with its private key, and give the password of the export as password.")
	}
	return key, leaf, chain, nil
}

// The parts of a .p12 file (RFC 7292) that are looked at here.
type (
	pfx struct {
		Version  int
		AuthSafe struct {
			Type    asn1.ObjectIdentifier
			Content []byte `asn1:"tag:0,explicit"`
		}
		Mac asn1.RawValue `asn1:"optional"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	encryptedData struct {
		Version int
		Info    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   []byte `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue   `asn1:"tag:0,explicit"`
		Attributes []asn1.RawValue `asn1:"set,optional"`
	}
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbeParams struct { // also of PBKDF2
		Salt       asn1.RawValue
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	twoAlgorithms struct{ First, Second pkix.AlgorithmIdentifier } // PBES2 and PBMAC1
	macData       struct {
		Mac struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidPBE           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1} // begins the names of its kinds
	oidPBES2         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBMAC1        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidPBKDF2        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA256    = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidKeyBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedKey   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
)

const errUnreadableP12 = keyError("The .p12 file cannot be read; export the certificate together with its private key.")

// boundP12 makes of a .p12 file one that is opened in bounded time. Such a file says
// itself how often its keys are derived anew, and nothing ends that once it has begun.
// What is in the open is looked at. What is encrypted may hold another key, which only
// decrypting it would show; so the part with the key comes first, and pkcs12 refuses a
// second key before it derives anything for it. The file is authenticated anew, since
// that, too, is a derivation.
func boundP12(raw []byte, password string) ([]byte, error) {
	var file pfx
	var parts []asn1.RawValue
	if !decodes(raw, &file) || !decodes(file.AuthSafe.Content, &parts) {
		return nil, errUnreadableP12
	}
	keys := 0
	var first, rest []asn1.RawValue
	for _, part := range parts {
		n, err := keysInTheOpen(part.FullBytes)
		if err != nil {
			return nil, err
		}
		if keys += n; n > 0 {
			first = append(first, part)
		} else {
			rest = append(rest, part)
		}
	}
	if keys != 1 {
		return nil, errUnreadableP12
	}
	content, err := asn1.Marshal(append(first, rest...))
	if err != nil {
		return nil, errUnreadableP12
	}
	file.AuthSafe.Content = content
	if file.Mac.FullBytes, err = authenticate(content, password); err != nil {
		return nil, errUnreadableP12
	}
	out, err := asn1.Marshal(file)
	if err != nil {
		return nil, errUnreadableP12
	}
	return out, nil
}

func decodes(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

// keysInTheOpen counts the private keys that a part of a file has without being
// encrypted as a whole, and refuses what takes too long to decrypt.
func keysInTheOpen(der []byte) (keys int, err error) {
	var part contentInfo
	if !decodes(der, &part) {
		return 0, errUnreadableP12
	}
	var (
		encrypted encryptedData
		data      []byte
		bags      []safeBag
	)
	switch {
	case part.Type.Equal(oidEncryptedData) && decodes(part.Content.Bytes, &encrypted):
		return 0, checkIterations(encrypted.Info.Algorithm)
	case part.Type.Equal(oidData) && decodes(part.Content.Bytes, &data) && decodes(data, &bags):
	default:
		return 0, errUnreadableP12
	}
	for _, b := range bags {
		var key encryptedKey
		switch {
		case b.ID.Equal(oidKeyBag):
			keys++
		case b.ID.Equal(oidShroudedKey):
			if keys++; !decodes(b.Value.Bytes, &key) {
				return keys, errUnreadableP12
			}
			if err := checkIterations(key.Algorithm); err != nil {
				return keys, err
			}
		}
	}
	return keys, nil
}

func checkIterations(a pkix.AlgorithmIdentifier) error {
	var both twoAlgorithms
	switch {
	case a.Algorithm.Equal(oidPBES2):
		if !decodes(a.Parameters.FullBytes, &both) || !both.First.Algorithm.Equal(oidPBKDF2) {
			return errUnreadableP12
		}
		a = both.First
	case len(a.Algorithm) == len(oidPBE)+1 && slices.Equal(a.Algorithm[:len(oidPBE)], oidPBE):
	default:
		return errUnreadableP12
	}
	var p pbeParams
	switch {
	case !decodes(a.Parameters.FullBytes, &p):
		return errUnreadableP12
	case p.Iterations > maxIterations:
		return keyError("The .p12 file takes too long to open; export it again with at most 1,000,000 iterations.")
	}
	return nil
}

// authenticate makes the authentication of a file's content, with PBMAC1 (RFC 9579).
func authenticate(content []byte, password string) ([]byte, error) {
	salt := sha256.Sum256(content)
	key, err := pbkdf2.Key(sha256.New, password, salt[:], 1, sha256.Size)
	if err != nil {
		return nil, err
	}
	octets, err := asn1.Marshal(salt[:])
	if err != nil {
		return nil, err
	}
	hash := pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256}
	derivation, err := asn1.Marshal(pbeParams{Salt: asn1.RawValue{FullBytes: octets}, Iterations: 1, KeyLength: sha256.Size, PRF: hash})
	if err != nil {
		return nil, err
	}
	params, err := asn1.Marshal(twoAlgorithms{pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: derivation}}, hash})
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	var m macData
	m.Mac.Algorithm = pkix.AlgorithmIdentifier{Algorithm: oidPBMAC1, Parameters: asn1.RawValue{FullBytes: params}}
	m.Mac.Digest, m.Salt, m.Iterations = mac.Sum(nil), salt[:], 1
	return asn1.Marshal(m)
}
