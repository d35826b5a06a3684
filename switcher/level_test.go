package switcher

import (
	"slices"
	"strings"
	"testing"
)

// TestDecide turns every check once, from facts with which nothing stands against a soft switch.
func TestDecide(t *testing.T) {
	facts := Facts{Root: HostRoot, KernelRelease: "6.12.1", Architecture: "amd64", Systemd: 257}
	target := Target{Root: "sha256-2", Architecture: "amd64", Systemd: 257, Init: "/usr/lib/systemd/systemd", Kernels: []string{"6.12.1"}}
	for name, c := range map[string]struct {
		change  func(*Facts, *Target)
		check   string
		verdict Verdict
		reason  string
	}{
		"nothing against it":     {func(*Facts, *Target) {}, "kernel modules", VerdictOK, "has the modules"},
		"host without systemd":   {func(f *Facts, _ *Target) { f.Systemd = 0 }, "systemd of the host", VerdictRefuse, "not systemd"},
		"Debian 12 host":         {func(f *Facts, _ *Target) { f.Systemd = 252 }, "systemd of the host", VerdictRefuse, "systemd 252, and a soft reboot needs 254"},
		"Debian 12 image":        {func(_ *Facts, t *Target) { t.Systemd = 252 }, "systemd of the root", VerdictRefuse, "the image has systemd 252"},
		"unknown systemd":        {func(_ *Facts, t *Target) { t.Systemd = 0 }, "systemd of the root", VerdictNote, "does not tell"},
		"other architecture":     {func(_ *Facts, t *Target) { t.Architecture = "arm64" }, "architecture", VerdictRefuse, "for arm64, this host is amd64"},
		"no init":                {func(_ *Facts, t *Target) { t.Init = "" }, "init", VerdictRefuse, "no init"},
		"newer kernel in it":     {func(_ *Facts, t *Target) { t.Kernels = []string{"6.12.9"} }, "kernel", VerdictNote, "the image's own, 6.12.9"},
		"modules carried over":   {func(_ *Facts, t *Target) { t.Kernels, t.Modules = []string{"6.12.9"}, true }, "kernel modules", VerdictOK, "carried over"},
		"no modules anywhere":    {func(_ *Facts, t *Target) { t.Kernels = nil }, "kernel modules", VerdictNote, "none can be loaded"},
		"back to the host":       {func(_ *Facts, t *Target) { *t = Target{Root: HostRoot} }, "init", VerdictOK, "has an init"},
		"image without a kernel": {func(_ *Facts, t *Target) { t.Kernels = nil }, "kernel", VerdictOK, "keeps running"},
	} {
		t.Run(name, func(t *testing.T) {
			f, to := facts, target
			c.change(&f, &to)
			d := Decide(f, to)
			i := slices.IndexFunc(d.Checks, func(k Check) bool { return k.Name == c.check })
			if i < 0 {
				t.Fatalf("no check %q in %+v", c.check, d.Checks)
			}
			if got := d.Checks[i]; got.Verdict != c.verdict || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("check = %+v; want %s with %q", got, c.verdict, c.reason)
			}
			if refused := len(d.Refused()) > 0; refused != (c.verdict == VerdictRefuse) {
				t.Errorf("Refused = %v", d.Refused())
			}
		})
	}
}

func TestParseLevel(t *testing.T) {
	for _, s := range []string{"auto", "soft", "full"} {
		if l, err := ParseLevel(s); err != nil || string(l) != s {
			t.Errorf("ParseLevel(%q) = %q, %v", s, l, err)
		}
	}
	if _, err := ParseLevel("warm"); err == nil || !strings.Contains(err.Error(), "one of auto, soft, full") {
		t.Errorf("ParseLevel(warm): %v", err)
	}
}
