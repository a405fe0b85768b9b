package text_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/text"
)

func TestCheckUser(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"u1": true, "user@example.com": true, "Grüße 日本": true, strings.Repeat("é", 127): true,
		"": false, strings.Repeat("x", 256): false, "a\x7fb": false, "a\nb": false, "a\xffb": false, "a\u200bb": false, "a\u2028b": false,
	} {
		err := text.CheckUser(id)
		require.Equal(t, ok, err == nil, "%q: %v", id, err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for s, fault := range map[string]string{
		"":                      "is missing",
		"a":                     "has 1 bytes; at least 2 are needed",
		"ab":                    "",
		"é":                     "",
		strings.Repeat("x", 10): "",
		strings.Repeat("x", 11): "has 11 bytes; at most 10 are allowed",
		"a\xffb":                "is not valid UTF-8",
		"a\tb":                  "holds a control character, such as a tab or line break; leave it out",
		"a\u0085b":              "holds a control character, such as a tab or line break; leave it out",
		"a\u200bb":              "",
	} {
		err := text.Check(s, 2, 10)
		if fault == "" {
			require.NoError(t, err, "%q", s)
			continue
		}
		require.EqualError(t, err, fault, "%q", s)
	}
	require.NoError(t, text.Check("", 0, 10))
}
