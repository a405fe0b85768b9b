//go:build !linux && !darwin

package store

// freeBytes is not known here.
func freeBytes(string) (int64, error) { return -1, nil }
