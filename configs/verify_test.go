package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ofOthers are units of other packages that the shipped drop-ins change. Only what the drop-ins need is in them.
// run-lock.mount is left to TestPackage: systemd before 256 has no mount unit for /run/lock.
var ofOthers = map[string]string{
	"blk-availability.service":    "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
	"systemd-zram-setup@.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
}

// tooNew are what systemd-analyze says of settings that an older systemd does not have: Debian 12, on which the tests
// may run, has 252. A host needs 254, and without the first of these settings, of 255, the guard does not outlive a
// switch, as README says.
var tooNew = []string{
	"Unknown key 'SurviveFinalKillSignal' in section [Unit], ignoring.",
	"Unknown key 'RestartSteps' in section [Service], ignoring.",
	"Unknown key 'RestartMaxDelaySec' in section [Service], ignoring.",
}

// TestVerify lets systemd-analyze verify every unit, with every drop-in, in a root that has what they name. TestPackage
// does the same on a host of Debian 13.
func TestVerify(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/system")
	if err := os.CopyFS(dir, os.DirFS("units")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS("dropins")); err != nil {
		t.Fatal(err)
	}
	units, err := filepath.Glob("units/*")
	if err != nil || len(units) < 10 {
		t.Fatalf("found the units %v, %v", units, err)
	}
	for name, text := range ofOthers {
		put(t, filepath.Join(dir, name), text, 0o644)
		units = append(units, strings.Replace(name, "@", "@zram0", 1))
	}
	for _, program := range []string{"usr/bin/updatectl", "bin/true", "bin/sh",
		"usr/lib/systemd/system-generators/zram-generator"} {
		put(t, filepath.Join(root, program), "#!/bin/sh\n", 0o755)
	}
	writeTargets(t, dir)
	dropins, err := filepath.Glob("dropins/*")
	if err != nil || len(dropins) != len(ofOthers)+1 {
		t.Errorf("%d units of others are verified, and there are the drop-ins %v, %v", len(ofOthers), dropins, err)
	}
	for _, unit := range units {
		if out := verified(t, root, filepath.Base(unit)); out != "" {
			t.Errorf("%s: systemd-analyze says\n%s", unit, out)
		}
	}

	// What it looks for, it finds, in a drop-in, too.
	put(t, filepath.Join(dir, "wrong.service"), "[Service]\nExecStart=/usr/bin/absent\n", 0o644)
	put(t, filepath.Join(dir, "wrong.service.d/updatectl.conf"), "[Unit]\nAftr=x.service\n", 0o644)
	out := verified(t, root, "wrong.service")
	for _, want := range []string{"'Aftr'", "/usr/bin/absent is not executable"} {
		if !strings.Contains(out, want) {
			t.Errorf("of a unit with faults, systemd-analyze says %q, want %q in it", out, want)
		}
	}
}

// writeTargets writes an empty unit file for each target that the units name, and for those of the default
// dependencies.
func writeTargets(t *testing.T, dir string) {
	t.Helper()
	targets := []string{"sysinit.target", "basic.target", "shutdown.target", "timers.target", "time-sync.target"}
	files, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`[a-z-]+\.target`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the directory of a drop-in
		}
		targets = append(targets, named.FindAllString(string(text), -1)...)
	}
	slices.Sort(targets)
	for _, target := range slices.Compact(targets) {
		put(t, filepath.Join(dir, target), "[Unit]\n", 0o644)
	}
}

// verified returns what systemd-analyze verify says of a unit of a root, without what is too new for this systemd.
func verified(t *testing.T, root, unit string) string {
	t.Helper()
	cmd := exec.Command("systemd-analyze", "verify", "--root="+root, "--man=no", "--no-pager",
		filepath.Join(root, "usr/lib/systemd/system", unit))
	out, err := cmd.CombinedOutput()
	var rest strings.Builder
	for line := range strings.Lines(string(out)) {
		if !slices.ContainsFunc(tooNew, func(known string) bool { return strings.Contains(line, known) }) {
			rest.WriteString(line)
		}
	}
	if err != nil {
		rest.WriteString(err.Error())
	}
	return rest.String()
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
