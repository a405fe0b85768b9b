package pgtest

import (
	"fmt"
	"syscall"
)

// mount mounts a file system of a fixed size in memory.
func mount(dir string, mebibytes int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, fmt.Sprintf("size=%dm,mode=700", mebibytes))
}
