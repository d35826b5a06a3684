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
	"testing"
	"time"
)

// interrupted runs a command, sends it SIGINT when it has started its work, and checks how it ends.
func interrupted(t *testing.T, started <-chan struct{}, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "releasectl", args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-started:
	case <-ctx.Done():
		t.Error("the command did not get to where it is interrupted")
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	err := c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("got %v, want exit code %d", err, exitInterrupted)
	}
	want := "releasectl: interrupted; run the same command again to finish it\n"
	if !strings.HasSuffix(stderr.String(), want) {
		t.Errorf("got %q, want %q", stderr.String(), want)
	}
}

func TestInterruptedPush(t *testing.T) {
	root, layout := t.TempDir(), filepath.Join(t.TempDir(), "layout")
	if code := run([]string{"pack", "--quiet", root, "oci:" + layout + ":v1"}, &bytes.Buffer{},
		&bytes.Buffer{}); code != 0 {
		t.Fatalf("pack ended with %d", code)
	}
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
	interrupted(t, started, "push", "--plain-http", "oci:"+layout+":v1", strings.TrimPrefix(registry.URL, "http://")+
		"/os/server:v1")
}

// The library that packs does not look at the context.
func TestInterruptedPack(t *testing.T) {
	root, layout := t.TempDir(), filepath.Join(t.TempDir(), "layout")
	f, err := os.Create(filepath.Join(root, "zeros"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(64 << 30); err != nil { // a hole: it takes no space, and minutes to read
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		for {
			if blobs, err := filepath.Glob(filepath.Join(layout, ".umoci-*", "*")); err != nil || len(blobs) > 0 {
				close(started)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	interrupted(t, started, "pack", root, "oci:"+layout+":v1")
	if blobs, err := filepath.Glob(filepath.Join(layout, ".umoci-*")); err != nil || len(blobs) > 0 {
		t.Errorf("left behind: %v, %v", blobs, err)
	}
}
