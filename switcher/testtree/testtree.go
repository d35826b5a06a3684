// Package testtree makes trees of files for tests. What it makes is removed with the test.
package testtree

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Write writes a file below root with its directories.
func Write(t *testing.T, root, name string, text []byte, mode os.FileMode) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, text, mode); err != nil {
		t.Fatal(err)
	}
}

// Make makes files below a temporary directory, which it returns. A name that ends in / is a directory, "a -> b" is a
// symbolic link; a file has its name as its content.
func Make(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		p := filepath.Join(dir, link)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil && isLink {
			err = os.Symlink(target, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(name), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// File writes a file below root with its directories, and returns its path.
func File(t *testing.T, root, name, text string) string {
	t.Helper()
	Write(t, root, name, []byte(text), 0o644)
	return filepath.Join(root, name)
}
