package switcher

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseSysctl(t *testing.T) {
	r := parseSysctl([]string{`# comment
; another
net.ipv4.ip_forward = 1
-kernel/sched_rt = -1
net.ipv4.conf.eth0/1.forwarding=1
net/ipv4/conf/eth0.1/rp_filter=2
net.ipv4.conf.*.rp_filter = 1
-net.ipv4.conf.all.rp_filter
 vm.swappiness   =   10
../../etc/passwd = x
a line without a value
`, "kernel.panic=10"})
	want := []string{"net/ipv4/ip_forward", "kernel/sched_rt", "net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/*/rp_filter", "vm/swappiness", "kernel/panic"}
	if !slices.Equal(r.set, want) || !slices.Equal(r.excluded, []string{"net/ipv4/conf/all/rp_filter"}) {
		t.Errorf("set %q\nexcluded %q", r.set, r.excluded)
	}
	sys := t.TempDir()
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/lo/rp_filter", "net/ipv4/conf/lo/forwarding", "kernel/panic"} {
		put(t, sys, key, []byte("1\n"), 0o644)
	}
	if got, want := r.keys(sys), []string{"kernel/panic", "net/ipv4/conf/lo/rp_filter", "net/ipv4/ip_forward"}; !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
}

func TestFragments(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/sysctl.d/30-both.conf":          "etc",
		"usr/lib/sysctl.d/30-both.conf":      "usr",
		"usr/lib/sysctl.d/10-first.conf":     "first",
		"usr/lib/sysctl.d/README":            "not one of them",
		"run/sysctl.d/40-run.conf":           "run",
		"usr/local/lib/sysctl.d/50-own.conf": "own",
		"usr/lib/sysctl.d/60-masked.conf":    "masked",
		"etc/sysctl.d/70-empty.conf":         "",
		"usr/lib/sysctl.d/70-empty.conf":     "masked by an empty file",
	} {
		put(t, root, name, []byte(text), 0o644)
	}
	if err := os.Symlink("/dev/null", filepath.Join(root, "etc/sysctl.d/60-masked.conf")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rootDir(root).fragments("sysctl.d"), " "); got != "first etc run own  " {
		t.Errorf("fragments %q", got)
	}
}

func TestParseOptions(t *testing.T) {
	got := parseOptions([]string{"# options x a=1\noptions snd-hda-intel model=x \\\n  power_save=1\nblacklist x\noptions x\n", "options snd_hda_intel  enable=0\noptions kvm nested=1\n"})
	if len(got) != 2 || got["snd_hda_intel"] != "model=x power_save=1 enable=0" || got["kvm"] != "nested=1" {
		t.Errorf("options %q", got)
	}
}

// TestPast follows a kernel from root to root.
func TestPast(t *testing.T) {
	var p Past
	old, fresh := Policy{"targeted", "1"}, Policy{"targeted", "2"}
	p.Note("host", Present{Sysctls: []string{"vm/swappiness", "kernel/panic"}, Loaded: []string{"kvm", "loop"}, Options: map[string]string{"kvm": "nested=1"}, Policy: old})
	v1 := Present{Sysctls: []string{"kernel/panic"}, Loaded: []string{"kvm", "loop", "nbd"}, Options: map[string]string{"nbd": "max_part=8"}, Policy: fresh}
	p.Note("v1", v1)
	if got := p.DroppedSysctls(v1); !slices.Equal(got, []string{"vm/swappiness"}) || p.Sysctls[got[0]] != "host" || p.Sysctls["kernel/panic"] != "v1" {
		t.Errorf("dropped %q of %v", got, p.Sysctls)
	}
	if got := p.ChangedOptions(v1); !slices.Equal(got, []StaleOptions{{"kvm", "nested=1", "", "host"}}) {
		t.Errorf("changed options %+v", got)
	}
	if p.Policy != old || p.PolicyRoot != "host" {
		t.Errorf("the loaded policy is %+v of %s", p.Policy, p.PolicyRoot)
	}
	if got := p.LoadedPolicy(fresh); got != old {
		t.Errorf("the policy of the root that runs is taken for the loaded one: %+v", got)
	}
	if got := (Past{PolicyRoot: "host"}).LoadedPolicy(fresh); got != fresh {
		t.Errorf("nothing is known to be loaded, and it is %+v", got)
	}
	// Loaded again, a module has the options of the day.
	v2 := Present{Loaded: []string{"loop", "nbd"}, Options: map[string]string{"loop": "max_loop=4", "nbd": "max_part=8"}}
	p.Note("v2", v2)
	v2.Loaded = append(v2.Loaded, "kvm")
	p.Note("v2", v2)
	if got := p.ChangedOptions(v2); !slices.Equal(got, []StaleOptions{{"loop", "", "max_loop=4", "host"}}) {
		t.Errorf("changed options %+v", got)
	}
	if got := p.DroppedSysctls(v2); !slices.Equal(got, []string{"kernel/panic", "vm/swappiness"}) {
		t.Errorf("dropped %q", got)
	}
}

func TestPresent(t *testing.T) {
	root := t.TempDir()
	put(t, root, "etc/sysctl.d/x.conf", []byte("vm.swappiness=10\nvm.none=1\nnet.ipv4.conf.*.rp_filter=1\n"), 0o644)
	put(t, root, "proc/sys/vm/swappiness", []byte("60\n"), 0o644)
	put(t, root, "proc/sys/net/ipv4/conf/eth0.1/rp_filter", []byte("2\n"), 0o644)
	put(t, root, "proc/modules", []byte("nbd 65536 0 - Live 0x0\nloop 40960 2 - Live 0x0\n"), 0o644)
	put(t, root, "usr/lib/modprobe.d/x.conf", []byte("options nbd max_part=8\n"), 0o644)
	m := Machine{Root: root}
	now, err := m.Present()
	if err != nil || !slices.Equal(now.Sysctls, []string{"net/ipv4/conf/eth0.1/rp_filter", "vm/swappiness"}) ||
		!slices.Equal(now.Loaded, []string{"nbd", "loop"}) || now.Options["nbd"] != "max_part=8" {
		t.Errorf("present %+v, %v", now, err)
	}
	var p Past
	p.Note("host", now)
	want := []StaleSysctl{{"net/ipv4/conf/eth0.1/rp_filter", "2", "host"}, {"vm.swappiness", "60", "host"}}
	if got := m.StaleSysctls(p, append(p.DroppedSysctls(Present{}), "vm/gone")); !slices.Equal(got, want) {
		t.Errorf("stale %+v, want %+v", got, want)
	}
}
