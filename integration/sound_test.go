//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/verify/printable"
)

// soundScript checks what must hold for a host after any failure. It prints the status, and then a line for everything
// that does not hold. What a crash leaves may stay until the next command that changes anything, such as gc; a second
// gc removes nothing, and may name roots that it keeps for their /etc.
const soundScript = `mkdir -p /run/lab
cd /var/lib/updatectl 2>/dev/null || { updatectl --output json status; exit 0; }
updatectl gc >/run/lab/gc 2>&1 || gc="gc: $(cat /run/lab/gc)"
updatectl --output json gc >/run/lab/gc 2>&1 || :
grep -q '"roots": \[\]' /run/lab/gc && grep -q '"objects": 0' /run/lab/gc || gc="$gc; a second gc: $(cat /run/lab/gc)"
updatectl --output json status
echo "---"
[ -z "$gc" ] || echo "$gc"
grep -E ' /run/(nextroot|updatectl)|deleted' /proc/1/mounts | sed 's/^/mounted: /' || :
grep -s updatectl /sys/block/loop*/loop/backing_file | grep root.cfs | sed 's/^/a loop device: /' || :
{ ls -A staging
ls -d roots/*/etc.before roots/*/etc.merged roots/*/etc.prepared 2>/dev/null
ls -A . /run/updatectl roots/*/ 2>/dev/null | grep -E '^\.[^:]|\.new(-|$)'
for root in roots/*/; do
	[ -d "$root" ] || continue
	for part in root.cfs image.json evidence.json; do [ -s "$root$part" ] || echo "(missing) $root$part"; done
done
find objects -type f | grep -Evx 'objects/[0-9a-f]{2}/[0-9a-f]{62}'; } 2>&1 | sed 's/^/half a name: /' || :
ls roots | sed 's/^/there: /'
[ ! -s /.updatectl/host/usr/lib/systemd/systemd ] || echo "there: host"
`

// sound fails the test unless the host is whole: its record names good roots that exist, no switch is half done, no
// temporary name or mount is left, and nothing on the disk is neither used nor removed by gc.
func (s *site) sound() status {
	s.Helper()
	r := s.host.Sh(s.Context(), soundScript)
	text, rest, _ := strings.Cut(r.Stdout, "---\n")
	var v status
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		s.Fatalf("cannot read the status (%v): %s", err, r)
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
		s.Errorf("the host is in phase %q, in the middle of a switch", v.Phase)
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
			s.Errorf("the record names %s, which does not exist", id)
		}
	}
	return v
}

// kept lists what is in the store: every root, and every object with its size.
func (s *site) kept() string {
	s.Helper()
	return s.host.Sh(s.Context(),
		`cd /var/lib/updatectl && ls roots && find objects -type f -printf '%P %s\n' | sort | sha256sum`).Stdout
}

// clear fails the test unless an error says what, why and what to do: a sentence, perhaps with further failures, and a
// hint.
func (s *site) clear(stderr string) {
	s.Helper()
	lines := strings.Split(strings.TrimSuffix(printable.Unwrap(stderr), "\n"), "\n")
	n := len(lines)
	sentence := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "updatectl: ") })
	if sentence < 0 || !strings.HasPrefix(lines[n-1], "hint: ") ||
		slices.ContainsFunc(lines[sentence+1:n-1], func(line string) bool { return !strings.HasPrefix(line, "  ") }) {
		s.Errorf("this is not a sentence and a hint:\n%s", stderr)
	}
	for _, noise := range []string{"goroutine ", "panic:", "%!"} {
		if strings.Contains(stderr, noise) {
			s.Errorf("%q in the message:\n%s", noise, stderr)
		}
	}
}

// String returns a short form of a status.
func (v status) String() string {
	staged := "nothing"
	if v.Staged != nil {
		staged = v.Staged.Root
	}
	return fmt.Sprintf("phase %s, booted %s, staged %s, good %v", v.Phase, v.Booted.Root, staged, v.Good)
}
