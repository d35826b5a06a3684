package rootfs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestParseSysctl(t *testing.T) {
	r := ParseSysctl([]string{`# comment
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
	want := []string{"net/ipv4/ip_forward", "kernel/sched_rt", "net/ipv4/conf/eth0.1/forwarding",
		"net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/*/rp_filter", "vm/swappiness", "kernel/panic"}
	if !slices.Equal(r.set, want) || !slices.Equal(r.excluded, []string{"net/ipv4/conf/all/rp_filter"}) {
		t.Errorf("set %q\nexcluded %q", r.set, r.excluded)
	}
	sys := t.TempDir()
	for _, key := range []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/lo/rp_filter",
		"net/ipv4/conf/lo/forwarding", "kernel/panic",
	} {
		testtree.Write(t, sys, key, []byte("1\n"), 0o644)
	}
	want = []string{"kernel/panic", "net/ipv4/conf/lo/rp_filter", "net/ipv4/ip_forward"}
	if got := r.Keys(sys); !slices.Equal(got, want) {
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
		testtree.Write(t, root, name, []byte(text), 0o644)
	}
	if err := os.Symlink("/dev/null", filepath.Join(root, "etc/sysctl.d/60-masked.conf")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(Dir(root).Fragments("sysctl.d"), " "); got != "first etc run own  " {
		t.Errorf("fragments %q", got)
	}
}

func TestParseOptions(t *testing.T) {
	got := ParseOptions([]string{
		"# options x a=1\noptions snd-hda-intel model=x \\\n  power_save=1\nblacklist x\noptions x\n",
		"options snd_hda_intel  enable=0\noptions kvm nested=1\n",
	})
	if len(got) != 2 || got["snd_hda_intel"] != "model=x power_save=1 enable=0" || got["kvm"] != "nested=1" {
		t.Errorf("options %q", got)
	}
}
