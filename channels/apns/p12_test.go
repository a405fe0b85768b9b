package apns

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"
)

// TestEveryExportIsOpened: whatever program made it.
func TestEveryExportIsOpened(t *testing.T) {
	t.Parallel()
	_, cert, _ := certified(t, true, true, time.Now().AddDate(1, 0, 0))
	for name, e := range map[string]*pkcs12.Encoder{"macOS": pkcs12.LegacyRC2, "Windows": pkcs12.LegacyDES, "OpenSSL 3": pkcs12.Modern2023, "more rounds": pkcs12.Modern2023.WithIterations(20_000)} {
		raw, err := e.Encode(cert.Key, cert.Leaf, nil, "pässword")
		require.NoError(t, err, name)
		key, leaf, chain, err := decodeP12(base64.StdEncoding.EncodeToString(raw), "pässword")
		require.NoError(t, err, name)
		require.Equal(t, cert.Leaf.Raw, leaf.Raw, name)
		require.NoError(t, matches(key, leaf), name)
		require.Empty(t, chain)
		_, _, _, err = decodeP12(base64.StdEncoding.EncodeToString(raw), "password")
		require.ErrorContains(t, err, "with this password", name)
	}
}

func algorithm(t *testing.T, id asn1.ObjectIdentifier, params any) pkix.AlgorithmIdentifier {
	t.Helper()
	return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: der(t, params)}}
}

func der(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	require.NoError(t, err)
	return b
}

// TestAFileCannotAskForMuchWork: iterations are the file's own to say.
func TestAFileCannotAskForMuchWork(t *testing.T) {
	t.Parallel()
	salt := asn1.RawValue{FullBytes: der(t, []byte("saltsalt"))}
	legacy := append(append(asn1.ObjectIdentifier{}, oidPBE...), 3)
	kdf := func(n int) pkix.AlgorithmIdentifier {
		return algorithm(t, oidPBKDF2, pbeParams{Salt: salt, Iterations: n, PRF: pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256}})
	}
	none := pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256}
	for name, x := range map[string]struct {
		algorithm pkix.AlgorithmIdentifier
		want      string
	}{
		"legacy":           {algorithm(t, legacy, pbeParams{Salt: salt, Iterations: 2048}), ""},
		"legacy, endless":  {algorithm(t, legacy, pbeParams{Salt: salt, Iterations: 1 << 50}), "too long"},
		"pbes2":            {algorithm(t, oidPBES2, twoAlgorithms{kdf(maxIterations), none}), ""},
		"pbes2, endless":   {algorithm(t, oidPBES2, twoAlgorithms{kdf(maxIterations + 1), none}), "too long"},
		"pbes2, other kdf": {algorithm(t, oidPBES2, twoAlgorithms{none, none}), "cannot be read"},
		"another kind":     {algorithm(t, oidPBKDF2, pbeParams{Salt: salt, Iterations: 1}), "cannot be read"},
		"nothing":          {pkix.AlgorithmIdentifier{Algorithm: legacy}, "cannot be read"},
	} {
		err := checkIterations(x.algorithm)
		if x.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, x.want, name)
	}
}

// TestAFileThatTakesTooLongIsNotOpened: its certificates and its key are asked about
// each; how it is authenticated does not matter.
func TestAFileThatTakesTooLongIsNotOpened(t *testing.T) {
	t.Parallel()
	_, cert, _ := certified(t, true, true, time.Now().AddDate(1, 0, 0))
	fair, endless := []byte{2, 3, 1, 0, 0}, []byte{2, 3, 0x7f, 0xff, 0xff} // as ASN.1
	for name, e := range map[string]*pkcs12.Encoder{"modern": pkcs12.Modern, "legacy": pkcs12.LegacyDES} {
		raw, err := e.WithIterations(1<<16).Encode(cert.Key, cert.Leaf, nil, "secret")
		require.NoError(t, err)
		refused, opened := 0, 0
		for from := 0; ; {
			at := bytes.Index(raw[from:], fair)
			if at < 0 {
				break
			}
			bomb := bytes.Clone(raw)
			copy(bomb[from+at:], endless)
			from += at + len(fair)
			if _, _, _, err = decodeP12(base64.StdEncoding.EncodeToString(bomb), "secret"); err == nil {
				opened++
				continue
			}
			require.ErrorContains(t, err, "takes too long", name)
			refused++
		}
		require.Equal(t, 2, refused, name)
		require.Equal(t, 1, opened, name)
	}
}

// TestASecondKeyIsNotDecrypted: one whose derivation would never end hides among the
// certificates, where only decrypting them shows it.
func TestASecondKeyIsNotDecrypted(t *testing.T) {
	t.Parallel()
	_, cert, _ := certified(t, true, true, time.Now().AddDate(1, 0, 0))
	raw, err := pkcs12.Modern.Encode(cert.Key, cert.Leaf, nil, "a")
	require.NoError(t, err)
	var file pfx
	var parts []asn1.RawValue
	require.True(t, decodes(raw, &file) && decodes(file.AuthSafe.Content, &parts))
	require.Len(t, parts, 2)

	salt := asn1.RawValue{FullBytes: der(t, []byte("saltsalt"))}
	explicit := func(der []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}
	}
	kdf := func(n int) pkix.AlgorithmIdentifier {
		return algorithm(t, oidPBKDF2, pbeParams{Salt: salt, Iterations: n, PRF: pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256}})
	}
	iv := bytes.Repeat([]byte{7}, aes.BlockSize)
	aes256 := algorithm(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, iv)
	endless := der(t, encryptedKey{algorithm(t, oidPBES2, twoAlgorithms{kdf(1 << 50), aes256}), make([]byte, 32)})
	hidden := der(t, []safeBag{{ID: oidShroudedKey, Value: explicit(endless)}})
	pad := aes.BlockSize - len(hidden)%aes.BlockSize
	hidden = append(hidden, bytes.Repeat([]byte{byte(pad)}, pad)...)
	key, err := pbkdf2.Key(sha256.New, "a", []byte("saltsalt"), 1, 32)
	require.NoError(t, err)
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(hidden, hidden)
	var e encryptedData
	e.Info.Type, e.Info.Algorithm, e.Info.Content = oidData, algorithm(t, oidPBES2, twoAlgorithms{kdf(1), aes256}), hidden
	parts[0] = asn1.RawValue{FullBytes: der(t, contentInfo{Type: oidEncryptedData, Content: explicit(der(t, e))})}
	file.AuthSafe.Content = der(t, parts)
	file.Mac.FullBytes, err = authenticate(file.AuthSafe.Content, "a")
	require.NoError(t, err)
	_, _, _, err = decodeP12(base64.StdEncoding.EncodeToString(der(t, file)), "a")
	require.ErrorContains(t, err, "cannot be opened")

	bounded, err := boundP12(der(t, file), "a")
	require.NoError(t, err)
	_, _, err = pkcs12.Decode(bounded, "a")
	require.ErrorContains(t, err, "exactly one key bag", "it was found, and left alone")

	parts[0] = parts[1] // two keys in the open
	file.AuthSafe.Content = der(t, parts)
	_, err = boundP12(der(t, file), "a")
	require.Error(t, err)
}

// FuzzP12: what people send is opened or refused in a sentence, soon.
func FuzzP12(f *testing.F) {
	f.Add([]byte{}, "")
	f.Add([]byte{0x30, 0x80}, "a")
	f.Fuzz(func(t *testing.T, raw []byte, password string) {
		_, _, _, err := decodeP12(base64.StdEncoding.EncodeToString(raw), password)
		if err != nil {
			_, ok := err.(keyError) //nolint:errorlint // it is not wrapped
			require.True(t, ok, err)
		}
	})
}
