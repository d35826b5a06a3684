package pid1

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// answering is a D-Bus socket that answers those calls that it hears: n is the number of a call on its connection.
func answering(t *testing.T, hears func(n int, member string) bool) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn, hears)
		}
	}()
	return socket
}

func answer(conn net.Conn, hears func(n int, member string) bool) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for { // the authentication, line by line
		line, err := in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "BEGIN") {
			break
		}
		answer := "OK 0123456789abcdef0123456789abcdef\r\n"
		if strings.HasPrefix(line, "NEGOTIATE_UNIX_FD") {
			answer = "AGREE_UNIX_FD\r\n"
		}
		if strings.HasSuffix(line, "AUTH\r\n") {
			answer = "REJECTED EXTERNAL\r\n"
		}
		fmt.Fprint(conn, answer)
	}
	for n := 1; ; n++ {
		call, err := godbus.DecodeMessage(in)
		if err != nil {
			return
		}
		member, _ := call.Headers[godbus.FieldMember].Value().(string)
		if !hears(n, member) {
			continue
		}
		answer := &godbus.Message{Type: godbus.TypeMethodReply, Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldReplySerial: godbus.MakeVariant(call.Serial()),
		}}
		if member == "Hello" {
			answer.Body = []any{":1.1"}
			answer.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(":1.1"))
		}
		if err := answer.EncodeTo(conn, binary.LittleEndian); err != nil {
			return
		}
	}
}

// silent is a socket that takes connections for a process that is frozen. With full, it has no room for one more.
func silent(t *testing.T, full bool) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Listen(fd, 8)); err != nil {
		t.Fatal(err)
	}
	for full {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			break
		}
		t.Cleanup(func() { conn.Close() })
	}
	return socket
}

// soon returns what do returns, and fails the test when do still waits long after anybody would have given up.
func soon[T any](t *testing.T, do func() T) T {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- do() }()
	select {
	case answer := <-done:
		return answer
	case <-time.After(20 * time.Second):
		t.Fatal("it still waits")
		panic("not reached")
	}
}

// shortLimit is how long the tests wait for an answer that does not come.
const shortLimit = 300 * time.Millisecond

// connects hears what makes a connection usable.
func connects(_ int, member string) bool {
	return member == "Ping" || member == "AddMatch" || member == "Hello"
}

// TestFrozenPID1: every question to PID 1 ends, and ends with an error if PID 1 has not answered.
func TestFrozenPID1(t *testing.T) {
	for name, socket := range map[string]string{
		"takes connections and says nothing": silent(t, false),
		"takes no more connections":          silent(t, true),
		"answers once and then never":        answering(t, func(n int, _ string) bool { return n == 1 }),
		"stops answering when it is asked":   answering(t, connects),
	} {
		t.Run(name, func(t *testing.T) {
			err := soon(t, func() error {
				return visit(t.Context(), socket, shortLimit, func(conn *dbus.Conn, _ func()) error {
					_, _ = conn.GetManagerProperty("SystemState") // as if it were only a unit that is gone
					return nil
				})
			})
			if !errors.Is(err, ErrUnresponsive) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestSlowPID1: a job may take longer than an answer.
func TestSlowPID1(t *testing.T) {
	const limit = 2 * time.Second // a busy machine connects within that
	socket := answering(t, func(int, string) bool { return true })
	err := soon(t, func() error {
		return visit(t.Context(), socket, limit, func(conn *dbus.Conn, lift func()) error {
			lift()
			time.Sleep(limit + shortLimit)
			return conn.ResetFailedUnitContext(t.Context(), "x.service")
		})
	})
	if err != nil {
		t.Errorf("the error is %v", err)
	}
}

// TestJobWhilePID1StartsAnew: nobody announces the end of a job over a connection that is gone. A PID 1 that executes
// itself anew, as for a new version of systemd, closes all of them.
func TestJobWhilePID1StartsAnew(t *testing.T) {
	socket := answering(t, func(_ int, member string) bool {
		if member == "ResetFailedUnit" {
			runtime.Goexit() // which closes the connection
		}
		return true
	})
	err := soon(t, func() error {
		return visit(t.Context(), socket, time.Minute, func(conn *dbus.Conn, lift func()) error {
			lift()
			_ = conn.ResetFailedUnitContext(t.Context(), "x.service")
			_, err := awaitJob(t.Context(), conn, nil)
			return err
		})
	})
	if !errors.Is(err, ErrUnresponsive) {
		t.Errorf("the error is %v", err)
	}
}

// TestFrozenBus: if the bus or logind does not answer, that does not count as a host without logind, because inhibitor
// locks count. No reboot is announced then.
func TestFrozenBus(t *testing.T) {
	for name, c := range map[string]struct {
		socket string
		want   error
	}{
		"the bus says nothing":         {silent(t, false), ErrUnresponsive},
		"the bus takes no connections": {silent(t, true), ErrUnresponsive},
		"logind says nothing":          {answering(t, connects), ErrUnresponsive},
		"there is no bus":              {filepath.Join(t.TempDir(), "none"), errNoLogind},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+c.socket)
			err := soon(t, func() error { return askLogind(t.Context(), shortLimit, logindSoftReboot) })
			if !errors.Is(err, c.want) {
				t.Errorf("the error is %v, want %v", err, c.want)
			}
			if soon(t, func() bool { return announced(t.Context(), shortLimit) }) {
				t.Error("it has announced a reboot")
			}
		})
	}
}
