package stale

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzStalePatterns: a list that a site writes has only files of the system below /run, and names in /dev/shm, removed.
func FuzzStalePatterns(f *testing.F) {
	for _, text := range []string{
		"/run/site/mark-*   # our agent\n/run/user/1/x\n/run/lock/x\n/run/*/x\n",
		"/run/../etc/x\n/run/a[\n",
		"crond.reboot\n",
		"/run\n", "/run/\n", "/run/./user/1/x\n#\n",
		"/run/\\user/1/x\n",
		"/dev/shm/a_*\n/dev/shm/a/b\n/dev/shm/../b\n/dev/mark\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		patterns, _ := stalePatterns(text)
		for _, p := range patterns {
			dir, _, _ := strings.Cut(strings.TrimPrefix(p, "/run/"), "/")
			name, inShm := strings.CutPrefix(p, "/dev/shm/")
			if inShm && filepath.Clean(p) == p && !strings.Contains(name, "/") {
				continue
			}
			if !strings.HasPrefix(p, "/run/") || filepath.Clean(p) != p || dir == "user" || dir == "lock" ||
				strings.ContainsAny(dir, `*?[\`) {
				t.Errorf("%q is removed", p)
			}
		}
	})
}
