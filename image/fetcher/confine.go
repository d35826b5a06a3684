package fetcher

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread starts a function on a thread of its own and returns at once. The thread ends with the function, so
// whatever was taken from the thread affects nothing else.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: so the thread ends, and no other goroutine gets it
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// The first thread of a process cannot end. It is kept here until another one runs the function.
		runs := make(chan struct{})
		onOwnThread(func() { close(runs); f() })
		<-runs
		runtime.UnlockOSThread()
	}()
}

// Securebits, from linux/securebits.h, each with the bit that locks it: user 0 gets no capabilities, a change of user
// keeps none, and ambient capabilities cannot be raised.
const (
	secureNoRoot        = 1<<0 | 1<<1
	secureNoKeepCaps    = 1 << 5
	secureNoAmbientCaps = 1<<6 | 1<<7
)

// confineThread takes privileges from this thread. Programs that the thread starts inherit that, and cannot get them
// back. The capabilities themselves go when the program is started as another user.
func confineThread() error {
	rules, err := makeRules()
	if err != nil {
		return fmt.Errorf("cannot make rules for Landlock: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot forbid new privileges: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // this kernel has no more of them
			break
		}
		if err != nil {
			return fmt.Errorf("cannot take the capability %d from it: %w", capability, err)
		}
	}
	bits := uintptr(secureNoRoot | secureNoKeepCaps | secureNoAmbientCaps)
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, bits, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot lock its capabilities: %w", err)
	}
	return rules.enforce()
}

// maxFiles bounds the descriptors of a fetcher: a connection to the registry and one to root for each request.
const maxFiles = 256

// confineSelf takes from this process what only the process itself can give up. It must run before anything from
// outside is read.
func confineSelf() error {
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_MEMLOCK: 0, unix.RLIMIT_MSGQUEUE: 0,
		unix.RLIMIT_NOFILE: maxFiles,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("cannot set the limit %d: %w", resource, err)
		}
	}
	// Its memory holds a login, which another process of the same user must not read.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot hide the memory: %w", err)
	}
	return filterSystemCalls()
}
