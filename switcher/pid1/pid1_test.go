package pid1

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// deafUntil is a PID 1 that ignores the first calls of a connection, as the real one does when it reads them together
// with the end of the authentication. It answers the given one and what comes after it.
func deafUntil(t *testing.T, heard int) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
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
			if n < heard {
				continue
			}
			answer := &godbus.Message{Type: godbus.TypeMethodReply, Headers: map[godbus.HeaderField]godbus.Variant{
				godbus.FieldReplySerial: godbus.MakeVariant(call.Serial()),
			}}
			if err := answer.EncodeTo(conn, binary.LittleEndian); err != nil {
				return
			}
		}
	}()
	return socket
}

// TestDialPID1 connects although the first call is not answered.
func TestDialPID1(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, heard := range []int{1, 2, 4} {
		conn, err := dialPID1(ctx, deafUntil(t, heard))
		if err != nil {
			t.Errorf("heard from call %d on: %v", heard, err)
			continue
		}
		conn.Close()
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := dialPID1(short, deafUntil(t, 1000)); !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, ErrUnresponsive) {
		t.Errorf("never heard: %v", err)
	}
}

// TestUnresponsive: a PID 1 that re-executes itself refuses or breaks connections: an ErrUnresponsive.
func TestUnresponsive(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "private"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	if _, err := dialPID1(t.Context(), l.Addr().String()); !errors.Is(markUnresponsive(err), ErrUnresponsive) {
		t.Errorf("broken: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := dialPID1(t.Context(), l.Addr().String()); !errors.Is(markUnresponsive(err), ErrUnresponsive) {
		t.Errorf("refused: %v", err)
	}
	if _, err := dialPID1(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil ||
		errors.Is(markUnresponsive(err), ErrUnresponsive) {
		t.Errorf("no systemd: %v", err)
	}
}
