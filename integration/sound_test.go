//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/verify/printable"
)

// soundScript looks at what must hold of a host whatever has gone wrong on it. It prints the status, and then what does not
// hold, a line each. What a crash left may lie there until the next command that changes anything; gc is one.
const soundScript = `mkdir -p /run/lab; cd /var/lib/updatectl 2>/dev/null || { updatectl --output json status; exit 0; }
updatectl gc >/run/lab/gc 2>&1 || gc="gc: $(cat /run/lab/gc)"
updatectl gc >/run/lab/gc 2>&1 || :
grep -q '^0 roots and 0 objects removed' /run/lab/gc || gc="$gc; a second gc: $(cat /run/lab/gc)"
updatectl --output json status
echo "---"
[ -z "$gc" ] || echo "$gc"
grep -E ' /run/(nextroot|updatectl)|deleted' /proc/1/mounts | sed 's/^/mounted: /' || :
grep -s updatectl /sys/block/loop*/loop/backing_file | grep root.cfs | sed 's/^/a loop device: /' || :
{ ls -A staging
ls -d roots/*/etc.before roots/*/etc.merged 2>/dev/null
ls -A . /run/updatectl roots/*/ 2>/dev/null | grep -E '^\.[^:]|\.new(-|$)'
for root in roots/*/; do
	[ -d "$root" ] || continue
	for part in root.cfs image.json evidence.json; do [ -s "$root$part" ] || echo "(missing) $root$part"; done
done
find objects -type f | grep -Evx 'objects/[0-9a-f]{2}/[0-9a-f]{62}'; } 2>&1 | sed 's/^/half a name: /' || :
ls roots | sed 's/^/there: /'
[ ! -s host/usr/lib/systemd/systemd ] || echo "there: host"
`

// sound fails the test unless the host is whole: its record names good roots that are there, no switch is half way, nothing
// has half a name, nothing is left mounted, and nothing lies on the disk that is neither used nor collected.
func (s *site) sound() status {
	s.Helper()
	r := s.host.Sh(s.Context(), soundScript)
	text, rest, _ := strings.Cut(r.Stdout, "---\n")
	var v status
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		s.Fatalf("status cannot be told (%v): %s", err, r)
	}
	var bad, there []string
	for line := range strings.Lines(rest) {
		if root, ok := strings.CutPrefix(strings.TrimSpace(line), "there: "); ok {
			there = append(there, root)
		} else {
			bad = append(bad, line)
		}
	}
	if len(bad) > 0 {
		s.Errorf("the host is not whole:\n%s", strings.Join(bad, ""))
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
		if (id != "host" || v.Booted.Root != "host") && !slices.Contains(there, id) {
			s.Errorf("the record names %s, and it is not there", id)
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
	lines := strings.Split(strings.TrimSuffix(printable.Unwrap(stderr), "\n"), "\n")
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
