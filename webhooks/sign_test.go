package webhooks

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

type vector struct {
	Name, Scheme, Secret, ID string
	Timestamp                int64
	Body, Signature          string
}

func (v vector) header() http.Header {
	return headers(v.ID, v.Timestamp, v.Signature)
}

func headers(id string, at int64, signature string) http.Header {
	h := http.Header{}
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, strconv.FormatInt(at, 10))
	h.Set(HeaderSignature, signature)
	return h
}

func vectors(t testing.TB) []vector {
	raw, err := os.ReadFile("testdata/standard-webhooks.json")
	require.NoError(t, err)
	var file struct{ Upstream, Derived []vector }
	require.NoError(t, json.Unmarshal(raw, &file))
	all := slices.DeleteFunc(append(file.Upstream, file.Derived...), func(v vector) bool { return v.Scheme != "v1" })
	require.Len(t, all, 5)
	return all
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		key, err := ParseSecret(v.Secret)
		require.NoError(t, err)
		at := time.Unix(v.Timestamp, 0)

		got, err := Sign([][]byte{key}, v.ID, at.Add(999*time.Millisecond), []byte(v.Body))
		require.NoError(t, err)
		require.Equal(t, v.Signature, got, v.Name)
		require.NoError(t, Verify([][]byte{key}, v.header(), []byte(v.Body), at, 0), v.Name)
		require.ErrorIs(t, Verify([][]byte{key}, v.header(), []byte(v.Body+" "), at, 0), ErrSignature, v.Name)
	}
}

func TestRotationPair(t *testing.T) {
	t.Parallel()
	all := vectors(t)
	i := slices.IndexFunc(all, func(v vector) bool { return v.Name == "derived-spec-body-current-key" })
	current, old := all[i], all[i+1]
	keys := make([][]byte, 2)
	keys[0], _ = ParseSecret(current.Secret)
	keys[1], _ = ParseSecret(old.Secret)
	at, body := time.Unix(current.Timestamp, 0), []byte(current.Body)

	both, err := Sign(keys, current.ID, at, body)
	require.NoError(t, err)
	require.Equal(t, current.Signature+" "+old.Signature, both)
	for _, held := range [][][]byte{keys[:1], keys[1:], keys} {
		require.NoError(t, Verify(held, headers(current.ID, current.Timestamp, both), body, at, 0))
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	v := vectors(t)[0]
	key, _ := ParseSecret(v.Secret)
	keys, at, body := [][]byte{key}, time.Unix(v.Timestamp, 0), []byte(v.Body)
	change := func(name, value string) http.Header {
		h := v.header()
		if value == "" {
			h.Del(name)
		} else {
			h.Set(name, value)
		}
		return h
	}
	for name, c := range map[string]struct {
		keys   [][]byte
		header http.Header
		body   string
		now    time.Time
		want   error
	}{
		"no keys":           {nil, v.header(), v.Body, at, ErrKey},
		"empty key":         {[][]byte{{}}, v.header(), v.Body, at, ErrKey},
		"short key":         {[][]byte{key, key[:23]}, v.header(), v.Body, at, ErrKey},
		"no id":             {keys, change(HeaderID, ""), v.Body, at, ErrHeader},
		"dotted id":         {keys, change(HeaderID, "a.b"), v.Body, at, ErrHeader},
		"other id":          {keys, change(HeaderID, "msg_other"), v.Body, at, ErrSignature},
		"no signature":      {keys, change(HeaderSignature, ""), v.Body, at, ErrHeader},
		"blank signature":   {keys, change(HeaderSignature, " "), v.Body, at, ErrSignature},
		"other version":     {keys, change(HeaderSignature, "v2"+v.Signature[2:]), v.Body, at, ErrSignature},
		"no version":        {keys, change(HeaderSignature, v.Signature[3:]), v.Body, at, ErrSignature},
		"no timestamp":      {keys, change(HeaderTimestamp, ""), v.Body, at, ErrHeader},
		"signed timestamp":  {keys, change(HeaderTimestamp, "+1614265330"), v.Body, at, ErrHeader},
		"zero in front":     {keys, change(HeaderTimestamp, "01614265330"), v.Body, at, ErrHeader},
		"fraction":          {keys, change(HeaderTimestamp, "1614265330.0"), v.Body, at, ErrHeader},
		"beyond int64":      {keys, change(HeaderTimestamp, "99999999999999999999"), v.Body, at, ErrHeader},
		"wraps around":      {keys, change(HeaderTimestamp, "9223372036854775807"), v.Body, at, ErrHeader},
		"far future":        {keys, change(HeaderTimestamp, "999999999999"), v.Body, at, ErrTooNew},
		"far past":          {keys, change(HeaderTimestamp, "-99999999999"), v.Body, at, ErrTooOld},
		"other timestamp":   {keys, change(HeaderTimestamp, "1614265331"), v.Body, at, ErrSignature},
		"too old":           {keys, v.header(), v.Body, at.Add(Tolerance + 1), ErrTooOld},
		"too new":           {keys, v.header(), v.Body, at.Add(-Tolerance - 1), ErrTooNew},
		"body written anew": {keys, v.header(), `{"test":2432232314}`, at, ErrSignature},
		"just not too old":  {keys, v.header(), v.Body, at.Add(Tolerance), nil},
		"just not too new":  {keys, v.header(), v.Body, at.Add(-Tolerance), nil},
		"one of many":       {keys, change(HeaderSignature, "v1a,AAAA v1,AAAA  "+v.Signature), v.Body, at, nil},
	} {
		require.ErrorIs(t, Verify(c.keys, c.header, []byte(c.body), c.now, 0), c.want, name)
	}
	require.ErrorIs(t, Verify(keys, v.header(), body, at.Add(2*time.Second), time.Second), ErrTooOld)
	require.NoError(t, Verify(keys, v.header(), body, at.Add(time.Hour), 2*time.Hour))
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	key, _ := NewSecret()
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		keys [][]byte
		id   string
		want error
	}{
		{nil, "ntf_1", ErrKey},
		{[][]byte{nil}, "ntf_1", ErrKey},
		{[][]byte{key, key[:MinSecret-1]}, "ntf_1", ErrKey},
		{[][]byte{key}, "", ErrID},
		{[][]byte{key}, "ntf.1", ErrID},
	} {
		out, err := Sign(c.keys, c.id, now, nil)
		require.ErrorIs(t, err, c.want)
		require.Empty(t, out)
	}
}

// The published library has to accept what we sign, and we what it signs.
func TestSecondOpinion(t *testing.T) {
	t.Parallel()
	key, shown := NewSecret()
	theirs, err := standardwebhooks.NewWebhook(shown)
	require.NoError(t, err)
	now := time.Now() // the library reads the clock itself
	body := []byte(`{"type":"order.shipped","data":{"name":"Žluťoučký 🔔"}}`)
	old, _ := NewSecret()

	ours, err := Sign([][]byte{old, key}, "ntf_0d1kq3w8r000c", now, body)
	require.NoError(t, err)
	h := headers("ntf_0d1kq3w8r000c", now.Unix(), ours)
	require.NoError(t, theirs.Verify(body, h))
	require.Error(t, theirs.Verify(body[1:], h))

	signed, err := theirs.Sign("ntf_0d1kq3w8r000c", now, body)
	require.NoError(t, err)
	require.NoError(t, Verify([][]byte{old, key}, headers("ntf_0d1kq3w8r000c", now.Unix(), signed), body, now, 0))
}

func FuzzVerify(f *testing.F) {
	key := []byte(strings.Repeat("k", 32))
	keys, now := [][]byte{key}, time.Unix(1_700_000_000, 0)
	good, _ := Sign(keys, "ntf_1", now, []byte("{}"))
	f.Add("ntf_1", "1700000000", good, []byte("{}"))
	f.Add("ntf_1", "1700000000", good+" "+good, []byte("{} "))
	f.Add("ntf_1.1700000000", "", "v1,", []byte(nil))
	f.Fuzz(func(t *testing.T, id, stamp, sig string, body []byte) {
		h := http.Header{HeaderID: {id}, HeaderTimestamp: {stamp}, HeaderSignature: {sig}}
		if Verify(keys, h, body, now, 0) != nil {
			return
		}
		seconds, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			t.Fatalf("timestamp %q was accepted", stamp)
		}
		want, err := Sign(keys, id, time.Unix(seconds, 0), body)
		if err != nil || !slices.Contains(strings.Fields(sig), want) {
			t.Fatalf("accepted a request that signing does not make: id %q, timestamp %q", id, stamp)
		}
	})
}
