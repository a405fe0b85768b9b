package erasure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/queue"
)

// erasedText stands where a user's id was, in what is kept for others.
const erasedText = "[erased]"

// answer is a stored answer that names the user.
type answer struct {
	principal  ids.ID
	route, key string
	body       []byte
}

func (x *erasing) answers(ctx context.Context) (jobs.Progress, error) {
	rows, err := x.s.db.Lists().QueryContext(ctx, "SELECT principal_id,route,key,answer FROM idempotency WHERE tenant_id=?", x.j.Tenant)
	if err != nil {
		return jobs.Progress{}, fmt.Errorf("read answers: %w", err)
	}
	needle := quoted(x.look.User)
	var list []answer
	err = func() error {
		defer func() { _ = rows.Close() }()
		for len(list) < eraseLimit && rows.Next() {
			var a answer
			if err := rows.Scan(&a.principal, &a.route, &a.key, &a.body); err != nil {
				return err
			}
			if bytes.Contains(a.body, needle) || mentions(a.key, x.look.User) {
				a.body = bytes.Clone(a.body)
				list = append(list, a)
			}
		}
		return rows.Err()
	}()
	if err != nil {
		return jobs.Progress{}, fmt.Errorf("read answers: %w", err)
	}
	if len(list) == 0 {
		return x.write(ctx, eraseRest, nil)
	}
	x.more = len(list) == eraseLimit
	return x.write(ctx, eraseRest, func(t *db.Tx) error {
		for _, a := range list {
			body, clean := blank(a.body, x.look.User)
			key := []any{x.j.Tenant, a.principal, a.route, a.key}
			query, args := "UPDATE idempotency SET answer=? WHERE tenant_id=? AND principal_id=? AND route=? AND key=? AND answer=?", append(append([]any{body}, key...), a.body)
			if !clean || mentions(a.key, x.look.User) {
				query, args = queue.DeleteIdempotency, key
			}
			n, err := t.Affect(query, args...)
			if err != nil {
				return err
			}
			// Another node may have taken another user out of it meanwhile.
			x.more = x.more || n == 0
			x.e.Rows["idempotency"] += int(n)
		}
		return nil
	})
}

// quoted is a text as it stands in JSON.
func quoted(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a text can always be encoded
	return bytes.TrimSpace(b.Bytes())
}

// mentions tells whether a text that callers have chosen has the user's id in it,
// as a whole: order-7-of-alice mentions alice and 7, and not lice.
func mentions(text, user string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], user)
		if at < 0 {
			return false
		}
		at += from
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(user):])
		if !wordRune(before) && !wordRune(after) {
			return true
		}
		from = at + 1
	}
}

func wordRune(r rune) bool { return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r)) }

// blank replaces every text in a JSON document that is the user's id; false: it
// is no JSON.
func blank(doc []byte, user string) ([]byte, bool) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(blanked(v, user)); err != nil {
		return nil, false
	}
	return b.Bytes(), true
}

func blanked(v any, user string) any {
	switch v := v.(type) {
	case string:
		if v == user {
			return erasedText
		}
	case []any:
		for i := range v {
			v[i] = blanked(v[i], user)
		}
	case map[string]any:
		for k := range v {
			v[k] = blanked(v[k], user)
		}
	}
	return v
}
