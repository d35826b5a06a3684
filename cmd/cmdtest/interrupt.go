package cmdtest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	ossignal "os/signal"
	"strings"
	"sync"
	"testing"
	"time"
)

// SilentRegistry starts a registry that never answers. It returns its host:port, and a channel that is closed at the
// first request.
func SilentRegistry(t *testing.T) (address string, asked <-chan struct{}) {
	t.Helper()
	started, once, done := make(chan struct{}), sync.Once{}, make(chan struct{})
	registry := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(started) })
		select {
		case <-r.Context().Done():
		case <-done:
		}
	}))
	t.Cleanup(registry.Close)
	t.Cleanup(func() { close(done) }) // first: Close waits for all requests
	return strings.TrimPrefix(registry.URL, "http://"), started
}

// Interrupt runs a command, sends it the signal once started is closed, and checks its exit code. It returns what the
// command wrote to its standard error.
func Interrupt(t *testing.T, signal os.Signal, started <-chan struct{}, code int, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	// The command starts with what is ignored here, such as the hangup under nohup(1); a signal that is caught is not.
	caught := make(chan os.Signal, 1)
	ossignal.Notify(caught, signal)
	defer ossignal.Stop(caught)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-started:
	case <-ctx.Done():
		t.Error("the command did not get to where it is interrupted")
	}
	if err := c.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	err := c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("got %v, want exit code %d", err, code)
	}
	return stderr.String()
}
