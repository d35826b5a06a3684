package transition

import (
	"slices"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
)

// keptMounts are mounts that show some of the state; what is restored is noted.
type keptMounts struct {
	machine.Mounts
	shown    []kept.Dir
	restored *[]kept.Dir
}

func (m keptMounts) Kept(assembly.Next) []kept.Dir  { return slices.Clone(m.shown) }
func (m keptMounts) Carried(assembly.Next) []string { return nil }
func (m keptMounts) Restore(d []kept.Dir, _ string) error {
	*m.restored = append(*m.restored, d...)
	return nil
}

// TestNoteState: what was there at the last switch and is gone is mounted again. What somebody moved since, or does not
// keep any more, is neither mounted over nor expected of the next root.
func TestNoteState(t *testing.T) {
	home, srv := kept.Dir{Path: "/home", Device: "253:2"}, kept.Dir{Path: "/srv", Device: "253:3"}
	opt, moved := kept.Dir{Path: "/opt", Device: "253:4"}, kept.Dir{Path: "/srv", Device: "253:0", Below: "/srv"}
	for name, c := range map[string]struct {
		boot           string
		restored, want []kept.Dir
	}{
		"the same kernel":     {"b1", []kept.Dir{home}, []kept.Dir{moved, home}},
		"after a full reboot": {"b2", nil, []kept.Dir{moved}},
	} {
		h := hosttest.New(t)
		var restored []kept.Dir
		h.Machine.Mounts = keptMounts{h.Machine.Mounts, []kept.Dir{moved}, &restored}
		rec := hosttest.OnTheWay(record.VerbApply, "v1", "v2")
		rec.Switch.BootID, rec.Switch.Kept = "b1", []kept.Dir{home, srv, opt}
		var s record.Switch
		noteState(h, &s, rec, facts.Facts{BootID: c.boot},
			assembly.Next{Persist: []string{"/home", "/srv"}, HostMount: "/.updatectl/host"})
		if !slices.Equal(restored, c.restored) || !slices.Equal(s.Kept, c.want) {
			t.Errorf("%s: restored %+v, noted %+v", name, restored, s.Kept)
		}
	}
}

// writable are mounts that note which of them are made writable.
type writable struct {
	machine.Mounts
	made *[]string
}

func (m writable) MakeWritable(path string) error {
	*m.made = append(*m.made, path)
	return nil
}

// TestMakeWritable: what the administrator mounts read-only is not made writable, by a flag of the mount or an option
// of its file system.
func TestMakeWritable(t *testing.T) {
	h := hosttest.New(t)
	var made []string
	h.Machine.Mounts = writable{h.Machine.Mounts, &made}
	(&Notes{h}).MakeWritable([]string{"/var", "/home", "/srv", "/opt"}, []kept.Dir{
		{Path: "/var", Options: "rw,errors=remount-ro", Flags: "rw"}, {Path: "/home", Options: "ro", Flags: "rw"},
		{Path: "/srv", Options: "rw", Flags: "nodev,ro,relatime"},
	})
	if want := []string{"/var", "/opt"}; !slices.Equal(made, want) {
		t.Errorf("made writable: %q, want %q", made, want)
	}
}
