package facts

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestISAOfFlags(t *testing.T) {
	v2 := "fpu sse sse2 " + strings.Join(isaFlags[2], " ")
	v3 := v2 + " " + strings.Join(isaFlags[3], " ")
	v4 := v3 + " " + strings.Join(isaFlags[4], " ")
	for flags, want := range map[string]int{
		"": 1, "fpu sse sse2": 1, v2: 2, v3: 3, v4: 4,
		strings.Replace(v2, "popcnt", "", 1):   1,
		strings.Replace(v3, " movbe", "", 1):   2,
		strings.Replace(v4, "avx512dq", "", 1): 3,
		strings.Replace(v4, "sse4_2", "", 1):   1, // a level is all of those before it, too
	} {
		if got := isaOfFlags(flags); got != want {
			t.Errorf("%q is x86-64-v%d, want v%d", flags, got, want)
		}
	}
	const cpuinfo = "processor\t: 0\nmicrocode\t: 0x25\nflags\t\t: fpu sse\n\nprocessor\t: 1\nmicrocode\t: 0x26\n"
	if got := cpuField(cpuinfo, "microcode"); got != "0x25" {
		t.Errorf("microcode %q", got)
	}
	if got := cpuField(cpuinfo, "bogomips"); got != "" {
		t.Errorf("bogomips %q", got)
	}
}

// TestMustStay: the word counts as a whole, and in a container the command line is PID 1's.
func TestMustStay(t *testing.T) {
	for name, c := range map[string]struct {
		kernel, init string
		container    bool
		want         bool
	}{
		"asked for": {kernel: "root=/dev/vda updatectl.resume=0 quiet\n", init: "/sbin/init\x00", want: true},
		"not asked for": {
			kernel: "root=/dev/vda updatectl.resume=01\n", init: "/sbin/init\x00updatectl.resume=0\x00",
		},
		"container, asked for": {
			kernel: "quiet\n", init: "/sbin/init\x00updatectl.resume=0\x00", container: true, want: true,
		},
		"container, the host's own": {kernel: "updatectl.resume=0\n", init: "/sbin/init\x00", container: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			testtree.Write(t, root, "proc/cmdline", []byte(c.kernel), 0o644)
			testtree.Write(t, root, "proc/1/cmdline", []byte(c.init), 0o644)
			if c.container {
				testtree.Write(t, root, "run/systemd/container", []byte("systemd-nspawn"), 0o644)
			}
			if got, err := (Machine{Root: root}).MustStay(); err != nil || got != c.want {
				t.Errorf("%v (%v), want %v", got, err, c.want)
			}
		})
	}
	if _, err := (Machine{Root: t.TempDir()}).MustStay(); err == nil {
		t.Error("no command line is no error")
	}
}
