// Package livepatch loads live patches into the running kernel and reverts them. It promises that a patch counts only
// when every task runs the new code, and that a load that fails or takes too long leaves the kernel unchanged. If the
// kernel cannot revert it, the error says so.
//
// The state of live patches is read from /sys/kernel/livepatch and /proc; the two system calls are fields of [Kernel].
// Nothing is ever forced: a forced patch cannot be unloaded any more, and may leave a task in code that is gone.
//
// The kernel runs one transition at a time, so callers must not use this package concurrently.
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

// The reasons why a live patch is not loaded or reverted. All but ErrStalled leave the kernel unchanged; see [Stalled].
var (
	// ErrUnsupported: this kernel takes no live patches at all.
	ErrUnsupported = errors.New("this kernel takes no live patches")
	// ErrBusy: another live patch is in transition, which may end.
	ErrBusy = errors.New("another live patch is in transition")
	// ErrTaken: another module with that name is loaded.
	ErrTaken = errors.New("another module has that name")
	// ErrKernel: the kernel refused the module.
	ErrKernel = errors.New("the kernel refused the live patch")
	// ErrStalled: not every task moved to the new code in time. The error is a [*Stalled].
	ErrStalled = errors.New("the transition did not end in time")
	// ErrNotLoaded: no live patch with that name is in the kernel.
	ErrNotLoaded = errors.New("no such live patch is loaded")
)

// Kernel is the running kernel, as seen below a directory.
type Kernel struct {
	// Root is the directory with /sys and /proc: "/" for this machine.
	Root string
	// Insert loads a module from memory (finit_module(2)). Remove unloads one (delete_module(2)).
	Insert func(module []byte) error
	Remove func(name string) error
	// Pause is how long to wait between two looks at the kernel; 0 means a suitable time.
	Pause time.Duration
}

// Host returns the kernel of this machine for root "/". For another tree, it returns what that tree shows; its Insert
// and Remove return an error.
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
	// Enabled is whether the patch is on, or is being switched on. Transition is whether some tasks have not moved yet.
	Enabled    bool `json:"enabled"`
	Transition bool `json:"transition"`
	// Replace is whether the patch is cumulative, so that it replaces older ones. Older kernels than Linux 6.11 do not
	// show it.
	Replace bool `json:"replace"`
	// Note is the module's section .note.gnu.build-id, "" where the kernel shows none.
	Note string `json:"-"`
}

// Is reports whether the patch is the module with that section .note.gnu.build-id. If either section is not known, it
// returns true.
func (p Patch) Is(note []byte) bool { return p.Note == "" || note == nil || p.Note == string(note) }

// On reports whether any task runs, or may run, the patch's code.
func (p Patch) On() bool { return p.Enabled || p.Transition }

// Effective reports whether the patch's fixes count: it is enabled, and no task runs the old code any more.
func (p Patch) Effective() bool { return p.Enabled && !p.Transition }

// Where the kernel shows live patches and modules.
const (
	patchDir  = "/sys/kernel/livepatch"
	moduleDir = "/sys/module"
)

// path returns a path below Root.
func (k Kernel) path(elem ...string) string {
	return filepath.Join(append([]string{k.Root}, elem...)...)
}

// Patches returns the live patches in the kernel, in the order of their names. A kernel without live patching has none.
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
		// A patch that is reverted disappears, possibly between two reads.
		if p, loaded := k.patch(e.Name()); loaded {
			patches = append(patches, p)
		}
	}
	return patches, nil
}

// patch returns one live patch; loaded is false when the kernel has none with that name.
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
		// A transition that cannot be read is assumed: the fix does not count then.
		Name: name, Enabled: isSet(enabled), Transition: err != nil || isSet(transition),
		Replace: k.isSwitchedOn(patchDir, name, "replace"), Note: k.note(name),
	}, true
}

// note returns the section .note.gnu.build-id of a loaded module, "" where the kernel shows none.
func (k Kernel) note(name string) string {
	b, err := os.ReadFile(k.path(moduleDir, name, "notes/.note.gnu.build-id"))
	if err != nil {
		return ""
	}
	return string(b)
}

// isSwitchedOn reports whether a switch in sysfs or /proc is on. One that cannot be read is off.
func (k Kernel) isSwitchedOn(elem ...string) bool {
	b, err := os.ReadFile(k.path(elem...))
	return err == nil && isSet(b)
}

// isSet reports whether the text of a switch means on: 1, or Y for the parameter of a module.
func isSet(b []byte) bool {
	word := strings.TrimSpace(string(b))
	return word == "1" || word == "Y"
}

// loaded reports whether a module with that name is in the kernel, whether it patches anything or not.
func (k Kernel) loaded(name string) bool {
	_, err := os.Lstat(k.path(moduleDir, name))
	return err == nil
}

// Module is a live patch to load, which the caller has verified.
type Module struct {
	// Name is the module's name in the kernel.
	Name string
	// Content is the content of the module's file.
	Content []byte
	// Note is its section .note.gnu.build-id, nil for none. Modules with the same name differ in it.
	Note []byte
	// Signed is whether a signature for the kernel is appended to the file.
	Signed bool
}

// isLoadedAs reports whether the loaded module with that name is this one, see [Patch.Is].
func (k Kernel) isLoadedAs(m Module) bool { return Patch{Note: k.note(m.Name)}.Is(m.Note) }

// checkLoadable returns why a module cannot be loaded now, nil when nothing is known to prevent it: an ErrUnsupported,
// an ErrKernel or an ErrBusy.
func (k Kernel) checkLoadable(m Module) error {
	if _, err := os.Stat(k.path(patchDir)); err != nil {
		return fmt.Errorf("%w: it was built without live patching (CONFIG_LIVEPATCH)", ErrUnsupported)
	}
	if k.isSwitchedOn("/proc/sys/kernel/modules_disabled") {
		return fmt.Errorf("%w: kernel.modules_disabled is 1, and only a full reboot resets that", ErrUnsupported)
	}
	if why := k.wantsSignature(); why != "" && !m.Signed {
		return fmt.Errorf("%w: %s, and %s carries no signature for the kernel", ErrKernel, why, m.Name)
	}
	return k.checkIdle()
}

// checkIdle returns an ErrBusy while any live patch is in transition.
func (k Kernel) checkIdle() error {
	patches, err := k.Patches()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(patches, func(p Patch) bool { return p.Transition }); i >= 0 {
		return fmt.Errorf("%w: %s", ErrBusy, patches[i].Name)
	}
	return nil
}

// wantsSignature returns why the kernel accepts only signed modules, "" when it accepts others, too.
func (k Kernel) wantsSignature() string {
	lockdown, _ := os.ReadFile(k.path("/sys/kernel/security/lockdown")) // empty without that security module
	for _, mode := range []string{"integrity", "confidentiality"} {
		if strings.Contains(string(lockdown), "["+mode+"]") {
			return "the kernel is locked down (" + mode + ")"
		}
	}
	if k.isSwitchedOn(moduleDir, "module/parameters/sig_enforce") {
		return "the kernel accepts only signed modules (module.sig_enforce)"
	}
	return ""
}
