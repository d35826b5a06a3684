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

// Load loads a live patch and returns when every task runs its code. One that is effective already is left as it is.
// One that is in transition already is watched from here on.
// When the transition has not ended by the deadline, or ctx ends, the patch is taken back and the error is a *Stalled.
// The other errors are ErrUnsupported, ErrBusy, ErrTaken and ErrKernel.
func (k Kernel) Load(ctx context.Context, m Module, deadline time.Duration) error {
	p, patching := k.patch(m.Name)
	switch {
	case k.loaded(m.Name) && !k.same(m):
		return fmt.Errorf("%w: the %s that the kernel has was built from something else; `updatectl livepatch revert %s` takes it out", ErrTaken, m.Name, m.Name)
	case patching && p.Effective():
		return nil
	case patching && p.Enabled: // somebody was killed while this was to be watched
		return k.settle(ctx, m.Name, deadline)
	}
	if err := k.able(m); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A live patch that was switched off stays in memory as a module. The kernel does not switch it on again.
	if k.loaded(m.Name) {
		if err := k.remove(m.Name); err != nil {
			return fmt.Errorf("%w: %s is in the kernel, switched off, and cannot be taken out: %w", ErrTaken, m.Name, err)
		}
	}
	if err := k.Insert(m.Content); err != nil {
		return errors.Join(fmt.Errorf("%w: %s: %s", ErrKernel, m.Name, k.explain(err)), k.clean(m.Name))
	}
	return k.settle(ctx, m.Name, deadline)
}

// settle waits for the end of the transition of a patch that was just loaded, and takes it back if it does not come.
func (k Kernel) settle(ctx context.Context, name string, deadline time.Duration) error {
	start := time.Now()
	switch outcome := k.await(ctx, name, deadline, Patch.Effective); {
	case outcome == reached:
		return nil
	case outcome == gone && !k.loaded(name):
		return fmt.Errorf("%w: %s: it was taken out again before every task ran it", ErrKernel, name)
	case outcome == gone:
		return errors.Join(fmt.Errorf("%w: %s: it was loaded and patches nothing, so it is no live patch", ErrKernel, name), k.clean(name))
	}
	stalled := &Stalled{Name: name, After: min(deadline, time.Since(start).Round(time.Millisecond)), Blockers: k.Blockers(Patch{Enabled: true})}
	// The deadline of the caller is over; taking it back has its own.
	if err := k.Revert(context.WithoutCancel(ctx), name, deadline); err != nil {
		stalled.Back = err
	}
	return stalled
}

// Revert switches a live patch off and takes its module out. When tasks still run its code at the deadline the error is a
// *Stalled; the kernel goes on with taking it back by itself.
func (k Kernel) Revert(ctx context.Context, name string, deadline time.Duration) error {
	p, patching := k.patch(name)
	if !patching && !k.loaded(name) {
		return fmt.Errorf("%w: %s", ErrNotLoaded, name)
	}
	if patching && p.Enabled {
		if !p.Transition {
			if err := k.idle(); err != nil {
				return err
			}
		}
		// In a transition, the opposite value turns it round.
		if err := os.WriteFile(k.path(patchDir, name, "enabled"), []byte("0"), 0); err != nil {
			return fmt.Errorf("cannot switch %s off: %w", name, err)
		}
	}
	off := func(p Patch) bool { return !p.Enabled && !p.Transition }
	if k.await(ctx, name, deadline, off) == timeout {
		return &Stalled{Name: name, After: deadline, Blockers: k.Blockers(Patch{}), Backwards: true}
	}
	return k.clean(name)
}

// Clean takes out the module of a live patch that no longer patches anything: it was switched off, or a cumulative one
// replaced it. It tells whether there was one. One that patches is left alone.
func (k Kernel) Clean(name string) (bool, error) {
	if p, patching := k.patch(name); patching && (p.Enabled || p.Transition) || !k.loaded(name) {
		return false, nil
	}
	return true, k.clean(name)
}

// clean makes sure that no module of that name is in the kernel.
func (k Kernel) clean(name string) error {
	if !k.loaded(name) {
		return nil
	}
	if err := k.remove(name); err != nil {
		return fmt.Errorf("cannot take the module %s out: %w", name, err)
	}
	return nil
}

// remove takes a module out. The kernel lets go of one that was switched off a moment later (klp_free_patch_async).
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

// outcome is how waiting for a patch ended.
type outcome int

const (
	reached outcome = iota // it is as it was to be
	gone                   // the kernel has no such patch any more
	timeout
)

// await looks at a patch until it is as wanted, is gone, or the time is over.
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

// pause is how long to wait between two looks. Transitions take from a second up; the kernel itself looks once a second.
func (k Kernel) pause() time.Duration {
	if k.Pause > 0 {
		return k.Pause
	}
	return 200 * time.Millisecond
}

// refusals are what the kernel means by the error number of finit_module(2), in the words of somebody who wants to load
// a live patch.
var refusals = map[unix.Errno]string{
	unix.ENOEXEC:      "it is not in the format of this kernel's modules, or was built for another kernel (ENOEXEC)",
	unix.ENOENT:       "it needs a symbol that this kernel does not have (ENOENT)",
	unix.EINVAL:       "what it wants to patch is not in this kernel as it expects it, or the module is damaged (EINVAL)",
	unix.EKEYREJECTED: "it is not signed, or by a key that the kernel does not accept, and the kernel takes signed modules only (EKEYREJECTED)",
	unix.ENOKEY:       "it is signed by a key that the kernel does not have (ENOKEY)",
	unix.EKEYEXPIRED:  "the key that signed it for the kernel has expired (EKEYEXPIRED)",
	unix.EBADMSG:      "its signature for the kernel is malformed (EBADMSG)",
	unix.EEXIST:       "a module of that name is loaded (EEXIST)",
	unix.EBUSY:        "a transition, or the loading of a module of that name, is under way (EBUSY)",
	unix.ENOMEM:       "there is not enough memory (ENOMEM)",
	unix.ENODEV:       "its own start failed, or live patching is not ready in this kernel (ENODEV)",
	unix.EOPNOTSUPP:   "it patches in a way that this kernel does not support (EOPNOTSUPP)",
	unix.ENOSYS:       "this kernel does not load modules, or cannot tell reliably what its tasks run (ENOSYS)",
	unix.EPERM:        "modules may not be loaded here: lockdown, a security module, or a container (EPERM)",
	unix.EACCES:       "a security module forbids it (EACCES)",
}

// explain says what an error of finit_module means.
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

// Stalled is a transition that did not end in time.
type Stalled struct {
	Name  string
	After time.Duration
	// Blockers are the tasks that still ran the other code at the deadline. There may be none: the idle task of a CPU is
	// not in /proc.
	Blockers []Blocker
	// Backwards tells that the patch was being taken back.
	Backwards bool
	// Back is why taking it back failed or stalls, too; nil when the kernel is as it was.
	Back error
}

// Error names the tasks, and where the patch is left.
func (s *Stalled) Error() string {
	whither := "to the code of " + s.Name
	if s.Backwards {
		whither = "off the code of " + s.Name
	}
	text := fmt.Sprintf("%s: after %v not every task has moved %s: %s", ErrStalled, s.After, whither, blockersText(s.Blockers))
	var back *Stalled
	switch {
	case s.Backwards:
		return text + "; the kernel goes on taking it back, and takes no other live patch before that has ended"
	case errors.As(s.Back, &back):
		return text + "; it is being taken back, which stalls, too: " + blockersText(back.Blockers) +
			"; the kernel goes on with that, and takes no other live patch before it has ended"
	case s.Back != nil:
		return text + "; and it is still there: " + s.Back.Error()
	}
	return text + "; it was taken back, and the kernel is as it was"
}

// Unwrap makes it an ErrStalled.
func (s *Stalled) Unwrap() error { return ErrStalled }

// ClearedBySoftReboot tells whether ending every service ends all that blocks: tasks of services, and not of the kernel, of
// PID 1, or of what survives.
func (s *Stalled) ClearedBySoftReboot() bool {
	for _, b := range s.Blockers {
		if !b.Ends {
			return false
		}
	}
	return len(s.Blockers) > 0
}

// blockersText names the tasks; a crowd by its beginning.
func blockersText(blockers []Blocker) string {
	if len(blockers) == 0 {
		return "none that /proc shows, so the idle task of a CPU, or one that came and went"
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
