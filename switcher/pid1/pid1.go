// Package pid1 asks systemd and logind: for reboots, about units, and, when neither answers, the kernel. Questions go over
// PID 1's private socket, so that they work while the bus is down, and every answer is waited for within a bound.
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

// privateSocket is where PID 1 itself answers, also when the bus is down.
const privateSocket = "/run/systemd/private"

const (
	// nudge is how long PID 1 has to answer before it is written to again; it answers in some milliseconds.
	nudge = 100 * time.Millisecond
	// greetPatience is how long it may take to answer at all: what D-Bus gives any call (25 s in the reference library).
	greetPatience = 25 * time.Second
)

// ErrDeaf says that PID 1 does not answer, as in the moment in which it is executed anew, at every soft reboot.
var ErrDeaf = errors.New("systemd does not answer")

// isLost tells whether a connection was refused or broke, or nothing came over it.
func isLost(err error) bool {
	for _, known := range []error{unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF, io.ErrUnexpectedEOF, godbus.ErrClosed} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// markDeaf marks an error that says so.
func markDeaf(err error) error {
	if isLost(err) && !errors.Is(err, ErrDeaf) {
		return fmt.Errorf("%w: %w", ErrDeaf, err)
	}
	return err
}

// Connect connects to PID 1 over its private socket. The caller closes the connection.
func Connect(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.NewConnection(func() (*godbus.Conn, error) { return dialPID1(ctx, privateSocket) })
	if err != nil {
		return nil, fmt.Errorf("cannot talk to systemd: %w", markDeaf(err))
	}
	return conn, nil
}

// dialPID1 makes one connection, over which PID 1 has answered already.
func dialPID1(ctx context.Context, socket string) (*godbus.Conn, error) {
	conn, err := godbus.Dial("unix:path="+socket, godbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	if err == nil {
		err = greet(ctx, conn)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// greet asks until there is an answer. A call that PID 1 reads in one go with the end of the authentication, as on a busy
// machine, lies there until more comes (tried: systemd 257): without this, the first call of a connection could wait for
// ever.
func greet(ctx context.Context, conn *godbus.Conn) error {
	const tries = int(greetPatience / nudge)
	peer := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	answers := make(chan *godbus.Call, tries)
	for range tries {
		peer.GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case call := <-answers:
			return call.Err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(nudge):
		}
	}
	return fmt.Errorf("%w within %v", ErrDeaf, greetPatience)
}

func With(ctx context.Context, do func(*dbus.Conn) error) error {
	conn, err := Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return markDeaf(do(conn))
}

// callManager calls what the library has no method for.
func callManager(ctx context.Context, method string, args ...any) error {
	conn, err := dialPID1(ctx, privateSocket)
	if err != nil {
		return fmt.Errorf("cannot talk to systemd: %w", markDeaf(err))
	}
	defer conn.Close()
	manager := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if err := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager."+method, 0, args...).Err; err != nil {
		return fmt.Errorf("cannot have systemd do %s: %w", method, markDeaf(err))
	}
	return nil
}
