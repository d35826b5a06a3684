package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/cmd/cmdtest"
)

// interrupted sends releasectl a SIGINT when it has started its work, and checks how it ends.
func interrupted(t *testing.T, started <-chan struct{}, args ...string) {
	t.Helper()
	got := cmdtest.Interrupt(t, os.Interrupt, started, exitInterrupted, append([]string{"releasectl"}, args...)...)
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
	address, asked := cmdtest.SilentRegistry(t)
	interrupted(t, asked, "push", "--plain-http", "oci:"+layout+":v1", address+"/os/server:v1")
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
