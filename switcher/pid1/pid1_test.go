package pid1

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// deafUntil is a PID 1 that ignores the first calls of a connection, as the real one does when it reads them together
// with the end of the authentication. It answers the given one and what comes after it.
func deafUntil(t *testing.T, heard int) string {
	return answering(t, func(n int, _ string) bool { return n >= heard })
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
