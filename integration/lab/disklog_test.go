package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUnmountDisk is what a machine finds on a disk that is unmounted while a container beside it starts: everything.
func TestUnmountDisk(t *testing.T) {
	dir := t.TempDir()
	image, tree := filepath.Join(dir, "disk.img"), filepath.Join(dir, "tree")
	sh := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-ec", script, image, tree).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	sh(`mkdir "$1"; mke2fs -q -t ext4 "$0" 16M`)
	if err := mountDisk(t.Context(), image, tree, 0); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("unshare", "--mount", "sh", "-c", "echo; exec sleep 1")
	ready, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Wait() })
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "hostname"), []byte("lab\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := unmountDisk(t.Context(), image, tree); err != nil {
		t.Fatal(err)
	}
	t.Logf("unmounted after %v", time.Since(before))
	if got := sh(`debugfs -R 'cat /hostname' "$0" 2>&1`); !strings.HasSuffix(got, "lab\n") {
		t.Errorf("the disk has no file that was written before it was unmounted: %q", got)
	}
}
