package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestNoStartLimit: every switch starts these units, and somebody may ask for one as often as they like; systemd's
// default limit is five starts in ten seconds.
func TestNoStartLimit(t *testing.T) {
	for _, unit := range []string{"updatectl-guard.service", "updatectl-arm.service", "updatectl-confirm.service"} {
		if !strings.Contains(Units()[unit], "\nStartLimitIntervalSec=0\n") {
			t.Errorf("%s has a limit", unit)
		}
	}
}

// TestStateIsMounted: a /var with nofail is not part of local-fs.target. The guard has to outlive the mount units of
// the root that is left, so it must not depend on them. What renews units reads nothing of the state, and what makes
// derived files only /etc, which is mounted before a root starts: on a host root with /var on a network disk, waiting
// for /var would be a cycle, since both are ordered before the network.
func TestStateIsMounted(t *testing.T) {
	stateless := []string{"updatectl-guard.service", "updatectl-renew.service", "updatectl-derive.service"}
	for unit, text := range Units() {
		if !strings.HasSuffix(unit, ".service") || strings.HasPrefix(text, "-> ") {
			continue
		}
		if got, want := strings.Contains(text, "\nRequiresMountsFor=/var/lib/updatectl\n"),
			!slices.Contains(stateless, unit); got != want {
			t.Errorf("%s requires the state: %v, want %v", unit, got, want)
		}
	}
}

// TestNoLocalDocument: no unit names a document on the disk. Units are carried into images, and the documents are not.
func TestNoLocalDocument(t *testing.T) {
	units, err := filepath.Glob("units/updatectl*")
	if err != nil || len(units) < 5 {
		t.Fatalf("found the units %v, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Documentation=") && strings.Contains(line, "file:") {
				t.Errorf("%s: image roots lack %s", unit, strings.TrimSpace(line))
			}
		}
	}
}

// TestRunLockIsEarly: /run/lock may be a line of fstab(5). Such a mount is ordered after local-fs-pre.target by
// default, and the drop-in orders it before: systemd would leave out the mount, and local-fs.target with it.
func TestRunLockIsEarly(t *testing.T) {
	text, err := files.ReadFile("dropins/run-lock.mount.d/updatectl.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"DefaultDependencies=no", "Before=local-fs-pre.target lvm2-monitor.service dm-event.service multipathd.service",
		// What the defaults would have brought besides.
		"Before=local-fs.target umount.target", "Conflicts=umount.target",
	} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the drop-in lacks %s", line)
		}
	}
}

// TestExposure holds every service to the number in docs/security.md, as systemd-analyze rates it.
func TestExposure(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("`make setup` installs what this test needs, the package systemd: ", err)
	}
	doc, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	limits := map[string]float64{}
	row := regexp.MustCompile("(?m)^\\| `(\\S+\\.service)` \\| ([0-9.]+) \\|")
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		limits[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	overall := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	for _, unit := range services(t) {
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", unit).CombinedOutput()
		m := overall.FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%s: %v\n%s", unit, err, out)
		}
		got, err := strconv.ParseFloat(string(m[1]), 64)
		limit, known := limits[filepath.Base(unit)]
		if err != nil || !known || got > limit {
			t.Errorf("%s has the exposure %v, and docs/security.md says %v", unit, got, limit)
		}
	}
}

// TestNoOwnMountNamespace: what a unit mounts has to be in the mount namespace of PID 1, and what it looks at is there.
// With one of these settings, systemd gives the unit another one.
func TestNoOwnMountNamespace(t *testing.T) {
	own := regexp.MustCompile(`(?m)^(Private|Protect|ReadOnly|ReadWrite|Inaccessible|Exec|NoExec|TemporaryFileSystem|` +
		`Bind|Root|Mount|StateDirectory|ProcSubset|DynamicUser|Extension|LoadCredential|SetCredential|ImportCredential|` +
		`LogNamespace|IPCNamespace)[A-Za-z]*=`)
	for _, unit := range services(t) {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range own.FindAllString(string(text), -1) {
			if !strings.HasPrefix(line, "ExecSt") { // the command
				t.Errorf("%s has %s", unit, line)
			}
		}
	}
}

// TestOpenat2: units that copy files where users can write follow no link there, by means of openat2(2). systemd blocks
// that with RestrictSUIDSGID=, because it cannot see the mode.
func TestOpenat2(t *testing.T) {
	for _, name := range []string{"arm", "guard", "resume", "derive", "confirm"} {
		text, err := os.ReadFile("units/updatectl-" + name + ".service")
		if err != nil || strings.Contains(string(text), "\nRestrictSUIDSGID=") {
			t.Errorf("updatectl-%s.service cannot call openat2(2): %v", name, err)
		}
	}
}

// services returns the files of the services.
func services(t *testing.T) []string {
	t.Helper()
	units, err := filepath.Glob("units/*.service")
	if err != nil || len(units) < 8 {
		t.Fatalf("found the services %v, %v", units, err)
	}
	return units
}

// TestLeadsBack: the timer that leads back from a kernel on trial is for the one start of it, before userspace goes on
// from the host root, also if the boot ends in emergency.target.
func TestLeadsBack(t *testing.T) {
	unit := read(t, "units/updatectl-kernel.timer")
	for _, line := range []string{
		"DefaultDependencies=no", "Conflicts=shutdown.target", "ConditionKernelCommandLine=updatectl.once",
		"ConditionPathExists=!/run/updatectl/started", "OnActiveSec=45min", "Unit=reboot.target",
		"WantedBy=sysinit.target emergency.target",
	} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the timer lacks %s", line)
		}
	}
	for _, target := range []string{"sysinit", "emergency"} {
		link := "ln -sf ../updatectl-kernel.timer $(unitdir)/" + target + ".target.wants/\n"
		if !strings.Contains(read(t, "../Makefile"), link) {
			t.Errorf("`make install` does not make the link for %s.target", target)
		}
	}
	resume := read(t, "units/updatectl-resume.service")
	took := regexp.MustCompile(`(?m)^JobTimeoutSec=([0-9]+)min$`).FindStringSubmatch(resume)
	if took == nil {
		t.Fatal("how long resuming may take is not known")
	}
	if minutes, err := strconv.Atoi(took[1]); err != nil || minutes+20 > 45 { // slow disks may come first
		t.Errorf("resuming may take %s minutes, and the timer goes off after 45", took[1])
	}
	if !strings.Contains(resume, "\nConditionPathExists=!/run/updatectl/started\n") {
		t.Error("userspace goes on by another stamp")
	}
}

// TestRemovalIsRefused: the package is not removed while that would leave what only updatectl can put right.
func TestRemovalIsRefused(t *testing.T) {
	dir := t.TempDir()
	grep, err := exec.LookPath("grep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(grep, filepath.Join(dir, "grep")); err != nil { // no systemctl of this machine
		t.Fatal(err)
	}
	files := map[string]string{"/proc/1/mountinfo": "mounts", "/var/lib/updatectl/kernels.json": "kernels",
		"/run/systemd/system": "none"}
	script := read(t, "packaging/preremove")
	for p, name := range files {
		script = strings.ReplaceAll(script, p, filepath.Join(dir, name))
	}
	const image = "21 1 0:20 / / rw - overlay updatectl:sha256-00 rw\n" +
		"22 21 8:1 / /.updatectl/host ro - ext4 /dev/sda1 rw\n"
	for name, c := range map[string]struct{ argument, mounts, kernels, says string }{
		"on the host root":  {"remove", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "{}\n", ""},
		"an image runs":     {"remove", image, "{}\n", "an image runs"},
		"kernels of images": {"remove", "", `{"installed": [{}]}`, "has kernels of images"},
		"an upgrade":        {"upgrade", image, "{}\n", ""},
		"of rpm":            {"0", image, "{}\n", "an image runs"},
		"an upgrade of rpm": {"1", image, "{}\n", ""},
	} {
		for p, text := range map[string]string{"mounts": c.mounts, "kernels": c.kernels} {
			if err := os.WriteFile(filepath.Join(dir, p), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/bin/sh", "-c", script, "preremove", c.argument)
		cmd.Env = []string{"PATH=" + dir}
		out, err := cmd.CombinedOutput()
		if (err != nil) != (c.says != "") || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: it ends with %v and says %q, want %q", name, err, out, c.says)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
