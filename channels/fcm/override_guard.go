package fcm

import (
	"slices"
	"strings"
	"unicode"
)

// guard says why an unknown member may not pass even where validation is
// lenient, "" where it may: what decides where a message goes, what Carillon
// writes itself, and other spellings of either.
func guard(path, name string, value any, rules map[string]rule) string {
	const headers = ".headers"
	if inHeaders := strings.HasSuffix(path, headers); inHeaders {
		return guardHeader(name, value, rules)
	}
	snake := snakeCase(name)
	if _, known := rules[snake]; known && snake != name {
		return "write it as " + snake // Google takes both, and then there would be two
	}
	if path == overridePath && slices.Contains([]string{"token", "fid", "topic", "condition", "name", "data", "validate_only"}, snake) {
		return "is set by Carillon: it follows from to, data and dry_run"
	}
	return ""
}

// guardHeader does the same for headers, whose names have no case.
func guardHeader(name string, value any, rules map[string]rule) string {
	for known := range rules {
		if known != name && strings.EqualFold(known, name) {
			return "write it as " + known
		}
	}
	lower := strings.ToLower(name)
	if slices.Contains([]string{"apns-topic", "apns-id", "authorization", "crypto-key", "encryption", "content-type"}, lower) ||
		strings.HasPrefix(lower, "content-") || strings.HasPrefix(lower, ":") {
		return "is set by Carillon, Google or the app's registration"
	}
	if _, isString := value.(string); !isString && value != nil {
		return "must be a string, as all headers are"
	}
	return ""
}

// snakeCase turns lowerCamelCase, which Google takes as well, into its names.
func snakeCase(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
