// Package text checks texts that callers give: their length, that they are
// UTF-8 on one line, and what the id of a user looks like.
package text

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxUser is the longest user id in bytes.
const MaxUser = 255

// CheckUser refuses what cannot be a tenant's own id of a user: 1 to MaxUser
// bytes of printable UTF-8. The error is a sentence without the field's path,
// and never holds the id.
func CheckUser(id string) error {
	if err := Check(id, 1, MaxUser); err != nil {
		return err
	}
	if strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return errors.New("holds an invisible character; use printable ones")
	}
	return nil
}

// Check refuses a text of other than least to most bytes, or with bytes that
// are not UTF-8, or with control characters (line breaks are control characters).
// The error is a sentence without the field's path, and never holds the text.
func Check(s string, least, most int) error {
	switch {
	case len(s) < least && s == "":
		return errors.New("is missing")
	case len(s) < least:
		return fmt.Errorf("has %d bytes; at least %d are needed", len(s), least)
	case len(s) > most:
		return fmt.Errorf("has %d bytes; at most %d are allowed", len(s), most)
	case !utf8.ValidString(s):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("holds a control character, such as a tab or line break; leave it out")
	}
	return nil
}
