package facts

import (
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestPast follows a kernel from root to root.
func TestPast(t *testing.T) {
	var p Past
	old, fresh := rootfs.Policy{Type: "targeted", Digest: "1"}, rootfs.Policy{Type: "targeted", Digest: "2"}
	p.Note("host", Present{
		Sysctls: []string{"vm/swappiness", "kernel/panic"}, Loaded: []string{"kvm", "loop"},
		Options: map[string]string{"kvm": "nested=1"}, Policy: old,
	})
	v1 := Present{
		Sysctls: []string{"kernel/panic"}, Loaded: []string{"kvm", "loop", "nbd"},
		Options: map[string]string{"nbd": "max_part=8"}, Policy: fresh,
	}
	p.Note("v1", v1)
	if got := p.DroppedSysctls(v1); !slices.Equal(got, []string{"vm/swappiness"}) ||
		p.Sysctls[got[0]] != "host" || p.Sysctls["kernel/panic"] != "v1" {
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
	// A module that is loaded again has the options of the root at that time.
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

// TestPastProfiles: of the loaded profiles, those that an earlier root defined and this one does not are stale; those
// of containers, which no root defines, are not.
func TestPastProfiles(t *testing.T) {
	var p Past
	p.Note("host", Present{Profiles: []string{"sshd", "old", "off"}, LoadedProfiles: []string{"sshd", "old", "docker"}})
	v1 := Present{Profiles: []string{"sshd"}, LoadedProfiles: []string{"sshd", "old", "docker"}}
	p.Note("v1", v1)
	if got := p.DroppedProfiles(v1); !slices.Equal(got, []StaleProfile{{"old", "host"}}) || p.Profiles["sshd"] != "v1" {
		t.Errorf("dropped %+v of %v", got, p.Profiles)
	}
	v2 := Present{LoadedProfiles: []string{"sshd", "docker"}} // somebody removed it
	if got := p.DroppedProfiles(v2); !slices.Equal(got, []StaleProfile{{"sshd", "v1"}}) {
		t.Errorf("dropped %+v", got)
	}
	p.Note("v2", v2)
	if _, known := p.Profiles["old"]; known {
		t.Error("a profile that is no longer loaded is still noted")
	}
}

func TestPresent(t *testing.T) {
	root := t.TempDir()
	testtree.Write(t, root, "etc/apparmor.d/x", []byte("profile x {\n}\n"), 0o644)
	testtree.Write(t, root, "sys/kernel/security/apparmor/profiles", []byte("x (enforce)\ny (complain)\n"), 0o444)
	testtree.Write(t, root, "etc/sysctl.d/x.conf",
		[]byte("vm.swappiness=10\nvm.none=1\nnet.ipv4.conf.*.rp_filter=1\n"), 0o644)
	testtree.Write(t, root, "proc/sys/vm/swappiness", []byte("60\n"), 0o644)
	testtree.Write(t, root, "proc/sys/net/ipv4/conf/eth0.1/rp_filter", []byte("2\n"), 0o644)
	testtree.Write(t, root, "proc/modules", []byte("nbd 65536 0 - Live 0x0\nloop 40960 2 - Live 0x0\n"), 0o644)
	testtree.Write(t, root, "usr/lib/modprobe.d/x.conf", []byte("options nbd max_part=8\n"), 0o644)
	m := Machine{Root: root}
	now, err := m.Present()
	if err != nil || !slices.Equal(now.Sysctls, []string{"net/ipv4/conf/eth0.1/rp_filter", "vm/swappiness"}) ||
		!slices.Equal(now.Loaded, []string{"nbd", "loop"}) || now.Options["nbd"] != "max_part=8" {
		t.Errorf("present %+v, %v", now, err)
	}
	if !slices.Equal(now.Profiles, []string{"x"}) || !slices.Equal(now.LoadedProfiles, []string{"x", "y"}) {
		t.Errorf("profiles %q of the loaded %q", now.Profiles, now.LoadedProfiles)
	}
	var p Past
	p.Note("host", now)
	want := []StaleSysctl{{"net/ipv4/conf/eth0.1/rp_filter", "2", "host"}, {"vm.swappiness", "60", "host"}}
	if got := m.StaleSysctls(p, append(p.DroppedSysctls(Present{}), "vm/gone")); !slices.Equal(got, want) {
		t.Errorf("stale %+v, want %+v", got, want)
	}
}
