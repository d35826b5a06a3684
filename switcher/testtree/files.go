package testtree

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Files are files in short form: "a/b": "content", "d/": "", "l": "-> target". A mode other than the usual one is
// written "content|600".
type Files map[string]string

// Stamp is the time of every file that [Files.OnDisk] writes.
var Stamp = time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)

// OnDisk writes the files to a directory, which it makes and returns.
func (f Files) OnDisk(tb testing.TB, dir string) string {
	tb.Helper()
	must := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o755))
	made := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		full := filepath.Join(dir, name)
		for p := path.Clean(name); !made[p]; p = path.Dir(p) {
			made[p] = true
		}
		must(os.MkdirAll(filepath.Dir(full), 0o755))
		content, mode, _ := strings.Cut(f[name], "|")
		target, isLink := strings.CutPrefix(content, "-> ")
		perm := os.FileMode(0o644)
		switch {
		case isLink:
			must(os.Symlink(target, full))
			continue
		case strings.HasSuffix(name, "/"):
			perm = 0o755
			must(os.MkdirAll(full, 0o755))
		default:
			must(os.WriteFile(full, []byte(content), 0o600))
		}
		fmt.Sscanf(mode, "%o", &perm)
		must(os.Chmod(full, perm))
	}
	times := []unix.Timespec{unix.NsecToTimespec(Stamp.UnixNano()), unix.NsecToTimespec(Stamp.UnixNano())}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(made))) {
		if name != "." {
			must(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), times, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
	return dir
}
