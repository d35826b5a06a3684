package report

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

func TestKernelText(t *testing.T) {
	f, target := recorded(t, "fedora-42")
	k := renew.KernelStatus{
		Release: f.KernelRelease, Version: f.KernelVersion, At: f.At, BootedAt: f.KernelBooted,
		RebootBy: f.KernelBooted.Add(90 * 24 * time.Hour), SoftReboots: 2, Root: target.Root,
		FullReboots: "6.14.9-300.fc42.x86_64",
		Own:         []rootfs.Kernel{{Release: "6.14.9-300.fc42.x86_64", Version: "#1 SMP PREEMPT_DYNAMIC Thu May 29"}},
		CommandLine: f.CommandLine,
		Wanted:      []string{"quiet", "mitigations=auto"}, Missing: []string{"mitigations=auto"},
		ModulesFrom: "sha256-" + strings.Repeat("a1", 32), Microcode: "0x25",
		Policy: f.SELinux, PolicyRoot: switcher.HostRoot, OwnPolicy: rootfs.Policy{Type: "targeted",
			Digest: strings.Repeat("cd", 32)},
		Options: []facts.StaleOptions{{Module: "kvm", Loaded: "nested=1", Root: switcher.HostRoot}, {Module: "loop",
			Now: "max_loop=4", Root: switcher.HostRoot}},
		Sysctls:  []facts.StaleSysctl{{Key: "vm.swappiness", Value: "10", Root: switcher.HostRoot}},
		Profiles: []facts.StaleProfile{{Profile: "/usr/sbin/old", Root: switcher.HostRoot}},
		Units:    []renew.Old{{Unit: "site.service", Reason: "no list says how to renew it (/etc/updatectl/renew.d)"}},
	}
	golden(t, "kernel-skew", func(w io.Writer) { Kernel(w, k) })
	k.FullReboots = ""
	k.Own, k.Missing, k.ModulesFrom, k.Policy, k.OwnPolicy = []rootfs.Kernel{{Release: k.Release, Version: k.Version}},
		nil, "", rootfs.Policy{}, rootfs.Policy{}
	k.Options, k.Sysctls, k.Profiles, k.Units, k.RebootBy = nil, nil, nil, nil, time.Time{}
	golden(t, "kernel-as-it-should-be", func(w io.Writer) { Kernel(w, k) })

	k.NoModules = true
	var out bytes.Buffer
	if Kernel(&out, k); !strings.Contains(out.String(), "Modules\tnone for this kernel: no more can be loaded\n") {
		t.Errorf("a root without modules for the kernel is shown as\n%s", out.String())
	}
}
