package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		code       problem.Code
		path       string // of the first field; "": none
		says       string // in the detail or the field's
	}{
		{"empty", "", problem.Malformed, "", "no body"},
		{"blank", " \n", problem.Malformed, "", "no body"},
		{"not JSON", "hello", problem.Malformed, "", "not valid JSON"},
		{"cut", `{"title":"x"`, problem.Malformed, "", "ends before"},
		{"cut in a string", `{"title":"x`, problem.Malformed, "", "ends before"},
		{"something behind", `{"title":"x"} {}`, problem.Malformed, "", "not valid JSON"},
		{"trailing comma", `{"title":"x",}`, problem.Malformed, "", "not valid JSON"},
		{"comment", `{/*x*/}`, problem.Malformed, "", "not valid JSON"},
		{"NaN", `{"badge":NaN}`, problem.Malformed, "", "not valid JSON"},
		{"member twice", `{"title":"x","title":"y"}`, problem.Malformed, "title", "more than once"},
		{"member twice, escaped", `{"title":"x","t\u0069tle":"y"}`, problem.Malformed, "title", "more than once"},
		{"member twice inside", `{"data":{"a":[{"b":1,"b":2}]}}`, problem.Malformed, "data.a[0].b", "more than once"},
		{"invalid UTF-8", "{\"title\":\"\xff\"}", problem.Malformed, "", "UTF-8 at byte 10"},
		{"lone surrogate", `{"title":"\ud800"}`, problem.Malformed, "", "not valid JSON at byte 10: it has half of a surrogate pair there"},
		{"half a pair and more", `{"title":"\ud800s3cret"}`, problem.Malformed, "", "half of a surrogate pair"},
		{"half a pair and another", `{"title":"\ud800\u0073"}`, problem.Malformed, "", "half of a surrogate pair"},
		{"unknown escape", `{"title":"\xs3cret"}`, problem.Malformed, "", "an escape there"},
		{"byte order mark", "\ufeff{}", problem.Malformed, "", "not valid JSON"},
		{"too deep", `{"data":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, problem.Malformed, "", "more than 32 deep"},
		{"unknown", `{"titel":"x"}`, problem.Invalid, "titel", "not known"},
		{"another case", `{"Title":"x"}`, problem.Invalid, "Title", "not known"},
		{"unknown inside", `{"to":{"user":["u"]}}`, problem.Invalid, "to.user", "not known"},
		{"not an object", `[]`, problem.Invalid, "", "must be an object"},
		{"a string", `"x"`, problem.Invalid, "", "must be an object"},
		{"string wanted", `{"title":7}`, problem.Invalid, "title", "must be a string"},
		{"boolean wanted", `{"silent":"yes"}`, problem.Invalid, "silent", "must be true or false"},
		{"number wanted", `{"ttl":"60"}`, problem.Invalid, "ttl", "must be a whole number"},
		{"fraction", `{"ttl":1.5}`, problem.Invalid, "ttl", "must be a whole number"},
		{"number out of range", `{"ttl":92233720368547758070}`, problem.Invalid, "ttl", "out of range"},
		{"array wanted", `{"to":{"users":"u"}}`, problem.Invalid, "to.users", "must be an array"},
		{"object wanted", `{"to":["u"]}`, problem.Invalid, "to", "must be an object"},
		{"wrong element", `{"to":{"users":["a","b","c",4]}}`, problem.Invalid, "to.users[3]", "must be a string"},
		{"time", `{"send_at":"tomorrow"}`, problem.Invalid, "send_at", "RFC 3339"},
		{"time as a number", `{"send_at":1700000000}`, problem.Invalid, "send_at", "RFC 3339"},
		{"channel", `{"channels":["fcm","sms"]}`, problem.Invalid, "channels[1]", "fcm, apns, webpush or webhook"},
		{"channel as a key", `{"overrides":{"sms":{}}}`, problem.Invalid, "overrides.sms", "fcm, apns, webpush or webhook"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var into NotificationRequest
			err := decode([]byte(c.body), &into)
			var p *problem.Error
			require.ErrorAs(t, err, &p)
			require.Equal(t, c.code, p.Code, err)
			for _, piece := range []string{"s3cret", `\`, "'", "`"} {
				require.NotContains(t, p.Detail, piece, "nothing of the body")
			}
			if c.path == "" {
				require.Empty(t, p.Fields)
				require.Contains(t, p.Detail, c.says)
				return
			}
			require.Len(t, p.Fields, 1)
			require.Equal(t, c.path, p.Fields[0].Path)
			require.Contains(t, p.Fields[0].Detail, c.says)
		})
	}
}

func TestDecodeTakes(t *testing.T) {
	t.Parallel()
	var n NotificationRequest
	require.NoError(t, decode([]byte(` {"title":null,"data":{"10":{"a":[1e400]}},"send_at":"2026-01-02T03:04:05.678+02:00","channels":["apns"],"overrides":{"fcm":{"x":1}}} `), &n))
	require.Empty(t, n.Title)
	require.Equal(t, `{"10":{"a":[1e400]}}`, string(n.Data))
	require.Equal(t, "2026-01-02T01:04:05.678Z", timestamp(n.SendAt).Format("2006-01-02T15:04:05.999Z07:00"))
	require.NoError(t, decode([]byte(`{"data":`+strings.Repeat(`{"a":`, 31)+`"[[[{{{"`+strings.Repeat("}", 32)), &n), "brackets in strings do not count")
}

// FuzzDecode: whatever comes, the answer is a problem for the caller, never an
// internal error, and what is taken is JSON to the standard library too.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{aNotification, `{"to":{"users":[1]}}`, "{\"\xff\":1}", `{"overrides":{"fcm":null}}`, `{"a":"\u0000"`, `[[[[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var n NotificationRequest
		err := decode(body, &n)
		if err == nil {
			if !json.Valid(body) {
				t.Fatalf("taken: %q", body)
			}
			return
		}
		var p *problem.Error
		if !errors.As(err, &p) || (p.Code != problem.Malformed && p.Code != problem.Invalid) {
			t.Fatalf("%q: %v", body, err)
		}
	})
}
