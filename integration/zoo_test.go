//go:build lab

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// pace is how long things take in a zoo. The deadline is short, because many animals use it up; margin allows for two
// switches or full reboots on a machine that is busy with other things.
type pace struct{ deadline, margin time.Duration }

var nspawnPace = pace{30 * time.Second, 3 * time.Minute}

// zooConfig is the configuration of the good root, by which the next one is judged.
const zooConfig = `[health]
deadline = %q
settle = "1s"
active = ["ssh.service", "nginx.service", "systemd-journald.service"]
[switch]
shutdown-deadline = "2m"
`

// An animal is a bad image: the changes to image 2, and what happens to a host that applies it.
type animal struct {
	name string
	over []layerEntry
	// reason is the cause as the history shows it.
	reason string
	// A refused image is not even staged. The agent copes with a harmless one. From all others the host comes back.
	refused, harmless bool
	// boots is the number of full reboots: 1 by the guard, 2 where the root crashes the kernel before anything could
	// record why, because the first time could have been a power cut.
	boots int
	// slow is the time beyond the deadline, for causes that show only then, or when systemd does not answer.
	slow time.Duration
	// before changes the good root, as an operator might; after undoes what the animal did to /var or the kernel.
	before, after func(s *site)
}

// quickAnimals are those that confirm detects as soon as the root is up, or earlier: the part of the zoo that always
// runs.
func quickAnimals(s *site) []animal {
	sshd, err := os.ReadFile(filepath.Join(s.tree("1"), "etc/ssh/sshd_config"))
	if err != nil {
		s.Fatal(err)
	}
	passwd, err := os.ReadFile(filepath.Join(s.tree("2"), "etc/passwd"))
	if err != nil {
		s.Fatal(err)
	}
	_, rootless, _ := strings.Cut(string(passwd), "\n") // root is the first line
	return []animal{
		{name: "no init", refused: true, reason: "image has no init",
			over: []layerEntry{gone("usr/lib/systemd/systemd"), gone("usr/sbin/init")}},
		{name: "a required check fails", reason: "required.d/10-app: exit code 3: the database does not answer",
			over: []layerEntry{aProgram(checks+"required.d/10-app",
				"#!/bin/sh\necho the database does not answer >&2\nexit 3\n")}},
		// The operator has changed one of two files that belong together, so only the other one is the image's.
		{name: "conflict in etc breaks sshd", reason: "ssh.service",
			over: []layerEntry{
				aFile("etc/ssh/sshd_config", string(sshd)+"AuthorizedKeysCommandUser nobody\n"),
				aFile("etc/ssh/sshd_config.d/60-keys.conf", "AuthorizedKeysCommand /usr/bin/true\n"),
			},
			before: func(s *site) {
				s.host.Must(s.T, "sh", "-ec", "echo MaxAuthTries 3 >> /etc/ssh/sshd_config; systemctl reload ssh")
			}},
		{name: "passwd without root", harmless: true, over: []layerEntry{aFile("etc/passwd", rootless)}},
	}
}

// zoo is a host on a good root, image 1, that applies one bad image after the other.
type zoo struct {
	*site
	pace
	one string
}

func newZoo(t *testing.T, o lab.Options, p pace) *zoo {
	t.Helper()
	s := newSiteOf(t, o)
	s.hastens(fmt.Sprintf(zooConfig, p.deadline+p.margin))
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.unguarded()
	s.hastens(fmt.Sprintf(zooConfig, p.deadline))
	return &zoo{s, p, s.roots["1"]}
}

// visit applies every animal, and then a good image 2, which stays.
func (z *zoo) visit(animals []animal) {
	z.Helper()
	for _, a := range animals {
		z.Run(a.name, func(t *testing.T) { (&zoo{z.in(t), z.pace, z.one}).meets(a) })
	}
	z.Run("a good image", func(t *testing.T) {
		z := &zoo{z.in(t), z.pace, z.one}
		z.publish("2", "os/server:stable")
		z.hastens(fmt.Sprintf(zooConfig, z.deadline+z.margin))
		z.switches("apply", "--unattended")
		z.runs(z.roots["2"], "2")
		z.unguarded()
		z.updatectl(exitDone, "confirm")
	})
}

// meets applies one animal.
func (z *zoo) meets(a animal) {
	z.Helper()
	if a.before != nil {
		a.before(z.site)
	}
	image, root := z.variant(strings.ReplaceAll(a.name, " ", "-"), "2", a.over...)
	if a.refused {
		before := z.condition()
		z.refused(exitIncompatible, a.reason, "nothing was staged", "apply", "--from", image)
		z.untouched(before)
		return
	}
	probe := z.host.NewProbe(z.T)
	defer probe.Stop()
	etc, state := z.etc(), z.state()
	if a.harmless {
		z.switches("apply", "--from", image)
		z.runs(root, "2")
		z.host.Must(z.T, "sh", "-ec", "getent passwd root | grep -q ^root:x:0:0:; su root -c true")
		z.switches("rollback")
	} else {
		z.comesBackFrom(a, image, root)
	}
	z.runs(z.one, "1")
	z.unarmed()
	z.unguarded()
	if now := z.etc(); now != etc {
		z.Errorf("/etc of the good root has changed: %s", lineDiff(etc, now))
	}
	if now := z.state(); now != state {
		z.Errorf("something is left over: %s", lineDiff(state, now))
	}
	z.serves(probe)
}

// comesBackFrom applies a bad image and expects the host to be back on the good root, with the reason.
func (z *zoo) comesBackFrom(a animal, image, root string) {
	z.Helper()
	limit := z.deadline + a.slow + z.margin
	switch {
	case a.boots == 0:
		z.softlyBack(limit, image)
	default:
		for attempt := range a.boots {
			z.bootedBack(limit, image)
			if bad := z.status().Bad[root]; attempt+1 < a.boots && bad.Reason != "" {
				z.Errorf("a root is bad after a single crash: %s", bad.Reason)
			}
		}
	}
	if a.after != nil {
		a.after(z.site)
	}
	code := exitUnhealthy
	if a.boots > 1 {
		code = exitDone // no cause was seen: the host was only rebooted, twice
	}
	z.updatectl(code, "confirm")
	v := z.status()
	bad := v.Bad[root]
	z.Logf("reason: %s", bad.Reason)
	if !strings.Contains(bad.Reason, a.reason) {
		z.Errorf("the root is bad because %q, want %q in it", bad.Reason, a.reason)
	}
	if a.boots < 2 && (v.Last == nil || v.Last.Outcome != "unhealthy" || v.Last.Target != root ||
		!strings.HasPrefix(v.Last.Reason, bad.Reason)) {
		z.Errorf("the last switch is %+v", v.Last)
	}
	for _, command := range []string{"status", "history"} {
		if text := z.updatectl(exitDone, command).Stdout; !mentions(text, bad.Reason) {
			z.Errorf("%s does not say %q:\n%s", command, bad.Reason, text)
		}
	}
	z.refusedAsBad(root, "apply", "--from", image)
	if why := z.skipped("--from", image); !strings.Contains(why, bad.Reason) {
		z.Errorf("an unattended apply skips it because %q", why)
	}
}

// takes applies an image and returns the time at which the reboot was requested.
func (z *zoo) takes(image string) time.Time {
	z.Helper()
	if r := z.host.Run(z.Context(), "updatectl", "apply", "--unattended", "--from", image); r.Code != 0 &&
		r.Code < 128 {
		z.Fatalf("updatectl apply: %s", r)
	}
	return time.Now()
}

// softlyBack applies an image and waits for two soft reboots.
func (z *zoo) softlyBack(limit time.Duration, image string) {
	z.Helper()
	before, err := z.host.Stamp(z.Context())
	if err != nil {
		z.Fatal(err)
	}
	start := z.takes(image)
	z.restartsTwice(before, limit)
	z.back(start, limit)
}

// bootedBack applies an image, waits for a full reboot, and boots the host again in place of its firmware.
func (z *zoo) bootedBack(limit time.Duration, image string) {
	z.Helper()
	start := z.takes(image)
	if _, err := z.host.AwaitReboot(z.Context(), limit); err != nil {
		z.Fatalf("%v\n%s", err, z.host.Console())
	}
	z.settledAfterBoot()
	z.back(start, limit)
}

// back expects the good root, within the limit.
func (z *zoo) back(start time.Time, limit time.Duration) {
	z.Helper()
	z.upAgain()
	took := time.Since(start).Round(time.Second)
	if z.Logf("back after %v", took); took > limit {
		z.Errorf("the host was back after %v, want %v", took, limit)
	}
	if got := z.host.Must(z.T, "cat", "/usr/share/lab/version", "/run/lab-identity"); got != "1\n1" {
		z.Fatalf("booted is %q, want the good root", got)
	}
}

// settledAfterBoot waits until the host has resumed a root after a full reboot.
func (z *zoo) settledAfterBoot() {
	z.Helper()
	z.host.Await(z.T, z.margin, func() bool {
		stamp, err := z.host.Stamp(z.Context())
		return err == nil && stamp.SoftReboots > 0
	})
}

// etc returns names, modes, owners and digests of everything in /etc, without the files that systemd updates.
func (z *zoo) etc() string {
	z.Helper()
	return z.host.Must(z.T, "sh", "-ec",
		`cd /etc; find . \( -type f -o -type l \) -printf '%p %m %U:%G %l\n' | sort
find . -type f -not -name .updated -exec sha256sum {} + | sort -k 2`)
}

// state returns what a rolled-back switch could leave behind: mounts, and files that are not there at all times. What
// the last unattended run waited for, attempt.json, stays until the next one.
func (z *zoo) state() string {
	z.Helper()
	return z.host.Must(z.T, "sh", "-ec", `
findmnt --noheadings --list --output TARGET,SOURCE | grep -v -e user/ -e credentials -e ^/proc/ | sort
find /var/lib/updatectl /run/updatectl -maxdepth 2 -name '.*'
ls -A /var/lib/updatectl /run/updatectl |
	grep -v -e attempt.json -e health.json -e healthy.json -e verdict.json -e spare -e started`)
}

// serves expects the web server to answer a client outside with the page of image 1.
func (z *zoo) serves(probe *lab.Probe) {
	z.Helper()
	if !z.host.Await(z.T, z.host.Patience(), func() bool {
		answers := probe.Answers()
		return strings.HasSuffix(answers[len(answers)-1].Text, "version 1") && len(probe.Outages()) > 0
	}) {
		z.Errorf("the host answers with %v after outages %v", probe.Answers(), probe.Outages())
	}
}

// lineDiff returns the lines that only one of two texts has.
func lineDiff(before, after string) string {
	b, a := strings.Split(before, "\n"), strings.Split(after, "\n")
	var out []string
	for _, line := range b {
		if !slices.Contains(a, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range a {
		if !slices.Contains(b, line) {
			out = append(out, "+ "+line)
		}
	}
	return "\n" + strings.Join(out, "\n")
}

// TestZoo is the quick part of the zoo of bad images.
func TestZoo(t *testing.T) {
	beside(t, lab.Nspawn)
	z := newZoo(t, lab.Options{Name: "zoo"}, nspawnPace)
	z.visit(quickAnimals(z.site))
}
