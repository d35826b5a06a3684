package livepatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Load loads a live patch and returns when every task runs its code. If it is already effective, nothing is done; if it
// is already in transition, Load waits for the end. If the transition does not end within the deadline, or before ctx
// ends, the patch is reverted and the error is a [*Stalled]. The other errors are ErrUnsupported, ErrBusy, ErrTaken and
// ErrKernel.
func (k Kernel) Load(ctx context.Context, m Module, deadline time.Duration) error {
	p, patching := k.patch(m.Name)
	switch {
	case k.loaded(m.Name) && !k.isLoadedAs(m):
		return fmt.Errorf("%w: the loaded %s was built from something else; `updatectl livepatch revert %s` takes it out",
			ErrTaken, m.Name, m.Name)
	case patching && p.Effective():
		return nil
	case patching && p.Enabled: // the process that watched it was killed
		return k.settle(ctx, m.Name, deadline)
	}
	if err := k.checkLoadable(m); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// The module of a disabled live patch stays in memory, and the kernel does not enable it again.
	if k.loaded(m.Name) {
		if err := k.remove(m.Name); err != nil {
			return fmt.Errorf("%w: %s is in the kernel, disabled, and cannot be unloaded: %w", ErrTaken, m.Name, err)
		}
	}
	if err := k.Insert(m.Content); err != nil {
		return errors.Join(fmt.Errorf("%w: %s: %s", ErrKernel, m.Name, k.explain(err)), k.unload(m.Name))
	}
	return k.settle(ctx, m.Name, deadline)
}

// settle waits for the end of the transition of a loaded patch, and reverts the patch if that does not come in time.
func (k Kernel) settle(ctx context.Context, name string, deadline time.Duration) error {
	start := time.Now()
	switch outcome := k.await(ctx, name, deadline, Patch.Effective); {
	case outcome == reached:
		return nil
	case outcome == gone && !k.loaded(name):
		return fmt.Errorf("%w: %s: it was unloaded before every task ran it", ErrKernel, name)
	case outcome == gone:
		err := fmt.Errorf("%w: %s: it was loaded and patches nothing, so it is no live patch", ErrKernel, name)
		return errors.Join(err, k.unload(name))
	}
	stalled := &Stalled{
		Name: name, After: min(deadline, time.Since(start).Round(time.Millisecond)),
		Blockers: k.Blockers(Patch{Enabled: true}),
	}
	// The caller's deadline has passed; reverting has its own.
	if err := k.Revert(context.WithoutCancel(ctx), name, deadline); err != nil {
		stalled.Back = err
	}
	return stalled
}

// Revert disables a live patch and unloads its module. If tasks still run its code when the deadline passes or ctx
// ends, the error is a [*Stalled], and the kernel continues to revert it. The other errors are ErrNotLoaded and
// ErrBusy.
func (k Kernel) Revert(ctx context.Context, name string, deadline time.Duration) error {
	p, patching := k.patch(name)
	if !patching && !k.loaded(name) {
		return fmt.Errorf("%w: %s", ErrNotLoaded, name)
	}
	if patching && p.Enabled {
		if !p.Transition {
			if err := k.checkIdle(); err != nil {
				return err
			}
		}
		// During a transition, the opposite value reverses it.
		if err := os.WriteFile(k.path(patchDir, name, "enabled"), []byte("0"), 0); err != nil {
			return fmt.Errorf("cannot disable %s: %w", name, err)
		}
	}
	off := func(p Patch) bool { return !p.Enabled && !p.Transition }
	if k.await(ctx, name, deadline, off) == timeout {
		return &Stalled{Name: name, After: deadline, Blockers: k.Blockers(Patch{}), Backwards: true}
	}
	return k.unload(name)
}

// Clean unloads the module of a live patch that is disabled or that a cumulative one has replaced, and reports whether
// there was one. A live patch that is on is left alone.
func (k Kernel) Clean(name string) (bool, error) {
	if p, patching := k.patch(name); patching && (p.Enabled || p.Transition) || !k.loaded(name) {
		return false, nil
	}
	return true, k.unload(name)
}

// unload makes sure that no module with that name is in the kernel.
func (k Kernel) unload(name string) error {
	if !k.loaded(name) {
		return nil
	}
	if err := k.remove(name); err != nil {
		return fmt.Errorf("cannot unload the module %s: %w", name, err)
	}
	return nil
}

// remove unloads a module. It retries for a while, because the kernel releases a disabled live patch a moment later
// (klp_free_patch_async).
func (k Kernel) remove(name string) error {
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); ; time.Sleep(k.pause()) {
		err := k.Remove(name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		busy := errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EWOULDBLOCK)
		if err == nil || !busy || time.Now().After(end) {
			return err
		}
	}
}

// outcome is the result of waiting for a patch.
type outcome int

const (
	reached outcome = iota // the patch is as wanted
	gone                   // the kernel has no such patch
	timeout
)

// await waits until a patch is as wanted or gone, or until the deadline passes or ctx ends, which is timeout.
func (k Kernel) await(ctx context.Context, name string, deadline time.Duration, wanted func(Patch) bool) outcome {
	end := time.After(deadline)
	for {
		p, loaded := k.patch(name)
		switch {
		case !loaded:
			return gone
		case wanted(p):
			return reached
		}
		select {
		case <-time.After(k.pause()):
		case <-ctx.Done():
			return timeout
		case <-end:
			return timeout
		}
	}
}

// pause returns how long to wait between two looks. A transition takes a second or more; the kernel itself checks once
// a second.
func (k Kernel) pause() time.Duration {
	if k.Pause > 0 {
		return k.Pause
	}
	return 200 * time.Millisecond
}

// refusals explain the error numbers of finit_module(2) to somebody who wants to load a live patch.
var refusals = map[unix.Errno]string{
	unix.ENOEXEC: "it is not in the format of this kernel's modules, or was built for another kernel (ENOEXEC)",
	unix.ENOENT:  "it needs a symbol that this kernel does not have (ENOENT)",
	unix.EINVAL: "this kernel does not have what it patches in the form that it expects, or the module is damaged " +
		"(EINVAL)",
	unix.EKEYREJECTED: "it is not signed with a key that the kernel accepts, and the kernel accepts only signed modules " +
		"(EKEYREJECTED)",
	unix.ENOKEY:      "it is signed with a key that the kernel does not have (ENOKEY)",
	unix.EKEYEXPIRED: "the key that signed it for the kernel has expired (EKEYEXPIRED)",
	unix.EBADMSG:     "its signature for the kernel is malformed (EBADMSG)",
	unix.EEXIST:      "a module with that name is loaded (EEXIST)",
	unix.EBUSY:       "a transition is under way, or a module with that name is being loaded (EBUSY)",
	unix.ENOMEM:      "there is not enough memory (ENOMEM)",
	unix.ENODEV:      "its initialization failed, or live patching is not ready in this kernel (ENODEV)",
	unix.EOPNOTSUPP:  "it patches in a way that this kernel does not support (EOPNOTSUPP)",
	unix.ENOSYS:      "this kernel does not load modules, or has no reliable stack traces of its tasks (ENOSYS)",
	unix.EPERM:       "modules may not be loaded here: lockdown, a security module, or a container (EPERM)",
	unix.EACCES:      "a security module forbids it (EACCES)",
}

// explain returns what an error of finit_module(2) means.
func (k Kernel) explain(err error) string {
	var n unix.Errno
	if !errors.As(err, &n) || refusals[n] == "" {
		return err.Error()
	}
	text := refusals[n]
	if why := k.wantsSignature(); why != "" && n == unix.EPERM {
		text += "; " + why
	}
	return text
}

// Stalled is the error of a transition that did not end in time.
type Stalled struct {
	Name  string
	After time.Duration
	// Blockers are the tasks that had not moved at the deadline. There may be none: the idle task of a CPU is not in
	// /proc.
	Blockers []Blocker
	// Backwards is whether the patch was being reverted.
	Backwards bool
	// Back is why reverting it failed or stalled, too; nil when the kernel is as before.
	Back error
}

// Error names the tasks, and the state that the patch is left in.
func (s *Stalled) Error() string {
	direction := "to the code of " + s.Name
	if s.Backwards {
		direction = "off the code of " + s.Name
	}
	text := fmt.Sprintf("%s: after %v not every task has moved %s: %s",
		ErrStalled, s.After, direction, blockersText(s.Blockers))
	var back *Stalled
	switch {
	case s.Backwards:
		return text + "; the kernel continues to revert it, and takes no other live patch before that has ended"
	case errors.As(s.Back, &back):
		return text + "; it is being reverted, which stalls, too: " + blockersText(back.Blockers) +
			"; the kernel continues that, and takes no other live patch before it has ended"
	case s.Back != nil:
		return text + "; it is still in the kernel: " + s.Back.Error()
	}
	return text + "; it was reverted, and the kernel is as before"
}

// Unwrap returns ErrStalled.
func (s *Stalled) Unwrap() error { return ErrStalled }

// ClearedBySoftReboot reports whether a soft reboot ends all tasks that block: none of them is a kernel thread, PID 1,
// or a process that survives a soft reboot.
func (s *Stalled) ClearedBySoftReboot() bool {
	for _, b := range s.Blockers {
		if !b.Ends {
			return false
		}
	}
	return len(s.Blockers) > 0
}

// blockersText returns the names of the tasks; of many, the first ones.
func blockersText(blockers []Blocker) string {
	if len(blockers) == 0 {
		return "none is visible in /proc, so it is the idle task of a CPU, or a task that has ended"
	}
	const shown = 8
	var names []string
	for _, b := range blockers[:min(len(blockers), shown)] {
		names = append(names, b.String())
	}
	if more := len(blockers) - shown; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
