package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// parse sets the member that into points to from what a file, the environment
// or a flag gave: text, or a number, truth value or list of YAML.
func parse(into, raw any) error {
	if list, ok := into.(*[]string); ok {
		texts, err := texts(raw)
		*list = texts
		return err
	}
	if list, ok := into.(*[]netip.Prefix); ok {
		return parsePrefixes(list, raw)
	}
	text, err := scalar(raw)
	if err != nil {
		return err
	}
	switch into := into.(type) {
	case *string:
		*into = text
	case *bool:
		*into, err = strconv.ParseBool(text)
		err = parseError(err, text, "true or false")
	case *int:
		*into, err = strconv.Atoi(text)
		err = parseError(err, text, "a whole number")
	case *int64:
		*into, err = strconv.ParseInt(text, 10, 64)
		err = parseError(err, text, "a whole number")
	case *float64:
		*into, err = strconv.ParseFloat(text, 64)
		err = parseError(err, text, "a number")
	case *time.Duration:
		*into, err = parseDuration(text)
		err = parseError(err, text, "a time; use a number with its unit, such as 30s, 5m, 12h or 7d")
	default:
		return fmt.Errorf("settings of type %T cannot be parsed", into)
	}
	return err
}

func parseError(err error, text, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q is not %s", text, what)
}

// scalar is a single value as text.
func scalar(raw any) (string, error) {
	switch v := raw.(type) {
	case string:
		return strings.TrimSpace(v), nil
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), nil
	case time.Time: // how YAML reads 2026-01-01
		return v.Format(time.RFC3339), nil
	}
	return "", errors.New("needs one value, not a list or a section")
}

// texts is a list, or one text with commas between the items.
func texts(raw any) ([]string, error) {
	var list []any
	switch v := raw.(type) {
	case []any:
		list = v
	case []string:
		return v, nil
	default:
		one, err := scalar(raw)
		if err != nil {
			return nil, errors.New("needs a list, or a text with commas")
		}
		for item := range strings.SplitSeq(one, ",") {
			list = append(list, item)
		}
	}
	var out []string
	for _, x := range list {
		item, err := scalar(x)
		if err != nil {
			return nil, errors.New("needs a list of single values")
		}
		if item != "" {
			out = append(out, item)
		}
	}
	return out, nil
}

func parsePrefixes(into *[]netip.Prefix, raw any) error {
	items, err := texts(raw)
	if err != nil {
		return err
	}
	var out []netip.Prefix
	for _, item := range items {
		p, err := netip.ParsePrefix(item)
		if addr, bad := netip.ParseAddr(item); err != nil && bad == nil && addr.Zone() == "" {
			p, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%q is not a range of addresses; use one such as 10.0.0.0/8 or fd00::/8", item)
		}
		out = append(out, p.Masked())
	}
	*into = out
	return nil
}

// parseDuration is time.ParseDuration, and whole days.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// formatDuration is the short form that parseDuration reads.
func formatDuration(d time.Duration) string {
	if d > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func formatNumber[N int | int64 | float64](n N) string {
	return strconv.FormatFloat(float64(n), 'f', -1, 64)
}

// plainValue is a member's value in a form that YAML prints as parse reads it.
func plainValue(into any) any {
	switch v := into.(type) {
	case *string:
		return *v
	case *bool:
		return *v
	case *int:
		return *v
	case *int64:
		return *v
	case *float64:
		return *v
	case *time.Duration:
		return formatDuration(*v)
	case *[]string:
		return append([]string{}, *v...)
	case *[]netip.Prefix:
		list := make([]string, len(*v))
		for i, p := range *v {
			list[i] = p.String()
		}
		return list
	}
	return nil
}

// valueText is a member's value as the environment and flags spell it.
func valueText(into any) string {
	if list, ok := plainValue(into).([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(plainValue(into))
}
