package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownNamespace is the mount namespace of the thread that asks.
const ownNamespace = "/proc/thread-self/ns/mnt"

// Apart calls a function in a mount namespace of its own, which ends with the call: what the function mounts or
// unmounts is seen nowhere else, and a program that it starts begins there. What it returns as a detached tree can be
// attached anywhere. The function must not go on in another goroutine.
func Apart(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open(ownNamespace)
	if err != nil {
		return fmt.Errorf("cannot find the mount namespace: %w", err)
	}
	defer here.Close()
	done := make(chan error, 1)
	go func() { done <- onOwnThread(here, do) }()
	return <-done
}

// onOwnThread calls a function on a thread that ends with this goroutine. It never takes the first thread of the
// process, whose mounts others see as those of the process.
func onOwnThread(from *os.File, do func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		if err := leave(from); err != nil {
			return fmt.Errorf("cannot make a mount namespace: %w", err)
		}
		return do() // the thread stays locked, so that it ends
	}
	defer runtime.UnlockOSThread()
	done := make(chan error, 1)
	go func() { done <- onOwnThread(from, do) }()
	return <-done
}

// leave moves this thread to a new mount namespace, a copy of the one that it is given.
func leave(from *os.File) error {
	if err := enter(from); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	// First of all: nothing that is unmounted here may be unmounted elsewhere.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// enter moves this thread to a mount namespace, unless it is there. A thread of the process may not be where the caller
// is: new ones begin where the process is.
func enter(namespace *os.File) error {
	var there, here unix.Stat_t
	if err := errors.Join(unix.Fstat(int(namespace.Fd()), &there), unix.Stat(ownNamespace, &here)); err != nil {
		return err
	}
	if there.Ino == here.Ino {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS)
}
