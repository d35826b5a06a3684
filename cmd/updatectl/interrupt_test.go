package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestInterrupted: Ctrl-C while a registry does not answer ends with one sentence, whatever was being done.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		command string
		signal  os.Signal
	}{{"check", os.Interrupt}, {"stage", os.Interrupt}, {"stage", syscall.SIGTERM}, {"stage", syscall.SIGHUP}} {
		t.Run(c.command+" "+c.signal.String(), func(t *testing.T) {
			started, once, done := make(chan struct{}), sync.Once{}, make(chan struct{})
			registry := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				once.Do(func() { close(started) })
				select { // as a registry that does not answer
				case <-r.Context().Done():
				case <-done:
				}
			}))
			defer registry.Close()
			defer close(done)
			address := strings.TrimPrefix(registry.URL, "http://")
			p := &publisher{dir: t.TempDir()}
			if err := errors.Join(p.makeKey(), p.writePublicKeys(), p.configure("host", "release.pub", address)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			host := filepath.Join(p.dir, "host")
			cmd := exec.CommandContext(ctx, "updatectl", "--root", host, c.command, "--from", address+"/os:v1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-started:
			case <-ctx.Done():
				t.Error("the command did not get to where it is interrupted")
			}
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Error(err)
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
				t.Errorf("got %v, want exit code %d", err, exitInterrupted)
			}
			const want = "updatectl: interrupted; what was fetched is kept\nhint: run the same command again to continue\n"
			if stderr.String() != want {
				t.Errorf("got %q, want %q", stderr.String(), want)
			}
		})
	}
}
