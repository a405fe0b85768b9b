//go:build !linux

package pgtest

import "errors"

func mount(string, int) error { return errors.New("this is not Linux") }
