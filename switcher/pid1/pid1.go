// Package pid1 asks systemd and logind for reboots and about units, and the kernel when neither answers. It promises
// that every question to PID 1 works while the bus is down, because it goes over the private socket, and that waiting
// for an answer is bounded.
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
	// pingInterval is how long PID 1 has to answer before it is pinged again; it takes some milliseconds.
	pingInterval = 100 * time.Millisecond
	// connectPatience is how long PID 1 may take for the first answer: the default of D-Bus for a call (25 s in the
	// reference library).
	connectPatience = 25 * time.Second
)

// ErrUnresponsive means that PID 1 does not answer, for example while it re-executes itself, as it does at every soft
// reboot.
var ErrUnresponsive = errors.New("systemd does not answer")

// isLost reports whether an error means that a connection was refused, broke or ended.
func isLost(err error) bool {
	for _, lost := range []error{
		unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF, io.ErrUnexpectedEOF, godbus.ErrClosed,
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

// Connect returns a connection to PID 1 over its private socket. The caller closes it. The error is an ErrUnresponsive
// when PID 1 does not answer.
func Connect(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.NewConnection(func() (*godbus.Conn, error) { return dialPID1(ctx, privateSocket) })
	if err != nil {
		return nil, fmt.Errorf("cannot talk to systemd: %w", markUnresponsive(err))
	}
	return conn, nil
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

// awaitAnswer pings PID 1 until it answers. On a busy machine, PID 1 may read a call together with the end of the
// authentication, and then handles that call only when more arrives (seen with systemd 257): without the pings, the
// first call of a connection could wait forever.
func awaitAnswer(ctx context.Context, conn *godbus.Conn) error {
	const tries = int(connectPatience / pingInterval)
	peer := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	answers := make(chan *godbus.Call, tries)
	for range tries {
		peer.GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case call := <-answers:
			return call.Err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pingInterval):
		}
	}
	return fmt.Errorf("%w within %v", ErrUnresponsive, connectPatience)
}

// WithConn calls do with a connection to PID 1, which it closes afterwards. The error is an ErrUnresponsive when PID 1
// does not answer.
func WithConn(ctx context.Context, do func(*dbus.Conn) error) error {
	conn, err := Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return markUnresponsive(do(conn))
}

// callManager calls a method of systemd's manager that the library does not have.
func callManager(ctx context.Context, method string, args ...any) error {
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
}
