//go:build lab && vm

package integration

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Packages) }

// TestVMPackage installs the .deb on a machine with Debian 13, runs an image by the commands in README, upgrades the
// .deb and removes it again, after which the machine is as it was.
func TestVMPackage(t *testing.T) {
	beside(t, lab.QEMU)
	s := newPackageSite(t, lab.Options{Name: "vmpackage", Kind: lab.QEMU})
	// Until the next full reboot.
	if err := s.host.WriteFile("/run/updatectl/conf.d/10-slow.toml", slowConfig, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.host.WriteFile("/run/systemd/system/updatectl-arm.service.d/slow.conf", slowArm, 0o644); err != nil {
		t.Fatal(err)
	}
	s.ofAPackage()
}

// TestPackage is the same in a container, for a quick answer.
func TestPackage(t *testing.T) {
	beside(t, lab.Nspawn)
	newPackageSite(t, lab.Options{Name: "package"}).ofAPackage()
}

// packageSite is a site whose host has nothing of updatectl before the test installs it.
type packageSite struct {
	*site
	packages string
	before   map[string]string // what systemTable says of the host
}

// newPackageSite boots a host that trusts a registry with TLS, in which image 1 is. In root's directory are the files
// that README starts from.
func newPackageSite(t *testing.T, o lab.Options) *packageSite {
	t.Helper()
	s := &packageSite{site: &site{T: t, roots: map[string]string{}}}
	s.registry = lab.NewRegistry(t, lab.RegistryOptions{TLS: true})
	var err error
	if s.publisher, err = lab.NewPublisher(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.packages, err = lab.Packages(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.publish("1", "os/server:stable")
	s.host = lab.Start(t, o)
	h := s.host
	for from, to := range map[string]string{
		s.registry.CA: "/usr/local/share/ca-certificates/lab.crt",
		filepath.Join(s.packages, lab.PackageFile(lab.PackageVersions[0])): "/root/updatectl.deb",
		filepath.Join(s.packages, lab.PackageFile(lab.PackageVersions[1])): "/root/newer.deb",
	} {
		if err := h.CopyIn(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.WriteFile("/root/release.pub", s.publisher.Public, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "update-ca-certificates")
	return s
}

// ofAPackage is the life of a package on a host: it is installed, used, upgraded and removed.
func (s *packageSite) ofAPackage() {
	s.Helper()
	s.before = s.system()
	commands := s.readmeCommands()
	for i, command := range commands[:len(commands)-1] {
		// plan ends with 10: an image is available.
		if r := s.host.Run(s.Context(), "sh", "-ec", "cd /root\n"+command); r.Code != 0 && r.Code != exitAvailable {
			s.Fatalf("%s: %s", command, r)
		}
		if i == 0 {
			s.installed()
		}
	}
	s.switchesBy(commands[len(commands)-1])
	s.runs(s.roots["1"], "1")
	s.hasVersion(lab.PackageVersions[0])
	s.refusedInAnImage()

	s.switches("rollback", "host")
	s.runs("host", "host")
	s.apt("install", "./newer.deb")
	s.hasVersion(lab.PackageVersions[1])
	s.switches("apply", "--retry") // the operator rolled back from it
	s.runs(s.roots["1"], "1")
	s.hasVersion(lab.PackageVersions[1])

	s.switches("rollback", "host")
	s.runs("host", "host")
	s.removed()
}

var readmeBlock = regexp.MustCompile("(?s)\n## From a package to the first image\n.*?\n```sh\n(.*?)```\n")

// readmeCommands returns the commands of README from the package to the first image, for the registry of the test.
func (s *packageSite) readmeCommands() []string {
	s.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		s.Fatal(err)
	}
	block := readmeBlock.FindSubmatch(readme)
	if block == nil {
		s.Fatal("README has no block of commands from a package to the first image")
	}
	const image = "registry.example.org/os/server:stable"
	text := string(block[1])
	if strings.Count(text, image) != 1 {
		s.Fatalf("README does not name the image once:\n%s", text)
	}
	var commands []string
	inText := false // of a here-document
	for line := range strings.Lines(strings.Replace(text, image, s.registry.Host+"/os/server:stable", 1)) {
		if inText {
			commands[len(commands)-1] += line
		} else {
			commands = append(commands, line)
		}
		inText = strings.Contains(line, "<<'EOF'") || inText && line != "EOF\n"
	}
	if len(commands) != 5 {
		s.Fatalf("README has %d commands from a package to the first image, want 5: %q", len(commands), commands)
	}
	return commands
}

// switchesBy is like switches, with a command for a shell.
func (s *packageSite) switchesBy(command string) {
	s.Helper()
	before, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if r := s.host.Run(s.Context(), "sh", "-ec", command); r.Code != 0 && r.Code < 128 {
		s.Fatalf("%s: %s", command, r)
	}
	after, err := s.host.AwaitBoot(s.Context(), before)
	if err != nil || after.BootID != before.BootID {
		s.Fatalf("%s led from %+v to %+v, %v\n%s", command, before, after, err, s.host.Console())
	}
}

// installed looks at a host on which the package was installed, and nothing else was done.
func (s *packageSite) installed() {
	s.Helper()
	s.hasVersion(lab.PackageVersions[0])
	const verify = "systemd-analyze verify --man=no /usr/lib/systemd/system/updatectl* run-lock.mount"
	if r := s.host.Sh(s.Context(), verify); r.Code != 0 || r.Stdout+r.Stderr != "" {
		s.Errorf("systemd-analyze verify: %s", r)
	}
	now := s.system()
	for _, same := range []string{"mounts", "failed units", "active units"} {
		if now[same] != s.before[same] {
			s.Errorf("the package changes %s from\n%s\nto\n%s", same, s.before[same], now[same])
		}
	}
	if r := s.host.Run(s.Context(), "systemctl", "is-enabled", "updatectl.timer"); r.Stdout != "disabled\n" {
		s.Errorf("the timer is %s", r)
	}
}

func (s *packageSite) hasVersion(want string) {
	s.Helper()
	if got := s.updatectl(exitDone, "version").Stdout; !strings.Contains(got, want) {
		s.Errorf("updatectl version says %q, want %s", got, want)
	}
}

// apt runs apt-get as a person does, in root's directory.
func (s *packageSite) apt(args ...string) {
	s.Helper()
	s.host.Must(s.T, append([]string{"sh", "-ec", `cd /root; exec apt-get --yes "$@"`, "apt-get"}, args...)...)
}

// refusedInAnImage: the package is that of the host root. An image has the records of its own packages, read-only.
func (s *packageSite) refusedInAnImage() {
	s.Helper()
	for command, want := range map[string]lab.Result{
		"install ./newer.deb": {Code: 100, Stderr: "updatectl: the packages of this root come with its image"},
		"remove updatectl":    {Code: 100, Stderr: "Unable to locate package updatectl"},
		"purge updatectl":     {Code: 100, Stderr: "Unable to locate package updatectl"},
	} {
		r := s.host.Run(s.Context(), "sh", "-c", "cd /root; apt-get --yes "+command)
		if r.Code != want.Code || !strings.Contains(r.Stderr, want.Stderr) {
			s.Errorf("in an image, apt-get %s: %s\nwant %s", command, r, want)
		}
	}
	s.runs(s.roots["1"], "1")
	s.hasVersion(lab.PackageVersions[0])
}

// guarding makes a host look as during a switch.
const guarding = `dir=/run/systemd/system/updatectl-guard.service.d; mkdir -p $dir
printf '[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep infinity\n' >$dir/50-test.conf
systemctl daemon-reload; systemctl start updatectl-guard.service`

// keptDuringASwitch expects the package not to be removed while a guard runs.
func (s *packageSite) keptDuringASwitch() {
	s.Helper()
	s.host.Must(s.T, "sh", "-ec", guarding)
	r := s.host.Run(s.Context(), "apt-get", "--yes", "remove", "updatectl")
	if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "cannot be removed: a switch is under way") {
		s.Errorf("during a switch, apt-get remove: %s", r)
	}
	s.host.Must(s.T, "sh", "-ec", "systemctl stop updatectl-guard.service; "+
		"rm -r /run/systemd/system/updatectl-guard.service.d; systemctl daemon-reload")
	s.hasVersion(lab.PackageVersions[1])
}

// removed removes the package, and purges it. The host is as it was before.
func (s *packageSite) removed() {
	s.Helper()
	h := s.host
	h.Must(s.T, "systemctl", "enable", "updatectl.timer")
	s.keptDuringASwitch()
	s.apt("remove", "updatectl")
	h.Must(s.T, "test", "!", "-e", "/usr/bin/updatectl")
	h.Must(s.T, "test", "-e", "/var/lib/updatectl/state.json")
	h.Must(s.T, "test", "-e", "/etc/updatectl/updatectl.toml")
	s.apt("purge", "updatectl")
	s.asBefore("when the package is gone")
	if _, err := h.FullReboot(s.Context(), "systemctl", "reboot"); err != nil {
		s.Fatal(err)
	}
	s.asBefore("after a full reboot without the package")
}

// systemTable lists what a package may leave behind on a host.
var systemTable = map[string]string{
	// Of directories, the time says only that something came and went. Not listed are the records of packages, logs,
	// what services of the host write all the time, and what systemd renews when userspace starts with another /usr.
	"files": `find /etc /usr /var -xdev \( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache/apt \
-o -path /var/log -o -path /var/lib/systemd -o -path /var/lib/redis -o -path /var/tmp -o -path /var/.updated \
-o -path /var/cache/ldconfig \) -prune \
-o -type d -printf '%p %y %m %u:%g\n' -o -printf '%p %y %m %u:%g %s %T@ %l\n' | sort`,
	"top directory": `ls -A /`,
	"packages":      `dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'`,
	"unit files":    `systemctl list-unit-files --no-legend --no-pager | sort`,
	"active units":  `systemctl list-units --plain --no-legend --no-pager 'updatectl*'`,
	"failed units":  `systemctl list-units --failed --plain --no-legend --no-pager`,
	// Credentials are mounted while a service starts, or as long as it runs.
	"mounts": `findmnt --raw --noheadings --output TARGET,FSTYPE | grep -v ^/run/credentials | sort -u`,
}

// system returns what systemTable says now.
func (s *packageSite) system() map[string]string {
	s.Helper()
	now := map[string]string{}
	for name, command := range systemTable {
		now[name] = s.host.Must(s.T, "sh", "-c", command)
	}
	return now
}

// asBefore compares what systemTable says now with what it said before the package was installed.
func (s *packageSite) asBefore(when string) {
	s.Helper()
	now := s.system()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		for _, line := range missing(s.before[name], now[name]) {
			s.Errorf("%s, %s: without %q", when, name, line)
		}
		for _, line := range missing(now[name], s.before[name]) {
			s.Errorf("%s, %s: with %q", when, name, line)
		}
	}
}

// missing returns the lines of a text that another one lacks.
func missing(text, from string) []string {
	there := map[string]bool{}
	for line := range strings.SplitSeq(from, "\n") {
		there[line] = true
	}
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return there[line] })
}
