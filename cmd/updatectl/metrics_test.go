package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMetricsListen starts the command as systemd does, with a socket that is open already.
func TestMetricsListen(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "metrics.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	handed, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	host := filepath.Join(dir, "host")
	if err := os.MkdirAll(filepath.Join(host, "var/lib/updatectl"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const start = `LISTEN_PID=$$ LISTEN_FDS=1 exec updatectl --root "$0" metrics --listen`
	cmd := exec.CommandContext(ctx, "sh", "-c", start, host)
	var stderr bytes.Buffer
	cmd.Stderr, cmd.ExtraFiles = &stderr, []*os.File{handed}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 100)
	_ = notify.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := notify.Read(message); err != nil || string(message[:n]) != "READY=1" {
		t.Errorf("the notification to systemd is %q (%v)", message[:n], err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket.Addr().String())
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial}}
	for range 2 { // each with its own connection
		r, err := client.Get("http://host/metrics")
		if err != nil {
			t.Fatal(err, stderr.String())
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || !strings.Contains(string(body), "\nupdatectl_phase{phase=\"idle\"} 1\n") {
			t.Errorf("the answer is %d, %v\n%s%s", r.StatusCode, err, body, &stderr)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.String() != "" {
		t.Errorf("it ends with %v, and says %q", err, &stderr)
	}
	if _, err := os.Stat(socket.Addr().String()); err != nil {
		t.Errorf("it has removed the socket of systemd: %v", err)
	}
}
