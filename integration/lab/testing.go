package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Start boots a host for a test and stops it when the test ends. It keeps console and journal of a test that failed.
func Start(t testing.TB, o Options) *Host {
	t.Helper()
	h, err := Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.keepLogs(t.Name()))
		}
		h.Stop()
	})
	return h
}

// keepLogs writes console and journal to a file in the cache, and returns a sentence that names it.
func (h *Host) keepLogs(test string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	text := "console:\n" + h.Console() + "\njournal:\n" + h.Journal(ctx)
	name := fmt.Sprintf("%s-%s-%s.log", strings.ReplaceAll(test, "/", "-"), h.Name, time.Now().Format("150405"))
	path := filepath.Join(CacheDir(), "logs", name)
	if err := writeFile(path, text); err != nil {
		return err.Error()
	}
	return "console and journal of host " + h.Name + " are in " + path
}

// Must runs a command in the host and returns its output without the last newline. The test fails if the command does.
func (h *Host) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := h.Run(t.Context(), args...)
	if r.Code != 0 {
		t.Fatalf("%s: %s", strings.Join(args, " "), r)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Await calls done until it returns true, and reports whether it did within a limit. The test fails at once if the
// host ends meanwhile.
func (h *Host) Await(t testing.TB, limit time.Duration, done func() bool) bool {
	t.Helper()
	const interval = 200 * time.Millisecond // done usually runs a command in the host
	for deadline := time.Now().Add(limit); ; time.Sleep(interval) {
		if done() {
			return true
		}
		if err := h.Alive(); err != nil {
			t.Fatalf("host %s: %v\n%s", h.Name, err, h.Console())
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// NewRegistry starts a registry for a test and stops it when the test ends.
func NewRegistry(t testing.TB, o RegistryOptions) *Registry {
	t.Helper()
	r, err := StartRegistry(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Stop()
		_ = os.RemoveAll(r.dir)
	})
	return r
}

// NewProbe polls the host's web server until the test ends.
func (h *Host) NewProbe(t testing.TB) *Probe {
	t.Helper()
	p, err := StartProbe("http://"+h.Addr+"/", h.Patience())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// Binary is [FindBinary] for a test.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path, err := FindBinary(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
