// Package livepatch loads live patches into the running kernel and takes them back. It promises that a patch counts only
// when every task runs the new code, and that a load that fails, or does not come to its end in time, leaves the kernel
// as it was; where the kernel does not let go, the error says so.
//
// What the kernel says is read from /sys/kernel/livepatch and /proc; the two system calls are at the edge, in [Kernel].
// Nothing is ever forced: a forced patch can never be taken out, and may leave a task in code that is gone.
//
// Only one transition runs at a time, so one thing is done at a time.
package livepatch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The refusals. All of them leave the kernel as it was.
var (
	// ErrUnsupported: this kernel cannot be patched at all.
	ErrUnsupported = errors.New("this kernel takes no live patches")
	// ErrBusy: another transition runs; it may end.
	ErrBusy = errors.New("another live patch is in transition")
	// ErrTaken: a module of that name is loaded and is another one.
	ErrTaken = errors.New("another module has that name")
	// ErrKernel: the kernel refused the module.
	ErrKernel = errors.New("the kernel refused the live patch")
	// ErrStalled: not every task moved to the new code in time. The error is a *Stalled.
	ErrStalled = errors.New("the transition did not end in time")
	// ErrNotLoaded: there is no live patch of that name.
	ErrNotLoaded = errors.New("no such live patch is loaded")
)

// Kernel is the running kernel as seen below a directory.
type Kernel struct {
	// Root is where /sys and /proc are: "/" for this machine.
	Root string
	// Insert is finit_module(2) of a whole module, and Remove is delete_module(2).
	Insert func(module []byte) error
	Remove func(name string) error
	// Pause is how long to wait before looking again; 0 is a time that suits a kernel.
	Pause time.Duration
}

// Host is the kernel of this machine; for another tree at root, what that tree shows and nothing that can be done.
func Host(root string) Kernel {
	k := Kernel{Root: root, Insert: insert, Remove: remove}
	if filepath.Clean(root) != "/" {
		elsewhere := errors.New("only the running kernel can be patched")
		k.Insert, k.Remove = func([]byte) error { return elsewhere }, func(string) error { return elsewhere }
	}
	return k
}

// Patch is a live patch that the kernel has loaded.
type Patch struct {
	Name string `json:"name"`
	// Enabled: the patch is on, or becoming so. Transition: not every task has moved yet.
	Enabled    bool `json:"enabled"`
	Transition bool `json:"transition"`
	// Replace: a cumulative patch, which supersedes older ones. Known since Linux 6.11.
	Replace bool `json:"replace"`
	// Note is the section with the build id of its module, "" where the kernel shows none.
	Note string `json:"-"`
}

// Is tells whether the patch is the module with that section .note.gnu.build-id, as far as that can be known: the name alone
// says little.
func (p Patch) Is(note []byte) bool { return p.Note == "" || note == nil || p.Note == string(note) }

// On tells whether any task runs, or may run, the patch's code.
func (p Patch) On() bool { return p.Enabled || p.Transition }

// Effective tells whether the patch's fixes count: it is enabled and no task still runs the old code.
func (p Patch) Effective() bool { return p.Enabled && !p.Transition }

// Where the kernel tells of live patches and modules.
const (
	patchDir  = "/sys/kernel/livepatch"
	moduleDir = "/sys/module"
)

// path is a path of the kernel's machine.
func (k Kernel) path(elem ...string) string {
	return filepath.Join(append([]string{k.Root}, elem...)...)
}

// Patches lists the live patches that the kernel has, in the order of their names. A kernel without live patching has
// none.
func (k Kernel) Patches() ([]Patch, error) {
	patches := []Patch{}
	entries, err := os.ReadDir(k.path(patchDir))
	if errors.Is(err, fs.ErrNotExist) {
		return patches, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the live patches: %w", err)
	}
	for _, e := range entries {
		// A patch that is taken back disappears from here, also between two reads.
		if p, loaded := k.patch(e.Name()); loaded {
			patches = append(patches, p)
		}
	}
	return patches, nil
}

// patch reads one live patch; loaded is false when the kernel has none of that name.
func (k Kernel) patch(name string) (p Patch, loaded bool) {
	enabled, err := os.ReadFile(k.path(patchDir, name, "enabled"))
	if err != nil {
		return Patch{}, false
	}
	transition, err := os.ReadFile(k.path(patchDir, name, "transition"))
	if errors.Is(err, fs.ErrNotExist) { // it went away in between
		return Patch{}, false
	}
	return Patch{
		// What cannot be read counts for no fix.
		Name: name, Enabled: isSet(enabled), Transition: err != nil || isSet(transition), Replace: k.flag(patchDir, name, "replace"),
		Note: k.note(name),
	}, true
}

// note is the section with the build id of a module that the kernel has, "" where it shows none.
func (k Kernel) note(name string) string {
	b, err := os.ReadFile(k.path(moduleDir, name, "notes/.note.gnu.build-id"))
	if err != nil {
		return ""
	}
	return string(b)
}

func (k Kernel) flag(elem ...string) bool {
	b, err := os.ReadFile(k.path(elem...))
	return err == nil && isSet(b)
}

// isSet reads a switch of sysfs: 1, or Y for a module's parameter.
func isSet(b []byte) bool {
	word := strings.TrimSpace(string(b))
	return word == "1" || word == "Y"
}

// loaded tells whether a module of that name is in the kernel, patching or not.
func (k Kernel) loaded(name string) bool {
	_, err := os.Lstat(k.path(moduleDir, name))
	return err == nil
}

// Module is a live patch to load, verified and read by the caller.
type Module struct {
	// Name is the name that the kernel will know it by.
	Name string
	// Content is the module's file.
	Content []byte
	// Note is its section .note.gnu.build-id, nil for none. It tells two modules of one name apart.
	Note []byte
	// Signed tells that a signature for the kernel is appended.
	Signed bool
}

// same tells whether the module of that name in the kernel is this one, as far as that can be known.
func (k Kernel) same(m Module) bool { return Patch{Note: k.note(m.Name)}.Is(m.Note) }

// able tells why a module cannot be loaded now, nil when it can. Asked before anything is done.
func (k Kernel) able(m Module) error {
	if _, err := os.Stat(k.path(patchDir)); err != nil {
		return fmt.Errorf("%w: it was built without live patching (CONFIG_LIVEPATCH)", ErrUnsupported)
	}
	if k.flag("/proc/sys/kernel/modules_disabled") {
		return fmt.Errorf("%w: kernel.modules_disabled is 1, and only a boot of the kernel takes that back", ErrUnsupported)
	}
	if why := k.wantsSignature(); why != "" && !m.Signed {
		return fmt.Errorf("%w: %s, and %s carries no signature for the kernel", ErrKernel, why, m.Name)
	}
	return k.idle()
}

// idle refuses while a transition runs, of whomever.
func (k Kernel) idle() error {
	patches, err := k.Patches()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(patches, func(p Patch) bool { return p.Transition }); i >= 0 {
		return fmt.Errorf("%w: %s", ErrBusy, patches[i].Name)
	}
	return nil
}

// wantsSignature says why the kernel takes signed modules only, "" when it takes others, too.
func (k Kernel) wantsSignature() string {
	lockdown, _ := os.ReadFile(k.path("/sys/kernel/security/lockdown")) // none without that security module
	for _, mode := range []string{"integrity", "confidentiality"} {
		if strings.Contains(string(lockdown), "["+mode+"]") {
			return "the kernel is locked down (" + mode + ")"
		}
	}
	if k.flag(moduleDir, "module/parameters/sig_enforce") {
		return "the kernel takes signed modules only (module.sig_enforce)"
	}
	return ""
}
