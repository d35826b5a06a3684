//go:build lab

package integration

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/integration/lab"
)

// A fix is an entry for a live patch in a release.
type fix struct {
	file   string
	kernel lab.Kernel
	cves   string
}

// add adds live patches to a draft.
func (s *site) add(draft string, fixes ...fix) {
	s.Helper()
	for _, f := range fixes {
		args := []string{"livepatch", "add", "--kernel-release", f.kernel.Release, "--kernel-version",
			f.kernel.Version, "--kernel-build-id", f.kernel.BuildID}
		if f.cves != "" {
			args = append(args, "--fixes", f.cves)
		}
		s.releasectl(append(args, draft, f.file)...)
	}
}

// fixes publishes a release of live patches only as os/server:VERSION, and returns its full name.
func (s *site) fixes(version, sequence string, fixes ...fix) string {
	s.Helper()
	draft := s.draft(version, sequence)
	s.add(draft, fixes...)
	s.sign(version, s.push(version, draft))
	return s.registry.Host + "/os/server:" + version
}

// modules returns the files of the lab's kernel modules for a version's kernel, by name.
func (s *site) modules(version string) map[string]string {
	s.Helper()
	modules, err := lab.Modules(s.Context(), s.tree(version))
	if err != nil {
		s.Fatal(err)
	}
	return modules
}

// kernelOfHost returns the kernel that runs in the host.
func (s *site) kernelOfHost() lab.Kernel {
	s.Helper()
	k, err := s.host.Kernel(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return k
}

// livePatch is the part of a live patch in JSON output that the tests read.
type livePatch struct {
	Name, State, Reason string
	Fixes               []string
	Stored              bool
	Blockers            []struct {
		Name, Unit string
		Ends       bool
		Stack      []string
	}
}

// liveStatus is the part about the kernel of `updatectl status --output json` that the tests read.
type liveStatus struct {
	Kernel struct {
		LivePatches []livePatch `json:"live_patches"`
	}
	Fixes []struct{ CVE, State, By, Reason string }
}

func (s *site) liveStatus() liveStatus {
	s.Helper()
	var v liveStatus
	s.answer(&v, exitDone, "status")
	return v
}

// covered expects the live patches and fixes in status, each as "NAME: STATE" or "CVE: STATE BY", in JSON and in text.
func (s *site) covered(want ...string) {
	s.Helper()
	var got []string
	v := s.liveStatus()
	for _, p := range v.Kernel.LivePatches {
		got = append(got, p.Name+": "+p.State)
	}
	for _, f := range v.Fixes {
		got = append(got, strings.TrimSpace(f.CVE+": "+f.State+" "+f.By))
	}
	if !slices.Equal(got, want) {
		s.Errorf("status has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text := s.updatectl(exitDone, "status").Stdout
	for _, line := range want {
		name, state, _ := strings.Cut(line, ": ")
		if state == "no longer published" || state == "for another kernel" { // in JSON only
			continue
		}
		state, _, _ = strings.Cut(state, " lab_") // of an open one, the text says more in between
		if !slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool {
			return strings.Contains(l, name) &&
				strings.Contains(l, state)
		}) {
			s.Errorf("status does not say %q:\n%s", line, text)
		}
	}
}

// inKernel is what the kernel itself shows of modules and live patches.
func (s *site) inKernel() string {
	s.Helper()
	return s.host.Must(s.T, "sh", "-ec", `cut -d' ' -f1 /proc/modules | sort
cd /sys/kernel/livepatch && for p in *; do [ ! -e $p/enabled ] || echo $p $(cat $p/enabled $p/transition); done
cat /proc/version /proc/sys/kernel/tainted`)
}

// effective expects the kernel to report a live patch as enabled and not in transition.
func (s *site) effective(name string) {
	s.Helper()
	if got := s.host.Must(s.T, "sh", "-c",
		"cd /sys/kernel/livepatch/"+name+" && cat enabled transition"); got != "1\n0" {
		s.Errorf("%s is %q (enabled, transition)", name, got)
	}
}

// gone expects the kernel to have no modules of these names.
func (s *site) gone(names ...string) {
	s.Helper()
	for _, name := range names {
		s.host.Must(s.T, "test", "!", "-e", "/sys/module/"+name)
	}
}

// saysVersion expects /proc/version to end with the text of a live patch, or, for "", the kernel to be unpatched.
func (s *site) saysVersion(patch string) {
	s.Helper()
	got := s.host.Must(s.T, "cat", "/proc/version")
	if patch == "" && strings.Contains(got, "lab fix") || !strings.HasSuffix(got, patch) {
		s.Errorf("/proc/version says %q, want %q", got, patch)
	}
}

// TestVMLivePatch is the life of a live patch: one that is not trusted, or for another kernel, leaves the kernel
// untouched; any other is loaded without an outage, replaced by its successor, reverted, and stays away.
func TestVMLivePatch(t *testing.T) {
	beside(t, lab.QEMU)
	s := newSiteOf(t, lab.Options{Name: "vmlive", Kind: lab.QEMU})
	h := s.host
	ours, theirs := s.modules("1"), s.modules("2")
	kernel := s.kernelOfHost()
	good := fix{ours["lab_fix"], kernel, "CVE-2026-0001"}
	next := fix{ours["lab_fix2"], kernel, "CVE-2026-0001,CVE-2026-0002"}
	probe := h.NewProbe(t)
	nginx := h.Must(t, "systemctl", "show", "--property=MainPID", "nginx")
	boot, err := h.Stamp(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	t.Run("refused", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "udevadm", "settle", "--timeout=300") // device modules are still loaded when services are up
		before := s.inKernel()
		refused := func(code int, sentence, hint string, args ...string) {
			t.Helper()
			s.complains(code, sentence, hint, append([]string{"livepatch", "apply"}, args...)...)
			if after := s.inKernel(); after != before {
				t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
			}
		}
		other := lab.Kernel{Release: filepath.Base(s.modulesDir("2")), Version: kernel.Version,
			BuildID: kernel.BuildID}
		name := s.fixes("1.0", "1", fix{theirs["lab_fix"], other, "CVE-2026-0001"})
		refused(exitIncompatible, other.Release+", and this host runs "+kernel.Release, "livepatch list", "lab_fix",
			"--from", name)
		if found := s.checks(exitDone, "--from", name); found.Newer || found.Live {
			t.Errorf("check of a release for other kernels finds %+v", found)
		}
		var loaded struct{ Loaded []string }
		if s.answer(&loaded, exitDone, "livepatch", "apply", "--from", name); len(loaded.Loaded) > 0 {
			t.Errorf("a release for other kernels loads %v", loaded.Loaded)
		}

		draft := s.draft("1.2", "3")
		s.add(draft, good)
		s.push("1.2", draft)
		refused(exitNotTrusted, "no signature was found", "ask who published this image", "--from",
			s.registry.Host+"/os/server:1.2")

		name = s.fixes("1.3", "4", good)
		repair := s.spoil(digestOf(s, good.file), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		refused(exitNotTrusted, "does not match", "what was served is not what was signed", "--from", name)
		repair()

		if out := s.releasectlFails("livepatch", "add", "--kernel-version", kernel.Version, "--kernel-build-id",
			kernel.BuildID, s.draft("1.4", "5"), ours["lab_plain"]); !strings.Contains(out,
			"does not say that it is a live patch") {
			t.Errorf("releasectl prints for a module that is no live patch: %s", out)
		}
		draft = s.draft("1.4", "5")
		s.add(draft, good)
		plain, err := os.ReadFile(ours["lab_plain"])
		if err != nil {
			t.Fatal(err)
		}
		layout, _, _ := strings.Cut(draft, ":")
		if err := lab.SwapModule(layout, plain); err != nil {
			t.Fatal(err)
		}
		s.sign("1.4", s.push("1.4", draft))
		refused(exitIncompatible, "the module does not say that it is a live patch",
			"publisher", "--from", s.registry.Host+"/os/server:1.4")

		// A full reboot may start another build of that release, so the patch is kept. It comes last: from then on it
		// is stored.
		other = kernel
		other.BuildID = strings.Repeat("ab", 20)
		name = s.fixes("1.5", "6", fix{ours["lab_fix"], other, ""})
		refused(exitIncompatible, other.BuildID+", and this host runs "+kernel.BuildID, "livepatch list", "lab_fix",
			"--from", name)
		s.covered("lab_fix: for another kernel")
	})
	t.Run("loaded", func(t *testing.T) {
		s := s.in(t)
		s.fixes("2.0", "10", good)
		s.offerAs("2.0", newest)
		if found := s.checks(exitAvailable); found.Newer || !found.Live || len(found.LivePatches) != 1 ||
			found.LivePatches[0].Name != "lab_fix" || found.LivePatches[0].State != "not loaded" ||
			!slices.Equal(found.LivePatches[0].Fixes, []string{"CVE-2026-0001"}) {
			t.Errorf("check finds %+v", found)
		}
		if p := s.plans(exitAvailable); !p.Live {
			t.Errorf("the plan is %+v", p)
		}
		s.saysVersion("")
		if a := s.stays(); a.Level != "live" || !slices.Equal(a.Loaded, []string{"lab_fix"}) {
			t.Errorf("apply answers %+v", a)
		}
		s.effective("lab_fix")
		s.saysVersion(", lab fix 1")
		s.covered("lab_fix: effective", "CVE-2026-0001: fixed by live patch lab_fix")
		if found := s.checks(exitDone); found.Newer || found.Live {
			t.Errorf("check finds %+v", found)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		s := s.in(t)
		s.fixes("2.1", "11", good, next)
		s.offerAs("2.1", newest)
		s.updatectl(exitAvailable, "check")
		if a := s.stays(); a.Level != "live" || !slices.Equal(a.Loaded, []string{"lab_fix2"}) {
			t.Errorf("apply answers %+v", a)
		}
		s.effective("lab_fix2")
		s.gone("lab_fix")
		s.saysVersion(", lab fix 2")
		s.covered("lab_fix: superseded", "lab_fix2: effective", "CVE-2026-0001: fixed by live patch lab_fix2",
			"CVE-2026-0002: fixed by live patch lab_fix2")
		s.updatectl(exitDone, "check")
	})
	t.Run("its init fails", func(t *testing.T) { // here, because the kernel is already tainted
		s := s.in(t)
		h.Must(t, "udevadm", "settle", "--timeout=300") // device modules are still loaded when services are up
		before := s.inKernel()
		name := s.fixes("2.2", "12", fix{ours["lab_fix_fails"], kernel, "CVE-2026-0003"})
		s.complains(exitError, "lab_fix_fails: ", "journalctl -k", "livepatch",
			"apply", "--from", name)
		if after := s.inKernel(); after != before {
			t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
		}
		if all := s.history(); all[len(all)-1].Event != "live patch failed" || all[len(all)-1].LivePatch != "lab_fix_fails" {
			t.Errorf("the history does not end with it: %+v", all)
		}
	})
	t.Run("reverted", func(t *testing.T) {
		s := s.in(t)
		s.fixes("2.3", "13", good, next)
		s.offerAs("2.3", newest)
		var done struct{ Reverted []string }
		if s.answer(&done, exitDone, "livepatch", "revert", "lab_fix2"); !slices.Equal(done.Reverted, []string{"lab_fix2"}) {
			t.Errorf("revert answers %+v", done)
		}
		s.gone("lab_fix", "lab_fix2")
		s.saysVersion("")
		s.updatectl(exitDone, "apply")
		s.gone("lab_fix2")
		if all := s.liveStatus().Kernel.LivePatches; !slices.ContainsFunc(all, func(p livePatch) bool {
			return p.Name == "lab_fix2" && p.State == "held" && p.Reason != ""
		}) {
			t.Errorf("the live patches are %+v", all)
		}
	})
	t.Run("damaged on the disk", func(t *testing.T) {
		s := s.in(t)
		s.updatectl(exitDone, "livepatch", "revert") // whatever apply has loaded instead
		s.gone("lab_fix", "lab_fix2")
		before := s.inKernel()
		blob := "/var/lib/updatectl/oci/blobs/" + strings.Replace(digestOf(s, next.file), ":", "/", 1)
		h.Must(t, "sh", "-ec",
			"cp -a "+blob+" /root/blob; printf x | dd of="+blob+" bs=1 seek=5000 conv=notrunc status=none")
		s.complains(exitNotTrusted, "lab_fix2", "fetches it again", "livepatch", "apply",
			"--stored", "lab_fix2")
		if after := s.inKernel(); after != before {
			t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
		}
		h.Must(t, "mv", "/root/blob", blob)
		s.updatectl(exitDone, "livepatch", "apply", "--stored", "lab_fix2")
		s.effective("lab_fix2")
		s.saysVersion(", lab fix 2")
	})

	if now, err := h.Stamp(t.Context()); err != nil || now != boot {
		t.Errorf("%+v became %+v (%v): the host must not reboot", boot, now, err)
	}
	if now := h.Must(t, "systemctl", "show", "--property=MainPID", "nginx"); now != nginx {
		t.Errorf("the web server was %s and is %s", nginx, now)
	}
	if v := s.status(); v.Booted.Root != "host" {
		t.Errorf("%s is booted, want the host", v.Booted.Root)
	}
	for _, o := range probe.Outages() {
		var slow net.Error
		if errors.As(o.First, &slow) && slow.Timeout() { // a busy emulated machine may answer late; that is no outage
			t.Logf("a late answer: %v", o)
			continue
		}
		t.Errorf("an outage: %v", o)
	}

	t.Run("a full reboot", func(t *testing.T) {
		s := s.in(t)
		if _, err := h.FullReboot(t.Context(), "systemctl", "reboot"); err != nil {
			t.Fatal(err)
		}
		s.effective("lab_fix2")
		s.saysVersion(", lab fix 2")
		s.gone("lab_fix") // the operator reverted it
		s.comesFirst("livepatch: 'lab_fix2': patching complete", "Reached target network-pre.target",
			"Starting systemd-networkd.service")
	})
}

// digestOf returns the digest of a file.
func digestOf(s *site, file string) string {
	s.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		s.Fatal(err)
	}
	return digest.FromBytes(content).String()
}

// modulesDir returns the directory of modules of a version's only kernel.
func (s *site) modulesDir(version string) string {
	s.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.tree(version), "usr/lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		s.Fatalf("image %s has the kernels %v (%v)", version, dirs, err)
	}
	return dirs[0]
}

// comesFirst expects a text in the journal of this boot before others.
func (s *site) comesFirst(first string, others ...string) {
	s.Helper()
	journal := s.host.Must(s.T, "journalctl", "--no-pager", "--boot", "--output=short-monotonic")
	at := strings.Index(journal, first)
	if at < 0 {
		s.Fatalf("the journal does not have %q", first)
	}
	for _, other := range others {
		if then := strings.Index(journal, other); then < at {
			s.Errorf("the journal has %q at %d and %q at %d", first, at, other, then)
		}
	}
}
