//go:build lab

package integration

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestJourney is the main job: a Debian host switches from its host root to image 1 and to image 2, and rolls back to
// image 1 and to the host root, while the kernel keeps running and the host keeps its data.
func TestJourney(t *testing.T) {
	s := newSite(t, "journey")
	h := s.host
	probe := h.NewProbe(t)
	kernel := h.Must(t, "uname", "-r")
	boot := h.Must(t, "cat", "/proc/sys/kernel/random/boot_id")
	// The host has no modules for the kernel of the machine that runs the lab; give it some to be carried over.
	h.Must(t, "sh", "-ec",
		`d=/usr/lib/modules/$(uname -r); mkdir -p $d/kernel; echo here > $d/kernel/x.ko; touch $d/modules.dep`)
	h.Must(t, "sh", "-ec",
		`echo kept > /var/lib/of-the-host; echo kept > /srv/file; redis-cli set story kept
useradd --create-home --groups sudo alice`)
	h.Must(t, "sh", "-ec", `echo alice:secret | chpasswd`)
	h.Must(t, "touch", "/run/of-the-host")
	identity := h.Must(t, "cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key")
	s.updatectl(exitAvailable, "check")
	s.updatectl(exitAvailable, "stage")
	p := s.plans(exitAvailable)
	if p.Decision.Level != "soft" || p.Kernel != kernel || p.Etc == nil || !slices.Contains(p.Carried, "/var") ||
		len(p.Vouchers) != 1 || p.Vouchers[0].Signer != "release.pub" || p.Vouchers[0].Form != "bundle" {
		t.Errorf("the plan is %+v", p)
	}
	before := s.packages()
	if why := p.check("kernel modules"); !strings.Contains(why, "carried over") {
		t.Errorf("the plan says of the kernel's modules: %q", why)
	}

	kept := func() {
		t.Helper()
		s.unguarded() // the guard keeps how long the switch took
		for command, want := range map[string]string{
			"cat /var/lib/of-the-host /srv/file":                "kept\nkept",
			"redis-cli get story":                               "kept",
			"uname -r":                                          kernel,
			"cat /proc/sys/kernel/random/boot_id":               boot,
			"id -nG alice":                                      "alice sudo",
			"stat -c %U /home/alice":                            "alice",
			"cat /usr/lib/modules/*/kernel/x.ko":                "here",
			"hostname":                                          "journey",
			"cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key": identity,
			"ls /run/of-the-host":                               "/run/of-the-host",
			"systemctl is-active nginx ssh":                     "active\nactive",
			"stat -c %a:%U:%G /var/lib/updatectl":               "700:root:root",
			"stat -c %U:%G /var/lib/redis":                      "redis:redis",
			"findmnt -no FSTYPE /run/nextroot; :":               "",
			"systemctl is-active updatectl-arm; :":              "inactive",
		} {
			if got := h.Must(t, "sh", "-c", command+" 2>/dev/null"); got != want {
				t.Errorf("%s: %q, want %q", command, got, want)
			}
		}
		if shadow := h.Must(t, "getent", "shadow", "alice"); !strings.Contains(shadow, ":$") {
			t.Errorf("alice has lost her password: %s", shadow)
		}
	}
	samePackages := func(version string) {
		t.Helper()
		want, err := exec.Command("dpkg-query", "--admindir", s.tree(version)+"/var/lib/dpkg", "-W").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Must(t, "dpkg-query", "-W"); got != strings.TrimRight(string(want), "\n") {
			t.Errorf("dpkg does not list the packages of image %s", version)
		}
	}
	etcOf := func(motto string) {
		t.Helper()
		if got := h.Must(t, "grep", "motto", "/etc/lab/changing.conf"); !strings.Contains(got, motto) {
			t.Errorf("/etc/lab/changing.conf says %q, want %q", got, motto)
		}
	}

	t.Log("host -> 1")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	kept()
	samePackages("1")
	s.cameAsPlanned(p, before)
	h.Must(t, "systemctl", "is-active", "cron")
	etcOf("one")
	if r := h.Run(t.Context(), "touch", "/usr/x"); r.Code == 0 || !strings.Contains(r.Stderr, "Read-only") {
		t.Errorf("the root can be written: %s", r)
	}
	h.Must(t, "sh", "-ec", `echo "mine = yes" >> /etc/lab/constant.conf; useradd bob; redis-cli set story2 kept2`)
	s.updatectl(exitDone, "check")

	t.Log("1 -> 2")
	s.publish("2", "os/server:stable")
	s.updatectl(exitAvailable, "stage")
	p, before = s.plans(exitAvailable), s.packages()
	files := s.filesOfImage()
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	kept()
	samePackages("2")
	s.cameAsPlanned(p, before)
	if added, removed := lacking(s.filesOfImage(), files), lacking(files, s.filesOfImage()); p.Files == nil ||
		p.Files.Added != len(added) || p.Files.Removed != len(removed) {
		t.Errorf("the plan says of files %+v; %d were added, %d removed: %v %v", p.Files, len(added), len(removed),
			added[:min(len(added), 20)], removed[:min(len(removed), 20)])
	}
	etcOf("two") // not changed on this host, so it is the image's
	s.mergedBefore(s.roots["2"])
	h.Must(t, "systemctl", "is-active", "memcached")
	if r := h.Run(t.Context(), "systemctl", "is-active", "cron"); r.Code == 0 {
		t.Error("cron runs, which image 2 does not have")
	}
	h.Must(t, "grep", "mine = yes", "/etc/lab/constant.conf")
	h.Must(t, "id", "bob")
	if got := h.Must(t, "redis-cli", "get", "story2"); got != "kept2" {
		t.Errorf("redis lost what was written under image 1: %q", got)
	}
	h.Must(t, "sh", "-ec", `echo "only in 2" > /etc/only-in-2`)
	s.removedNothing() // the host can still roll back

	t.Log("2 -> 1")
	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	kept()
	samePackages("1")
	etcOf("one")
	h.Must(t, "grep", "mine = yes", "/etc/lab/constant.conf")
	if r := h.Run(t.Context(), "test", "-e", "/etc/only-in-2"); r.Code == 0 {
		t.Error("the rollback kept a file of the root before")
	}
	s.refusedAsBad(s.roots["2"], "apply")
	s.skipped()

	t.Log("1 -> host")
	s.switches("rollback")
	s.runs("host", "host")
	kept()
	h.Must(t, "id", "bob") // people come along to the host root, too; other files of /etc do not

	t.Log("host -> 2, on purpose")
	if by := s.plans(exitBlocked).Outage; by == nil || by.From != 2 {
		t.Errorf("the plan predicts %+v, want it from 2 switches of the same kind", by)
	} else {
		t.Logf("predicted are %v", by.Outage)
	}
	s.switches("apply", "--retry")
	s.runs(s.roots["2"], "2")
	kept()

	history, count := s.history(), map[string]int{}
	for _, e := range history {
		count[e.Event]++
	}
	for _, event := range []string{"staged", "switching", "good"} {
		if count[event] < 2 {
			t.Errorf("the history does not show %q twice: %+v", event, history)
		}
	}
	outages := slices.DeleteFunc(probe.Outages(), lab.Outage.IsLate)
	if len(outages) != 5 {
		t.Errorf("the web server was away %d times, want 5: %v", len(outages), outages)
	}
	t.Logf("outages: %v", outages)
	s.measuredAs(outages)
	var seen []string
	for _, answer := range probe.Answers() {
		seen = append(seen, strings.TrimPrefix(answer.Text, "lab "))
	}
	const story = "host root, image version 1, image version 2, image version 1, host root, image version 2"
	if got := strings.Join(seen, ", "); got != story {
		t.Errorf("clients outside saw %q, want %q", got, story)
	}
}

// mergedBefore expects that the /etc of a root that was switched to was made before the switch was requested.
func (s *site) mergedBefore(root string) {
	s.Helper()
	var requested time.Time
	for _, e := range s.history() {
		if e.Event == "switching" && e.Root == root {
			requested = e.At
		}
	}
	born, err := strconv.ParseFloat(s.host.Must(s.T, "stat", "--format=%.6W", "/var/lib/updatectl/roots/"+root+"/etc"), 64)
	if err != nil || born == 0 || born > float64(requested.UnixMicro())/1e6 {
		s.Errorf("its /etc was made at %f (%v), and the switch was requested at %v", born, err, requested)
	}
}
