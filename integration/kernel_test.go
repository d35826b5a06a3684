//go:build lab && vm

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// hold starts a service that blocks in the kernel, in a module of the lab, until a signal kills it.
func (s *site) hold() {
	s.Helper()
	s.host.Must(s.T, "systemd-run", "--quiet", "--collect", "--unit=pump", "cat", "/proc/lab_hold")
	if !s.host.Await(s.T, s.host.Patience(), func() bool {
		return s.host.Sh(s.Context(),
			`grep -q lab_hold_wait /proc/$(systemctl show --value --property=MainPID pump)/stack`).Code == 0
	}) {
		s.Fatal("nobody is blocked in /proc/lab_hold")
	}
}

// with publishes, under the tag that hosts follow, a release of a version's image with live patches and with the CVEs
// that the image's kernel fixes.
func (s *site) with(version, sequence, layout string, image []string, fixes ...fix) {
	s.Helper()
	draft := s.draft(version, sequence)
	s.releasectl(append(append([]string{"release", "add", "image"}, image...), draft, "oci:"+layout)...)
	s.add(draft, fixes...)
	s.sign(version, s.push(version, draft))
	s.offerAs(version, newest)
}

// TestVMKernel switches one running kernel through several images: from the one that it belongs to, over two with
// newer kernels, to one without any. The kernel keeps its modules and live patches, whatever gc removes, and status
// shows what it lacks. A live patch that has to wait for a task is reverted, and is loaded in the next userspace.
func TestVMKernel(t *testing.T) {
	beside(t, lab.QEMU)
	s := newPublisher(t)
	two, rootOfTwo := s.variantLayout("two", "2", aFile("usr/lib/sysctl.d/10-lab.conf",
		"net.ipv4.tcp_keepalive_time = 1234\n"))
	staged := []string{s.offerLayout("two", two, s.publisher.Key)}
	for _, version := range []string{"1", "3", "nokernel"} {
		s.publish(version, "os/"+version+":stable")
		staged = append(staged, "os/"+version+":stable")
	}
	s.boot(lab.Options{Name: "vmkernel", Kind: lab.QEMU, Customise: func(root string) error {
		return os.WriteFile(filepath.Join(root, "etc/sysctl.d/10-of-the-host.conf"),
			[]byte("net.ipv4.ip_default_ttl = 70\n"), 0o644)
	}}, func(root string) error {
		const dropIn = "etc/updatectl/conf.d/10-live.toml"
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, dropIn)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, dropIn), []byte("[livepatch]\ndeadline = \"1m\"\n"),
			0o644); err != nil {
			return err
		}
		return s.stageAhead(root, staged...)
	})
	h := s.host
	modules, kernel := s.modules("1"), s.kernelOfHost()
	boot := h.Must(t, "cat", "/proc/sys/kernel/random/boot_id")
	if got := filepath.Base(s.modulesDir("1")); got != kernel.Release {
		t.Fatalf("%s runs, which is not the kernel of image 1, %s", kernel.Release, got)
	}
	step := func(name string, do func(s *site, t *testing.T)) {
		if !t.Run(name, func(t *testing.T) { do(s.in(t), t) }) {
			t.FailNow() // later parts depend on it
		}
	}
	// runsOn expects the same kernel in another root, with its modules.
	runsOn := func(s *site, root, version, modulesFrom, module string) {
		s.Helper()
		s.runs(root, version)
		if now := s.kernelOfHost(); now != kernel {
			s.Errorf("the kernel is %+v, was %+v", now, kernel)
		}
		if got := h.Must(s.T, "cat", "/proc/sys/kernel/random/boot_id"); got != boot {
			s.Error("that was a full reboot")
		}
		s.gone(module)
		h.Must(s.T, "modprobe", module)
		h.Must(s.T, "test", "-e", "/sys/module/"+module)
		if k := s.kernel(); k.ModulesFrom != modulesFrom {
			s.Errorf("its modules come from %q, want %q", k.ModulesFrom, modulesFrom)
		}
	}
	says := func(s *site, command []string, want ...string) {
		s.Helper()
		text := s.updatectl(exitDone, command...).Stdout
		for _, w := range want {
			if !mentions(text, w) {
				s.Errorf("%s does not say %q:\n%s", strings.Join(command, " "), w, text)
			}
		}
	}
	// blocked reports whether a reason names the service that blocks a transition, and where in the kernel it is.
	blocked := func(reason string) bool {
		return strings.Contains(reason, "pump.service") && strings.Contains(reason, "lab_hold_wait")
	}
	layout := func(s *site, version string) string {
		s.Helper()
		dir, err := s.publisher.Layout(s.Context(), s.tree(version))
		if err != nil {
			s.Fatal(err)
		}
		return dir + ":latest"
	}
	first := fix{modules["lab_fix"], kernel, "CVE-2026-0001"}
	waits := fix{modules["lab_fix_hold"], kernel, "CVE-2026-0001,CVE-2026-0002"}
	last := fix{modules["lab_fix2"], kernel, "CVE-2026-0001,CVE-2026-0002,CVE-2026-0003"}

	step("the image it belongs to", func(s *site, t *testing.T) {
		s.with("1.0", "1", layout(s, "1"), []string{"--kernel-release", kernel.Release, "--fixes", "CVE-2026-1000"})
		s.switches("apply")
		runsOn(s, s.roots["1"], "1", "", "dummy")
		s.covered("CVE-2026-1000: fixed by image")
		s.updatectl(exitDone, "unpin", s.roots["1"])
	})

	newer := filepath.Base(s.modulesDir("2"))
	fixesOfTwo := []string{"--kernel-release", newer, "--fixes", "CVE-2026-0001,CVE-2026-0002,CVE-2026-0003"}
	step("a newer kernel, and live patches for the one that runs", func(s *site, t *testing.T) {
		if err := h.CopyIn(t.Context(), modules["lab_hold"], "/root/lab_hold.ko"); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "insmod", "/root/lab_hold.ko")
		s.hold()
		// A service of the old root records the kernel's version when it is stopped.
		h.Must(t, "systemd-run", "--quiet", "--collect", "--unit=witness",
			`--property=ExecStop=/bin/sh -c "cat /proc/version > /var/tmp/witness"`, "sleep", "infinity")
		s.with("2.0", "2", two+":stable", fixesOfTwo, first, waits)
		s.saysVersion("")
		s.switches("apply")
		runsOn(s, rootOfTwo, "2", s.roots["1"], "ip_vs")
		if got := h.Must(t, "cat", "/var/tmp/witness"); !strings.HasSuffix(got, ", lab fix 1") {
			t.Errorf("before the switch, /proc/version said %q", got)
		}
		s.saysVersion(", lab fix 1")
		s.effective("lab_fix_hold")
		s.covered("lab_fix: superseded", "lab_fix_hold: effective",
			"CVE-2026-0001: fixed by live patch lab_fix_hold", "CVE-2026-0002: fixed by live patch lab_fix_hold",
			"CVE-2026-0003: open")
		says(s, []string{"status"}, "CVE-2026-0003", kernel.Release, kernel.BuildID)

		var story []string
		for _, e := range s.history() {
			if e.Event == "switching" || e.LivePatch != "" {
				story = append(story, strings.TrimSpace(e.Event+" "+e.LivePatch))
			}
			if e.Event == "live patch failed" && !blocked(e.Reason) {
				t.Errorf("the history does not say what the patch waited for: %s", e.Reason)
			}
		}
		want := []string{"switching", "live patch failed lab_fix_hold", "live patch effective lab_fix", "switching",
			"live patch effective lab_fix_hold", "live patch replaced lab_fix"}
		if !slices.Equal(story, want) {
			t.Errorf("history has\n%s\nwant\n%s", strings.Join(story, "\n"), strings.Join(want, "\n"))
		}

		if got := h.Must(t, "cat", "/proc/sys/net/ipv4/tcp_keepalive_time",
			"/proc/sys/net/ipv4/ip_default_ttl"); got != "1234\n70" {
			t.Errorf("not exactly the image's sysctl.d is in force: %q", got)
		}
		says(s, []string{"status", "--kernel"}, kernel.Release, newer, "net.ipv4.ip_default_ttl = 70", "Modules")
		if k := s.kernel(); len(k.Sysctls) != 1 || k.Sysctls[0].Key != "net.ipv4.ip_default_ttl" ||
			k.Release != kernel.Release {
			t.Errorf("status --kernel is %+v", k)
		}
	})

	step("a task that holds a transition up, and nothing newer", func(s *site, t *testing.T) {
		s.updatectl(exitDone, "livepatch", "revert", "lab_fix_hold")
		s.gone("lab_fix_hold")
		s.updatectl(exitAvailable, "check") // of lab_fix: the operator does not want its successor
		s.updatectl(exitDone, "apply")
		s.effective("lab_fix")
		s.updatectl(exitDone, "check")
		s.hold()
		before, record := s.inKernel(), s.condition()
		const hint = "updatectl apply --level soft"
		for _, command := range [][]string{{"livepatch", "apply", "lab_fix_hold"}, {"apply"}} {
			s.refused(exitBlocked, "lab_fix_hold: cat (process ", hint, command...)
			if after := s.inKernel(); after != before {
				t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
			}
			s.untouched(record)
			s.covered("lab_fix: effective", "lab_fix_hold: not loaded",
				"CVE-2026-0001: fixed by live patch lab_fix", "CVE-2026-0002: open lab_fix_hold",
				"CVE-2026-0003: open")
			s.updatectl(exitAvailable, "check")
			if last := s.history()[len(s.history())-1]; last.Event != "live patch failed" || !blocked(last.Reason) {
				t.Errorf("history ends with %+v", last)
			}
		}
		stamp, err := h.Stamp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after := s.switches("apply", "--level", "soft"); after.SoftReboots != stamp.SoftReboots+1 {
			t.Errorf("%+v became %+v, want one soft reboot", stamp, after)
		}
		runsOn(s, rootOfTwo, "2", s.roots["1"], "xt_LED")
		s.effective("lab_fix_hold")
		s.covered("lab_fix: superseded", "lab_fix_hold: effective",
			"CVE-2026-0001: fixed by live patch lab_fix_hold", "CVE-2026-0002: fixed by live patch lab_fix_hold",
			"CVE-2026-0003: open")
		s.updatectl(exitDone, "check")
	})

	step("a third kernel", func(s *site, t *testing.T) {
		s.with("3.0", "3", layout(s, "3"), []string{"--kernel-release", filepath.Base(s.modulesDir("3"))}, waits,
			last)
		s.switches("apply")
		runsOn(s, s.roots["3"], "3", s.roots["1"], "nbd")
		s.saysVersion(", lab fix 2")
		s.effective("lab_fix2")
		s.gone("lab_fix", "lab_fix_hold")
		if got := h.Must(t, "cat", "/proc/sys/net/ipv4/tcp_keepalive_time"); got != "1234" {
			t.Errorf("the sysctl of the image before is %s", got)
		}
		says(s, []string{"status", "--kernel"}, "net.ipv4.tcp_keepalive_time = 1234",
			rootOfTwo[:len("sha256-123456789012")])
		s.updatectl(exitDone, "gc", "--all")
		for _, r := range s.status().Good {
			if r.Root == s.roots["1"] {
				t.Fatal("the first image is still good: this shows nothing")
			}
		}
		h.Must(t, "sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
		h.Must(t, "modprobe", "ip_vs_rr")
	})

	step("no kernel at all", func(s *site, t *testing.T) {
		s.with("4.0", "4", layout(s, "nokernel"), nil, waits, last)
		s.switches("apply")
		runsOn(s, s.roots["nokernel"], "nokernel", s.roots["1"], "xt_mark")
		if k := s.kernel(); len(k.Own) != 0 {
			t.Errorf("the root has the kernels %+v", k.Own)
		}
		s.updatectl(exitDone, "gc", "--all")
		h.Must(t, "sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
		h.Must(t, "modprobe", "ip_vs_wrr")
		s.saysVersion(", lab fix 2")
		s.covered("lab_fix: no longer published", "lab_fix_hold: superseded", "lab_fix2: effective",
			"CVE-2026-0001: fixed by live patch lab_fix2", "CVE-2026-0002: fixed by live patch lab_fix2",
			"CVE-2026-0003: fixed by live patch lab_fix2")
	})

	step("a full reboot", func(s *site, t *testing.T) { // a live patch that is held lets the one before it in
		s.updatectl(exitDone, "livepatch", "revert", "lab_fix2")
		if _, err := h.FullReboot(t.Context(), "systemctl", "reboot"); err != nil {
			t.Fatal(err)
		}
		s.settled()
		s.effective("lab_fix_hold")
		s.saysVersion(", lab fix 1")
		s.gone("lab_fix", "lab_fix2")
		s.covered("lab_fix: no longer published", "lab_fix_hold: effective", "lab_fix2: held",
			"CVE-2026-0001: fixed by live patch lab_fix_hold", "CVE-2026-0002: fixed by live patch lab_fix_hold",
			"CVE-2026-0003: open lab_fix2")
		s.comesFirst("livepatch: 'lab_fix_hold': patching complete", "Reached target network-pre.target",
			"Starting systemd-networkd.service")
	})
}
