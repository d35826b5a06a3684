// Package pid1 asks systemd and logind for reboots and about units, and the kernel when neither answers. It promises
// that every question to PID 1 works while the bus is down, because it goes over the private socket, and that no
// question waits for its answer without a limit.
package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// privateSocket is where PID 1 answers without the bus.
const privateSocket = "/run/systemd/private"

const (
	// PID 1 answers within some milliseconds. It is pinged again after firstPing, then after twice as long each time, up
	// to pingInterval.
	firstPing    = 2 * time.Millisecond
	pingInterval = 100 * time.Millisecond
	// answerLimit is how long PID 1 or logind may take for all that is asked of it at once. A daemon-reload keeps PID 1
	// of a large host busy for 20 seconds.
	answerLimit = time.Minute
)

// ErrUnresponsive means that PID 1 does not answer, for example while it re-executes itself, as it does at every soft
// reboot.
var ErrUnresponsive = errors.New("systemd does not answer")

// isLost reports whether an error means that a connection was refused, broke or ended. EAGAIN means that too many wait
// to be accepted.
func isLost(err error) bool {
	for _, lost := range []error{
		unix.ECONNREFUSED, unix.EAGAIN, unix.ECONNRESET, unix.EPIPE, io.EOF, io.ErrUnexpectedEOF, godbus.ErrClosed,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// markUnresponsive wraps the error of a lost connection in ErrUnresponsive. It returns any other as it is.
func markUnresponsive(err error) error {
	if isLost(err) && !errors.Is(err, ErrUnresponsive) {
		return fmt.Errorf("%w: %w", ErrUnresponsive, err)
	}
	return err
}

// limited calls do with a context that also ends after the limit, unless do lifts that. Connections must be made with
// this context, which closes them: the kernel accepts connections to a frozen process, too, and waiting for an answer
// would not end. The error is an ErrUnresponsive when the time was up, even if do returned none.
func limited(ctx context.Context, limit time.Duration, do func(ctx context.Context, lift func()) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	timer := time.AfterFunc(limit, func() { end(fmt.Errorf("%w within %v", ErrUnresponsive, limit)) })
	defer timer.Stop()
	err := do(ctx, func() { timer.Stop() })
	if late := context.Cause(ctx); errors.Is(late, ErrUnresponsive) {
		return late
	}
	return err
}

// dialPID1 returns a connection over which PID 1 has answered once.
func dialPID1(ctx context.Context, socket string) (*godbus.Conn, error) {
	conn, err := godbus.Dial("unix:path="+socket, godbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	if err == nil {
		err = awaitAnswer(ctx, conn)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// awaitAnswer pings PID 1 until it answers. PID 1 may read a call together with the end of the authentication, and then
// handles that call only when more arrives (systemd 257, on a busy machine nearly always): without the pings, the first
// call of a connection could wait forever. While a root is armed, services wait for each of these pauses.
func awaitAnswer(ctx context.Context, conn *godbus.Conn) error {
	const tries = int(answerLimit / pingInterval)
	peer := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	answers := make(chan *godbus.Call, tries) // the library waits until there is room for an answer
	pause := firstPing
	for range tries {
		peer.GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case call := <-answers:
			return call.Err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, pingInterval)
	}
	return fmt.Errorf("%w within %v", ErrUnresponsive, answerLimit)
}

// WithConn calls do with a connection to PID 1, which it closes afterwards. The error is an ErrUnresponsive when PID 1
// does not answer, or when do takes longer than answerLimit.
func WithConn(ctx context.Context, do func(*dbus.Conn) error) error {
	return visit(ctx, privateSocket, answerLimit, func(conn *dbus.Conn, _ func()) error { return do(conn) })
}

// visit is [WithConn] for a socket and a limit, which do may lift.
func visit(ctx context.Context, socket string, limit time.Duration, do func(conn *dbus.Conn, lift func()) error) error {
	return limited(ctx, limit, func(ctx context.Context, lift func()) error {
		conn, err := dbus.NewConnection(func() (*godbus.Conn, error) { return dialPID1(ctx, socket) })
		if err != nil {
			return fmt.Errorf("cannot talk to systemd: %w", markUnresponsive(err))
		}
		defer conn.Close()
		return markUnresponsive(do(conn, lift))
	})
}

// RunJob starts, stops or restarts a unit and waits until that is done, as long as it takes. It returns the result of
// the job in systemd's words: done, failed, dependency, timeout …
func RunJob(ctx context.Context, verb, unit, mode string) (result string, err error) {
	err = visit(ctx, privateSocket, answerLimit, func(conn *dbus.Conn, lift func()) error {
		done := make(chan string, 1)
		call := map[string]func(context.Context, string, string, chan<- string) (int, error){
			"start": conn.StartUnitContext, "stop": conn.StopUnitContext, "restart": conn.RestartUnitContext,
		}[verb]
		if _, err := call(ctx, unit, mode, done); err != nil {
			return err
		}
		lift()
		result, err = awaitJob(ctx, conn, done)
		return err
	})
	return result, err
}

// awaitJob returns the result of a job. The error is an ErrUnresponsive when the connection ends before the job.
func awaitJob(ctx context.Context, conn *dbus.Conn, done <-chan string) (result string, err error) {
	for {
		select {
		case result := <-done:
			return result, nil
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(pingInterval):
			if !conn.Connected() {
				return "", fmt.Errorf("%w: the connection ended while the job ran", ErrUnresponsive)
			}
		}
	}
}

// callManager calls a method of systemd's manager that the library does not have.
func callManager(ctx context.Context, method string, args ...any) error {
	return limited(ctx, answerLimit, func(ctx context.Context, _ func()) error {
		conn, err := dialPID1(ctx, privateSocket)
		if err != nil {
			return fmt.Errorf("cannot talk to systemd: %w", markUnresponsive(err))
		}
		defer conn.Close()
		manager := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
		if err := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager."+method, 0, args...).Err; err != nil {
			return fmt.Errorf("cannot call %s of systemd: %w", method, markUnresponsive(err))
		}
		return nil
	})
}
