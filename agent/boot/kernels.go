package boot

import (
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Kernels is what is known of the kernels of images on the host root. Whatever is done to them is written here first.
type Kernels struct {
	// Installed are those that are there, or that are being installed or removed.
	Installed []Installed `json:"installed,omitempty"`
	// Roots has the kernel that each good root was proven on, "" for the host's own.
	Roots map[string]string `json:"roots,omitempty"`
	// Once is the kernel that the boot loader was told to start once, and Default what it was told to start by default;
	// "" is the host's own.
	Once    string `json:"once,omitempty"`
	Default string `json:"default,omitempty"`
	// Unsure is whether the boot loader was about to be told: it may know, or not.
	Unsure bool `json:"unsure,omitempty"`
}

// Installed is a kernel of an image on the host root.
type Installed struct {
	imagekernel.Kernel
	// Complete is whether it can be started: it was installed, and it is not being removed.
	Complete bool `json:"complete"`
	// For is the root that it was installed for last, and Options what was added to the kernel command line.
	For     string   `json:"for"`
	Options []string `json:"options,omitempty"`
	// At is when it was installed.
	At time.Time `json:"at"`
}

// find returns the place of a kernel in the list, -1 if it is not there.
func (k Kernels) find(id string) int {
	return slices.IndexFunc(k.Installed, func(i Installed) bool { return i.ID == id })
}

// Running returns which kernel of an image runs, "" for one of the host's own.
func (k Kernels) Running(f facts.Facts) string {
	for _, i := range k.Installed {
		if len(rootfs.MissingKargs(f.CommandLine, []string{bootloader.Word(i.ID)})) == 0 {
			return i.ID
		}
	}
	return ""
}

// sharesModules reports whether another kernel in the list has the same modules.
func (k Kernels) sharesModules(one Installed) bool {
	return slices.ContainsFunc(k.Installed, func(i Installed) bool { return i.ID != one.ID && i.Release == one.Release })
}

// Wanted returns the kernel that full reboots start: the one that the last good root was proven on. For an image of
// which that is not known, an older updatectl has proven it, and the default stays.
func (k Kernels) Wanted(rec *record.Record) string {
	kernel, known := k.Roots[rec.LastGood()]
	if !known && rec.LastGood() != switcher.HostRoot {
		return k.Default
	}
	return kernel
}

// Task is what is left to do about the kernels.
type Task struct {
	// TakeBack is whether the boot loader must not start a kernel once any more; SetDefault, whether it has another
	// default than it should, which is Default.
	TakeBack, SetDefault bool
	Default              string
	// Remove are the kernels that nothing needs.
	Remove []Installed
}

// None reports whether nothing is left to do.
func (t Task) None() bool { return !t.TakeBack && !t.SetDefault && len(t.Remove) == 0 }

// Task returns what is left to do on a host at rest: a full reboot starts the kernel of the last good root or, if the
// operator wants that, the host's own. Nothing is kept that neither a good, pinned or staged root nor the running
// kernel needs; with hostOnly, nothing but what runs.
func (k Kernels) Task(f facts.Facts, rec *record.Record, hostOnly bool) Task {
	if rec.Moving() {
		return Task{}
	}
	wanted := k.Wanted(rec)
	if hostOnly {
		wanted = ""
	}
	if i := k.find(wanted); wanted != "" && (i < 0 || !k.Installed[i].Complete) {
		wanted = "" // somebody removed it: the host's own kernel starts
	}
	t := Task{TakeBack: k.Once != "", SetDefault: k.Default != wanted || k.Unsure, Default: wanted}
	needed := []string{wanted, k.Default, k.Running(f)}
	if t.SetDefault {
		needed = []string{wanted, k.Running(f)}
	}
	staged := rec.Staged
	if hostOnly {
		staged = ""
	} else {
		for _, root := range slices.Concat(rec.Good, rec.Pinned) {
			needed = append(needed, k.Roots[root])
		}
	}
	for _, i := range k.Installed {
		if !i.Complete || !slices.Contains(needed, i.ID) && (i.For != staged || staged == "") {
			t.Remove = append(t.Remove, i)
		}
	}
	return t
}

// Proving returns the kernels when a root is about to be recorded as good: after an apply, it is proven on the running
// kernel. After a resume or a rollback, the kernel that it was proven on before stays; for a root of which none is
// known, that was one of the host's own.
func (k Kernels) Proving(f facts.Facts, rec *record.Record) Kernels {
	if rec.Switch.Verb != record.VerbApply {
		return k
	}
	roots := map[string]string{f.Root: k.Running(f)}
	for _, root := range slices.Concat(rec.Good, rec.Pinned) {
		// Until a kernel of an image became the default, all roots were proven on one of the host's own.
		if kernel, known := k.Roots[root]; root != f.Root && (known || k.Default == "") {
			roots[root] = kernel
		}
	}
	k.Roots = roots
	return k
}
