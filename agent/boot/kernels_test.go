package boot

import (
	"slices"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// installed returns a kernel that is complete.
func installed(id, release string, options ...string) Installed {
	return Installed{
		Kernel:   imagekernel.Kernel{ID: id, Build: id, Kernel: rootfs.Kernel{Release: release, Version: "#1"}},
		Complete: true, Options: options,
	}
}

// TestTask: a full reboot starts the kernel of the last good root, and what nothing needs goes.
func TestTask(t *testing.T) {
	two := []Installed{installed("k2", "6.2"), installed("k3", "6.3")}
	half := installed("k4", "6.4")
	half.Complete = false
	for name, c := range map[string]struct {
		k        Kernels
		running  string
		good     []string
		staged   string
		moving   bool
		hostOnly bool // [boot] kernel = "host"

		takeBack, set bool
		standard      string
		remove        []string
	}{
		"none": {good: []string{"host"}},
		"good on its own": {
			k: Kernels{Installed: two, Roots: map[string]string{"v2": "k2", "v3": "k3"}, Default: "k3"}, running: "6.3",
			good: []string{"host", "v2", "v3"}, standard: "k3",
		},
		"on the way": {
			k: Kernels{Installed: append(slices.Clone(two), half), Once: "k2"}, moving: true, good: []string{"host"},
		},
		"withdrawn": {
			k: Kernels{Installed: two[:1], Once: "k2"}, good: []string{"host"}, takeBack: true, remove: []string{"k2"},
		},
		"withdrawn and staged": {
			k: Kernels{Installed: two[:1], Once: "k2"}, good: []string{"host"}, staged: "of k2", takeBack: true,
		},
		"half installed": {k: Kernels{Installed: []Installed{half}}, good: []string{"host"}, remove: []string{"k4"}},
		"proven, not yet the default": {
			k: Kernels{Installed: two, Roots: map[string]string{"v3": "k3"}}, running: "6.3", good: []string{"host", "v3"},
			set: true, standard: "k3", remove: []string{"k2"},
		},
		"rolled back to the root before": {
			k: Kernels{Installed: two, Roots: map[string]string{"v2": "k2", "v3": "k3"}, Default: "k3"}, running: "6.3",
			good: []string{"host", "v2"}, set: true, standard: "k2", // k3 runs
		},
		"rolled back to the host root": {
			k: Kernels{Installed: two[:1], Roots: map[string]string{"v2": "k2"}, Default: "k2"}, running: "6.1",
			good: []string{"host"}, set: true, remove: []string{"k2"},
		},
		"told, or not": {
			k: Kernels{Installed: two[:1], Roots: map[string]string{"v2": "k2"}, Default: "k2", Unsure: true}, running: "6.2",
			good: []string{"host", "v2"}, set: true, standard: "k2",
		},
		"the operator wants the host's own": {
			k: Kernels{Installed: two[:1], Roots: map[string]string{"v2": "k2"}, Default: "k2"}, running: "6.1",
			good: []string{"host", "v2"}, hostOnly: true, set: true, remove: []string{"k2"},
		},
		"the operator wants the host's own, and another runs": {
			k: Kernels{Installed: two, Roots: map[string]string{"v2": "k2", "v3": "k3"}, Default: "k3"}, running: "6.3",
			good: []string{"host", "v2", "v3"}, staged: "of k2", hostOnly: true, set: true, remove: []string{"k2"},
		},
		"proven by an older updatectl": {
			k: Kernels{Installed: two[:1], Roots: map[string]string{"v2": "k2"}, Default: "k2"}, running: "6.2",
			good: []string{"host", "v3"}, standard: "k2",
		},
		"the kernel of the last good root is gone": {
			k: Kernels{Roots: map[string]string{"v2": "k2"}, Default: "k2"}, running: "6.1", good: []string{"host", "v2"},
			set: true,
		},
	} {
		for i := range c.k.Installed {
			if c.k.Installed[i].For == "" {
				c.k.Installed = slices.Clone(c.k.Installed)
				c.k.Installed[i].For = "of " + c.k.Installed[i].ID
			}
		}
		rec := &record.Record{Phase: record.PhaseGood, Good: c.good, Staged: c.staged}
		if c.moving {
			rec = hosttest.OnTheWay(record.VerbApply, "host", "v2", c.good...)
		}
		f := facts.Facts{KernelRelease: c.running, KernelVersion: "#1"}
		for _, i := range c.k.Installed {
			if i.Release == c.running {
				f.CommandLine = bootloader.Word(i.ID)
			}
		}
		task := c.k.Task(f, rec, c.hostOnly)
		var remove []string
		for _, i := range task.Remove {
			remove = append(remove, i.ID)
		}
		if task.TakeBack != c.takeBack || task.SetDefault != c.set || c.set && task.Default != c.standard ||
			!slices.Equal(remove, c.remove) {
			t.Errorf("%s: %+v", name, task)
		}
	}
}

// TestRunning: a kernel shows by its word which entry it was started by.
func TestRunning(t *testing.T) {
	k := Kernels{Installed: []Installed{installed("k2", "6.2"), installed("k2more", "6.2")}}
	for line, want := range map[string]string{
		"quiet": "", "quiet updatectl.kernel=k2": "k2", "updatectl.kernel=k2more quiet": "k2more", "updatectl.kernel=k9": "",
	} {
		if got := k.Running(facts.Facts{KernelRelease: "6.2", KernelVersion: "#1", CommandLine: line}); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// TestProving: after an apply, a root is proven on the running kernel; after anything else, what was known stays.
func TestProving(t *testing.T) {
	k := Kernels{Installed: []Installed{installed("k2", "6.2")}, Roots: map[string]string{"v1": "", "gone": "k9"}}
	f := facts.Facts{Root: "v2", CommandLine: "updatectl.kernel=k2"}
	for verb, want := range map[string]string{
		record.VerbApply: "k2", record.VerbRollback: "", record.VerbResume: "", record.VerbBack: "",
	} {
		got := k.Proving(f, hosttest.OnTheWay(verb, "v1", "v2", "host", "v1"))
		if got.Roots["v2"] != want {
			t.Errorf("after %s, it is %q, want %q", verb, got.Roots["v2"], want)
		}
		if _, kept := got.Roots["gone"]; kept && verb == record.VerbApply {
			t.Error("a root that is gone is remembered")
		}
	}
	first := Kernels{Installed: k.Installed}.Proving(f, hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1"))
	if kernel, known := first.Roots["v1"]; !known || kernel != "" {
		t.Errorf("a root that was good before any kernel of an image was installed: %q, %v", kernel, known)
	}
	k.Default = "k2"
	later := k.Proving(f, hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v0", "v1"))
	if _, known := later.Roots["v0"]; known {
		t.Error("a root that an older updatectl has proven meanwhile is taken for one on the host's own kernel")
	}
	if len(k.Roots) != 2 {
		t.Error("the list that was given has changed")
	}
}
