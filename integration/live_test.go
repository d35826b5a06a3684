//go:build lab

package integration

import (
	"encoding/json"
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

// A fix is a live patch as a release lists it.
type fix struct {
	file   string
	kernel lab.Kernel
	cves   string
}

// add lists live patches in a draft.
func (s *site) add(draft string, fixes ...fix) {
	s.Helper()
	for _, f := range fixes {
		args := []string{"livepatch", "add", "--kernel-release", f.kernel.Release, "--kernel-version", f.kernel.Version, "--kernel-build-id", f.kernel.BuildID}
		if f.cves != "" {
			args = append(args, "--fixes", f.cves)
		}
		s.releasectl(append(args, draft, f.file)...)
	}
}

// fixes publishes a release of live patches alone as os/server:VERSION, and returns its full name.
func (s *site) fixes(version, sequence string, fixes ...fix) string {
	s.Helper()
	draft := s.draft(version, sequence)
	s.add(draft, fixes...)
	s.sign(version, s.push(version, draft))
	return s.registry.Host + "/os/server:" + version
}

// modules are the lab's kernel modules for a version's kernel, as files.
func (s *site) modules(version string) map[string]string {
	s.Helper()
	modules, err := lab.Modules(s.Context(), s.tree(version))
	if err != nil {
		s.Fatal(err)
	}
	return modules
}

// kernelOfHost is the kernel that runs in the host.
func (s *site) kernelOfHost() lab.Kernel {
	s.Helper()
	k, err := s.host.Kernel(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return k
}

// livePatch is what the tests read of a live patch in an answer.
type livePatch struct {
	Name, State, Reason string
	Stored              bool
	Blockers            []struct {
		Name, Unit string
		Ends       bool
		Stack      []string
	}
}

// liveStatus is what the tests read of the kernel in `updatectl status --output json`.
type liveStatus struct {
	Kernel struct {
		LivePatches []livePatch `json:"live_patches"`
	}
	Fixes []struct{ CVE, State, By, Reason string }
}

func (s *site) liveStatus() liveStatus {
	s.Helper()
	var v liveStatus
	if err := json.Unmarshal([]byte(s.updatectl(exitDone, "--output", "json", "status").Stdout), &v); err != nil {
		s.Fatal(err)
	}
	return v
}

// covered expects what status says of live patches and of fixes, each as "NAME: STATE" or "CVE: STATE BY", and that it says
// the same to people.
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
		s.Errorf("status tells of\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text := s.updatectl(exitDone, "status").Stdout
	for _, line := range want {
		name, state, _ := strings.Cut(line, ": ")
		if state == "no longer published" || state == "for another kernel" { // as JSON only
			continue
		}
		state, _, _ = strings.Cut(state, " lab_") // of an open one, the text says more in between
		if !slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool { return strings.Contains(l, name) && strings.Contains(l, state) }) {
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

// effective expects a live patch to be switched on and without transition, as the kernel itself says.
func (s *site) effective(name string) {
	s.Helper()
	if got := s.host.Must(s.T, "sh", "-c", "cd /sys/kernel/livepatch/"+name+" && cat enabled transition"); got != "1\n0" {
		s.Errorf("%s is %q (enabled, transition)", name, got)
	}
}

// gone expects that the kernel has no module of that name.
func (s *site) gone(names ...string) {
	s.Helper()
	for _, name := range names {
		s.host.Must(s.T, "test", "!", "-e", "/sys/module/"+name)
	}
}

// saysVersion expects the patched, or unpatched, behaviour of the kernel: how /proc/version ends. Unpatched it is made by the
// kernel's own words.
func (s *site) saysVersion(patch string) {
	s.Helper()
	got := s.host.Must(s.T, "cat", "/proc/version")
	if patch == "" && strings.Contains(got, "lab fix") || !strings.HasSuffix(got, patch) {
		s.Errorf("/proc/version says %q, want %q", got, patch)
	}
}

// available runs check, and returns what it says.
func (s *site) available(code int, args ...string) string {
	s.Helper()
	return s.updatectl(code, append([]string{"check"}, args...)...).Stdout
}

// TestVMLivePatch is the life of a live patch on a kernel of its own: what is not to be trusted or not for it leaves it
// untouched; what is, is loaded without an outage, replaced by its successor, taken back, and stays away.
func TestVMLivePatch(t *testing.T) {
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
		h.Must(t, "udevadm", "settle", "--timeout=300") // modules of devices are loaded while services are up already
		before := s.inKernel()
		refused := func(code int, sentence, hint string, args ...string) {
			t.Helper()
			s.complains(code, sentence, hint, append([]string{"livepatch", "apply"}, args...)...)
			if after := s.inKernel(); after != before {
				t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
			}
		}
		other := lab.Kernel{Release: filepath.Base(s.modulesDir("2")), Version: kernel.Version, BuildID: kernel.BuildID}
		name := s.fixes("1.0", "1", fix{theirs["lab_fix"], other, "CVE-2026-0001"})
		refused(exitIncompatible, "it is for the kernel "+other.Release+", and this host runs "+kernel.Release, "livepatch list", "lab_fix", "--from", name)
		if text := s.available(exitDone, "--from", name); !strings.Contains(text, "Up to date") {
			t.Errorf("check of a release for other kernels says:\n%s", text)
		}
		if r := s.updatectl(exitDone, "livepatch", "apply", "--from", name); !strings.Contains(r.Stdout, "Nothing to load") {
			t.Errorf("what is for other kernels is passed over with %s", r)
		}

		draft := s.draft("1.2", "3")
		s.add(draft, good)
		s.push("1.2", draft)
		refused(exitNotTrusted, "no signature was found", "cosign sign", "--from", s.registry.Host+"/os/server:1.2")

		name = s.fixes("1.3", "4", good)
		repair := s.spoil(digestOf(s, good.file), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		refused(exitNotTrusted, "does not match", "what was served is not what was signed", "--from", name)
		repair()

		if out := s.releasectlFails("livepatch", "add", "--kernel-version", kernel.Version, "--kernel-build-id", kernel.BuildID, s.draft("1.4", "5"), ours["lab_plain"]); !strings.Contains(out, "does not say that it is a live patch") {
			t.Errorf("releasectl says of a plain module: %s", out)
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
		refused(exitIncompatible, "the module does not say that it is a live patch", "its publisher has to mend the release", "--from", s.registry.Host+"/os/server:1.4")

		// A boot may bring another build of that release, so it is kept. It comes last: the module is on the disk from then on.
		other = kernel
		other.BuildID = strings.Repeat("ab", 20)
		name = s.fixes("1.5", "6", fix{ours["lab_fix"], other, ""})
		refused(exitIncompatible, "it is for the kernel with the build id "+other.BuildID+", and this host runs "+kernel.BuildID, "livepatch list", "lab_fix", "--from", name)
		s.covered("lab_fix: for another kernel")
	})
	t.Run("loaded", func(t *testing.T) {
		s := s.in(t)
		s.fixes("2.0", "10", good)
		s.offerAs("2.0", newest)
		if text := s.available(exitAvailable); !strings.Contains(text, "the root stays") || !strings.Contains(text, "lab_fix  not loaded, fixes CVE-2026-0001") {
			t.Errorf("check says:\n%s", text)
		}
		if plan := s.updatectl(exitAvailable, "plan").Stdout; !strings.Contains(plan, "live") {
			t.Errorf("plan says:\n%s", plan)
		}
		s.saysVersion("")
		var done struct {
			Level     string
			Switching bool
			Loaded    []string `json:"loaded_live_patches"`
		}
		if err := json.Unmarshal([]byte(s.updatectl(exitDone, "--output", "json", "apply").Stdout), &done); err != nil {
			t.Fatal(err)
		}
		if done.Level != "live" || done.Switching || !slices.Equal(done.Loaded, []string{"lab_fix"}) {
			t.Errorf("apply says %+v", done)
		}
		s.effective("lab_fix")
		s.saysVersion(", lab fix 1")
		s.covered("lab_fix: effective", "CVE-2026-0001: fixed by live patch lab_fix")
		if text := s.available(exitDone); !strings.Contains(text, "Up to date") {
			t.Errorf("check says:\n%s", text)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		s := s.in(t)
		s.fixes("2.1", "11", good, next)
		s.offerAs("2.1", newest)
		s.available(exitAvailable)
		if text := s.updatectl(exitDone, "apply").Stdout; !strings.Contains(text, "lab_fix2  effective") || !strings.Contains(text, "nothing was restarted") {
			t.Errorf("apply says:\n%s", text)
		}
		s.effective("lab_fix2")
		s.gone("lab_fix")
		s.saysVersion(", lab fix 2")
		s.covered("lab_fix: superseded", "lab_fix2: effective", "CVE-2026-0001: fixed by live patch lab_fix2", "CVE-2026-0002: fixed by live patch lab_fix2")
		s.available(exitDone)
	})
	t.Run("its init fails", func(t *testing.T) { // here, where the kernel is tainted already
		s := s.in(t)
		h.Must(t, "udevadm", "settle", "--timeout=300") // modules of devices are loaded while services are up already
		before := s.inKernel()
		name := s.fixes("2.2", "12", fix{ours["lab_fix_fails"], kernel, "CVE-2026-0003"})
		s.complains(exitError, "the kernel refused the live patch: lab_fix_fails: ", "journalctl -k", "livepatch", "apply", "--from", name)
		if after := s.inKernel(); after != before {
			t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
		}
		if r := s.updatectl(exitDone, "history"); !strings.Contains(r.Stdout, "live patch failed") {
			t.Errorf("history does not tell of it:\n%s", r.Stdout)
		}
	})
	t.Run("taken back", func(t *testing.T) {
		s := s.in(t)
		s.fixes("2.3", "13", good, next)
		s.offerAs("2.3", newest)
		if r := s.updatectl(exitDone, "livepatch", "revert", "lab_fix2"); !strings.Contains(r.Stdout, "lab_fix2 is taken back") {
			t.Errorf("revert says %s", r)
		}
		s.gone("lab_fix", "lab_fix2")
		s.saysVersion("")
		s.updatectl(exitDone, "apply")
		s.gone("lab_fix2")
		if text := s.updatectl(exitDone, "status").Stdout; !strings.Contains(text, "lab_fix2  held: reverted by the operator") {
			t.Errorf("status says:\n%s", text)
		}
	})
	t.Run("spoilt on the disk", func(t *testing.T) {
		s := s.in(t)
		s.updatectl(exitDone, "livepatch", "revert") // whatever apply loaded instead
		s.gone("lab_fix", "lab_fix2")
		before := s.inKernel()
		blob := "/var/lib/updatectl/oci/blobs/" + strings.Replace(digestOf(s, next.file), ":", "/", 1)
		h.Must(t, "sh", "-ec", "cp -a "+blob+" /root/blob; printf x | dd of="+blob+" bs=1 seek=5000 conv=notrunc status=none")
		s.complains(exitNotTrusted, "the stored live patch lab_fix2", "fetches it again", "livepatch", "apply", "--stored", "lab_fix2")
		if after := s.inKernel(); after != before {
			t.Errorf("the kernel is no longer as it was:\n%s\nbefore:\n%s", after, before)
		}
		h.Must(t, "mv", "/root/blob", blob)
		s.updatectl(exitDone, "livepatch", "apply", "--stored", "lab_fix2")
		s.effective("lab_fix2")
		s.saysVersion(", lab fix 2")
	})

	if now, err := h.Stamp(t.Context()); err != nil || now != boot {
		t.Errorf("%+v became %+v (%v): nothing was to be restarted", boot, now, err)
	}
	if now := h.Must(t, "systemctl", "show", "--property=MainPID", "nginx"); now != nginx {
		t.Errorf("the web server was %s and is %s", nginx, now)
	}
	if v := s.status(); v.Booted.Root != "host" {
		t.Errorf("%s is booted, want the host", v.Booted.Root)
	}
	for _, o := range probe.Outages() {
		var slow net.Error
		if errors.As(o.First, &slow) && slow.Timeout() { // an emulated machine at work may answer late; nobody was away
			t.Logf("a late answer: %v", o)
			continue
		}
		t.Errorf("an outage: %v", o)
	}

	t.Run("a boot of the kernel", func(t *testing.T) {
		s := s.in(t)
		if _, err := h.FullReboot(t.Context(), "systemctl", "reboot"); err != nil {
			t.Fatal(err)
		}
		s.effective("lab_fix2")
		s.saysVersion(", lab fix 2")
		s.gone("lab_fix") // the operator took it back
		s.comesFirst("livepatch: 'lab_fix2': patching complete", "Reached target network-pre.target", "Starting systemd-networkd.service")
	})
}

// digestOf is the digest of a file.
func digestOf(s *site, file string) string {
	s.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		s.Fatal(err)
	}
	return digest.FromBytes(content).String()
}

// modulesDir is the directory of modules of the one kernel that a version has.
func (s *site) modulesDir(version string) string {
	s.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.tree(version), "usr/lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		s.Fatalf("image %s has the kernels %v (%v)", version, dirs, err)
	}
	return dirs[0]
}

// comesFirst expects the journal of this boot to tell of one thing before the others.
func (s *site) comesFirst(first string, others ...string) {
	s.Helper()
	journal := s.host.Must(s.T, "journalctl", "--no-pager", "--boot", "--output=short-monotonic")
	at := strings.Index(journal, first)
	if at < 0 {
		s.Fatalf("the journal does not tell %q", first)
	}
	for _, other := range others {
		if then := strings.Index(journal, other); then < at {
			s.Errorf("the journal tells %q at %d and %q at %d", first, at, other, then)
		}
	}
}
