package webpush

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Sizes of RFC 8188 and RFC 8291, in octets.
const (
	saltSize   = 16
	pointSize  = 65 // an uncompressed P-256 point
	authSize   = 16
	headerSize = saltSize + 4 + 1 + pointSize // RFC 8188 section 2.1
	tagSize    = 16
	overhead   = headerSize + 1 + tagSize // 1: the delimiter

	// MaxBody is the largest body that every push service must take (RFC 8030
	// section 7.2).
	MaxBody = 4096
	// MaxPlaintext is the largest message that fits.
	MaxPlaintext = MaxBody - overhead

	// padStep and padBelow hide a message's length roughly: a body shorter than
	// padBelow is padded to a multiple of padStep. More padding would not reach
	// Firefox for Android, whose bridge takes bodies up to about 2,700 octets.
	padStep  = 256
	padBelow = 2048
)

var (
	errAuth  = errors.New("webpush: the auth secret is not 16 octets long")
	errLarge = errors.New("webpush: the message is larger than a push service must take")
)

// padding is how many octets of zeros a message of n octets gets.
func padding(n int) int {
	if body := overhead + n; body < padBelow {
		return (padStep - body%padStep) % padStep
	}
	return 0
}

// encryption is one message's key agreement. eph and salt are fresh for every
// message and every subscription (RFC 8291 section 3.1), which is why nothing
// of it can be shared or kept.
type encryption struct {
	eph  *ecdh.PrivateKey
	salt []byte
}

func newEncryption() (encryption, error) {
	eph, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return encryption{}, err
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	return encryption{eph: eph, salt: salt}, nil
}

// seal gives the aes128gcm body: one record of plain, the delimiter and pad
// zeros. plain is only read.
func (e encryption) seal(plain, p256dh, auth []byte, pad int) ([]byte, error) {
	switch {
	case len(auth) != authSize:
		return nil, errAuth
	case overhead+len(plain)+pad > MaxBody:
		return nil, errLarge
	}
	ua, err := ecdh.P256().NewPublicKey(p256dh) // checks that the point is on the curve
	if err != nil {
		return nil, err
	}
	secret, err := e.eph.ECDH(ua)
	if err != nil {
		return nil, err
	}
	as := e.eph.PublicKey().Bytes()
	gcm, nonce, err := recordCipher(keyInput{secret: secret, auth: auth, ua: p256dh, as: as, salt: e.salt})
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, overhead+len(plain)+pad)
	out = append(out, e.salt...)
	out = binary.BigEndian.AppendUint32(out, MaxBody) // record size: one record, whatever its length
	out = append(append(out, byte(len(as))), as...)
	out = append(append(out, plain...), 2) // 2: the last record (RFC 8188 section 2)
	out = out[:len(out)+pad]               // make zeroed it
	return gcm.Seal(out[:headerSize], nonce, out[headerSize:], nil), nil
}

type keyInput struct{ secret, auth, ua, as, salt []byte }

// recordCipher derives the content key and the nonce: RFC 8291 section 3.4,
// then RFC 8188 sections 2.2 and 2.3.
func recordCipher(k keyInput) (cipher.AEAD, []byte, error) {
	prkKey, err := hkdf.Extract(sha256.New, k.secret, k.auth)
	if err != nil {
		return nil, nil, err
	}
	ikm, err := hkdf.Expand(sha256.New, prkKey, "WebPush: info\x00"+string(k.ua)+string(k.as), sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	prk, err := hkdf.Extract(sha256.New, ikm, k.salt)
	if err != nil {
		return nil, nil, err
	}
	key, err := hkdf.Expand(sha256.New, prk, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, nil, err
	}
	nonce, err := hkdf.Expand(sha256.New, prk, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	gcm, err := cipher.NewGCM(block)
	return gcm, nonce, err
}
