package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/updatectl/updatectl/cmd/cmdtest"
)

// interrupted sends releasectl a signal when it has started its work, and checks how it ends.
func interrupted(t *testing.T, signal os.Signal, started <-chan struct{}, args ...string) {
	t.Helper()
	got := cmdtest.Interrupt(t, signal, started, exitInterrupted, append([]string{"releasectl"}, args...)...)
	want := "releasectl: interrupted; run the same command again to finish it\n"
	if !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInterruptedPush(t *testing.T) {
	root, layout := t.TempDir(), filepath.Join(t.TempDir(), "layout")
	if code := run([]string{"pack", "--quiet", root, "oci:" + layout + ":v1"}, &bytes.Buffer{},
		&bytes.Buffer{}); code != 0 {
		t.Fatalf("pack ended with %d", code)
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		address, asked := cmdtest.SilentRegistry(t)
		interrupted(t, signal, asked, "push", "--plain-http", "oci:"+layout+":v1", address+"/os/server:v1")
	}
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
	interrupted(t, os.Interrupt, started, "pack", root, "oci:"+layout+":v1")
	if blobs, err := filepath.Glob(filepath.Join(layout, ".umoci-*")); err != nil || len(blobs) > 0 {
		t.Errorf("left behind: %v, %v", blobs, err)
	}
}
