package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Disk is a small file system of a test. Dir is for Options.DataDir.
type Disk struct {
	Dir     string
	ballast string
}

// NewDisk mounts a file system in memory, of which a new server takes about 40
// MiB. It ends with the test. Mounting needs root: where it does not work, the
// test is skipped, or fails if CARILLON_REQUIRE names mount.
func NewDisk(t testing.TB, mebibytes int) *Disk {
	t.Helper()
	f := testFolder(t)
	dir := filepath.Join(f.path, "disk") // which the guard unmounts
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatalf("make a small disk: %v", err)
	}
	if err := mount(dir, mebibytes); err != nil {
		missing(t, "mount", fmt.Errorf("a tmpfs cannot be mounted: %w", err))
	}
	d := &Disk{Dir: filepath.Join(dir, "data"), ballast: filepath.Join(dir, "ballast")}
	if err := os.Mkdir(d.Dir, 0o700); err != nil {
		t.Fatalf("make a small disk: %v", err)
	}
	if err := errors.Join(f.own(dir), f.own(d.Dir)); err != nil {
		t.Fatalf("make a small disk: %v", err)
	}
	return d
}

// Fill writes until nothing more fits.
func (d *Disk) Fill() error {
	file, err := os.OpenFile(d.ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	chunk := make([]byte, os.Getpagesize())
	for err == nil {
		_, err = file.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, file.Close())
	}
	return file.Close()
}

// Free makes room again.
func (d *Disk) Free() error { return os.Remove(d.ballast) }
