package simulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
)

const (
	saltLength   = 16
	authLength   = 16
	pointLength  = 65
	tagLength    = 16
	headerLength = saltLength + 4 + 1 + pointLength
)

var errUndecryptable = errors.New("the message does not decrypt with the subscription's keys")

// record is an aes128gcm body taken apart.
type record struct {
	salt       []byte
	size       int
	sender     []byte // ECDH public key
	ciphertext []byte // with the tag
}

func splitRecord(body []byte) (record, bool) {
	if len(body) < headerLength || body[saltLength+4] != pointLength {
		return record{}, false
	}
	size := binary.BigEndian.Uint32(body[saltLength:])
	return record{salt: body[:saltLength], size: int(size), sender: body[saltLength+5 : headerLength],
		ciphertext: body[headerLength:]}, true
}

// decrypt opens a message as the browser would (RFC 8291 section 3, RFC 8188).
func decrypt(body []byte, private *ecdh.PrivateKey, auth []byte) ([]byte, error) {
	r, ok := splitRecord(body)
	if !ok {
		return nil, errUndecryptable
	}
	sender, err := ecdh.P256().NewPublicKey(r.sender)
	if err != nil {
		return nil, errUndecryptable
	}
	secret, err := private.ECDH(sender)
	if err != nil {
		return nil, errUndecryptable
	}
	info := "WebPush: info\x00" + string(private.PublicKey().Bytes()) + string(r.sender)
	ikm, err := hkdf.Key(sha256.New, secret, auth, info, sha256.Size)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, ikm, r.salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Key(sha256.New, ikm, r.salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, nonce, r.ciphertext, nil)
	if err != nil {
		return nil, errUndecryptable
	}
	return unpad(plain)
}

// unpad removes zeros and the delimiter of a last record, which is 2.
func unpad(plain []byte) ([]byte, error) {
	for i, p := range slices.Backward(plain) {
		switch p {
		case 0:
		case 2:
			return plain[:i], nil
		default:
			return nil, errUndecryptable
		}
	}
	return nil, errUndecryptable
}
