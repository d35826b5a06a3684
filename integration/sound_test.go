//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// soundScript looks at what must hold of a host whatever has gone wrong on it. It prints what does not, a line each.
// What a crash left may lie there until the next command that changes anything; gc is one.
const soundScript = `cd /var/lib/updatectl 2>/dev/null || exit 0
mkdir -p /run/lab
updatectl gc >/run/lab/gc 2>&1 || { echo "gc: $(cat /run/lab/gc)"; exit 0; }
updatectl gc >/run/lab/gc 2>&1
grep -q '^0 roots and 0 objects removed' /run/lab/gc || echo "a second gc: $(cat /run/lab/gc)"
findmnt --raw --noheadings --output TARGET,SOURCE | grep -E '^/run/(nextroot|updatectl)' | sed 's/^/mounted: /' || :
cat /proc/mounts | grep -E 'erofs|deleted' | sed 's/^/mounted: /' || :
grep -s updatectl /sys/block/loop*/loop/backing_file | grep root.cfs | sed 's/^/a loop device: /' || :
{ ls -A . | grep -Evx 'objects|roots|staging|host|oci|state.json|history.jsonl|ids.json'
ls -A staging
ls -A /run/updatectl | grep -Evx 'lock|armed.json|next|scratch'
for root in roots/*/; do
	[ -d "$root" ] || continue
	ls -A "$root" | grep -Evx 'root.cfs|image.json|evidence.json|graft|etc|etc.before|etc.old|etc.merged'
	for part in root.cfs image.json evidence.json; do [ -s "$root$part" ] || echo "(missing) $root$part"; done
done
find objects -type f | grep -Evx 'objects/[0-9a-f]{2}/[0-9a-f]{62}'; } 2>&1 | sed 's/^/not a name of ours: /' || :
`

// sound fails the test unless the host is whole: its record names a good root that is there, no switch is half way, nothing
// has half a name, nothing is left mounted, and nothing lies on the disk that is neither used nor collected.
func (s *site) sound() status {
	s.Helper()
	if bad := strings.TrimSpace(s.host.Sh(s.Context(), soundScript).Stdout); bad != "" {
		s.Errorf("the host is not whole:\n%s", bad)
	}
	r := s.host.Run(s.Context(), "updatectl", "--output", "json", "status")
	var v status
	if err := json.Unmarshal([]byte(r.Stdout), &v); r.Code != exitDone || err != nil {
		s.Fatalf("status cannot be told (%v): %s", err, r)
	}
	if v.Phase != "idle" && v.Phase != "staged" && v.Phase != "good" {
		s.Errorf("the host stands in phase %q, which is on the way to somewhere", v.Phase)
	}
	if v.Armed != "" {
		s.Errorf("%s is left armed", v.Armed)
	}
	named := []string{v.Booted.Root}
	for _, g := range v.Good {
		named = append(named, g.Root)
	}
	if v.Staged != nil {
		named = append(named, v.Staged.Root)
	}
	if len(v.Good) == 0 {
		s.Error("no root is good")
	}
	for _, id := range named {
		place := "/var/lib/updatectl/roots/" + id + "/root.cfs"
		if id == "host" {
			place = "/usr/bin/updatectl"
			if v.Booted.Root != "host" {
				place = "/var/lib/updatectl/host/usr/lib/systemd/systemd"
			}
		}
		if r := s.host.Run(s.Context(), "test", "-s", place); r.Code != 0 {
			s.Errorf("the record names %s, and %s is not there", id, place)
		}
	}
	return v
}

// kept tells what lies in the store, by content: every root, and every object with its size.
func (s *site) kept() string {
	s.Helper()
	return s.host.Sh(s.Context(), `cd /var/lib/updatectl && ls roots && find objects -type f -printf '%P %s\n' | sort | sha256sum`).Stdout
}

// clear fails the test unless an error says what, why and what to do: a sentence, perhaps with what failed in its wake, and
// a hint.
func (s *site) clear(stderr string) {
	s.Helper()
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	n := len(lines)
	sentence := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "updatectl: ") })
	if sentence < 0 || !strings.HasPrefix(lines[n-1], "hint: ") || slices.ContainsFunc(lines[sentence+1:n-1], func(line string) bool { return !strings.HasPrefix(line, "  ") }) {
		s.Errorf("that is no sentence and hint:\n%s", stderr)
	}
	for _, noise := range []string{"goroutine ", "panic:", "%!"} {
		if strings.Contains(stderr, noise) {
			s.Errorf("%q in what it says:\n%s", noise, stderr)
		}
	}
}

// want is a short form of a status, for comparing.
func (v status) String() string {
	staged := "nothing"
	if v.Staged != nil {
		staged = v.Staged.Root
	}
	return fmt.Sprintf("phase %s, booted %s, staged %s, good %v", v.Phase, v.Booted.Root, staged, v.Good)
}
