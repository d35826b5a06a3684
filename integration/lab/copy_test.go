package lab

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCopy: a file gets its new name, and a directory too, whose files and links keep theirs, even those that are
// called like it.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"tree/tree": "inner", "tree/x/tree-2": "deep", "file": "alone"} {
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("tree", at("tree/link")); err != nil {
		t.Fatal(err)
	}
	here := func(ctx context.Context, stdin io.Reader, args ...string) error {
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Stdin, c.Stderr = stdin, os.Stderr
		return c.Run()
	}
	for from, to := range map[string]string{"tree": "new/place", "file": "new/name"} {
		if err := Copy(t.Context(), at(from), at(to), here, "--no-same-owner"); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"new/place/tree": "inner", "new/place/link": "inner", "new/place/x/tree-2": "deep", "new/name": "alone",
	} {
		if text, err := os.ReadFile(at(name)); err != nil || string(text) != want {
			t.Errorf("%s is %q, %v; want %q", name, text, err, want)
		}
	}
}
