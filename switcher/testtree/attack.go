package testtree

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Attacker is the uid of a user who owns a directory that root works in.
const Attacker = 4242

// Exchange has the [Attacker] exchange two names in a directory of his, again and again, until the test ends. It
// returns how often he has done so.
func Exchange(t *testing.T, dir, a, b string) *atomic.Int64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return attack(t, f, func() error {
		return unix.Renameat2(int(f.Fd()), a, int(f.Fd()), b, unix.RENAME_EXCHANGE)
	})
}

// ExchangeNew is [Exchange] of a link with a directory whose name begins with prefix, some moments after it appears.
func ExchangeNew(t *testing.T, dir, prefix, link string) *atomic.Int64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return attack(t, f, func() error {
		names, err := os.ReadDir(dir)
		if err == nil {
			err = unix.ENOENT
		}
		for _, n := range names {
			if n.IsDir() && strings.HasPrefix(n.Name(), prefix) {
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
				err = unix.Renameat2(int(f.Fd()), n.Name(), int(f.Fd()), link, unix.RENAME_EXCHANGE)
			}
		}
		return err
	})
}

// attack has the [Attacker] do something again and again, until the test ends. It returns how often that worked.
func attack(t *testing.T, dir *os.File, do func() error) *atomic.Int64 {
	var times atomic.Int64
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		// Never unlocked: the thread ends with its user. In the file system, it may do what that user may.
		runtime.LockOSThread()
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, Attacker, 0, 0)
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			switch err := do(); {
			case err == nil:
				times.Add(1)
			case !errors.Is(err, unix.ENOENT):
				stopped <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if err := <-stopped; err != nil {
			t.Errorf("the attacker was stopped: %v", err)
		}
		dir.Close()
	})
	return &times
}
