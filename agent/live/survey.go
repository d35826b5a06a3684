// Package live answers which live patches this host has, and whether they are effective. It promises that a fix counts
// only when the kernel reports its live patch as enabled and out of transition.
package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/verify"
)

// Patches are the live patches of a host.
type Patches struct {
	*host.Host
	// Kernel is the running kernel.
	Kernel livepatch.Kernel
}

var (
	// ErrNoLivePatch: no live patch with that name is stored or published for this kernel.
	ErrNoLivePatch = errors.New("no such live patch")
	// ErrOtherKernel: the live patch is for another kernel. It wraps roots.ErrIncompatible.
	ErrOtherKernel = fmt.Errorf("%w: the live patch is for another kernel", roots.ErrIncompatible)
	// ErrSoftRebootHelps comes with a stalled transition: a soft reboot ends all tasks that block it.
	ErrSoftRebootHelps = errors.New("a soft reboot would end all of them")
	// ErrNoRestart comes instead of ErrSoftRebootHelps where this host cannot soft-reboot.
	ErrNoRestart = errors.New("a soft reboot would end all of them, and this host cannot soft-reboot")
)

// LiveState is the state of a live patch on this host.
type LiveState string

// The states of a live patch. Its fixes count only when it is effective.
const (
	LiveEffective  LiveState = "effective"
	LiveTransition LiveState = "in transition"
	LiveLeaving    LiveState = "being taken back"
	LiveDisabled   LiveState = "switched off"
	LiveWaiting    LiveState = "not loaded"
	LiveHeld       LiveState = "held"
	LiveSuperseded LiveState = "superseded"
	LiveWithdrawn  LiveState = "no longer published"
	LiveElsewhere  LiveState = "for another kernel"
	// LiveTaken: the kernel has a live patch of that name that was built from something else.
	LiveTaken LiveState = "another build of it is loaded"
)

// LivePatch is a live patch as this host sees it: loaded, stored, or both.
type LivePatch struct {
	livepatch.Patch
	State LiveState `json:"state"`
	// Reason is why it is in this state, where that is not obvious.
	Reason string   `json:"reason,omitempty"`
	Fixes  []string `json:"fixes,omitempty"`
	// KernelRelease, KernelVersion and KernelBuildID name the kernel that it is for; "" when somebody else loaded it.
	KernelRelease string `json:"kernel_release,omitempty"`
	KernelVersion string `json:"kernel_version,omitempty"`
	KernelBuildID string `json:"kernel_build_id,omitempty"`
	// Stored is whether it is on the disk. Vouchers lists who vouches for it by the current policy.
	Stored   bool             `json:"stored"`
	Vouchers []verify.Voucher `json:"vouchers,omitempty"`
	// Blockers are the tasks that a transition waits for.
	Blockers []livepatch.Blocker `json:"blockers,omitempty"`

	withdrawn bool
}

// misfit returns why a live patch is not for the running kernel, "" when it is. Release, version and build id must all
// match: distributions publish different kernels under one release, and the kernel does not always compare the version
// magic of a module.
func misfit(f facts.Facts, p release.LivePatch) string {
	switch {
	case p.KernelRelease != f.KernelRelease:
		return fmt.Sprintf("it is for the kernel %s, and this host runs %s", p.KernelRelease, f.KernelRelease)
	case p.KernelVersion != f.KernelVersion:
		return fmt.Sprintf("it is for the build %q of the kernel %s, and this host runs %q",
			p.KernelVersion, p.KernelRelease, f.KernelVersion)
	case f.KernelBuildID == "":
		return "it is for one build of a kernel, and the running kernel has no build id in /sys/kernel/notes"
	case p.KernelBuildID != f.KernelBuildID:
		return fmt.Sprintf("it is for the kernel with the build id %s, and this host runs %s",
			p.KernelBuildID, f.KernelBuildID)
	}
	return ""
}

// forThisKernel returns the live patches in a list that are for the running kernel.
func forThisKernel(f facts.Facts, listed []release.LivePatch) []release.LivePatch {
	var fit []release.LivePatch
	for _, p := range listed {
		if misfit(f, p) == "" {
			fit = append(fit, p)
		}
	}
	return fit
}

// knownLivePatch is a live patch that a release lists, with what this host knows about it.
type knownLivePatch struct {
	release.LivePatch
	stored, withdrawn bool
	// note is the section with the build id of its module, nil when that is not known. An unseen module was never on this
	// host: a live patch in the kernel with its name is another one.
	note   []byte
	unseen bool
	// tried is whether this run has already tried to load it. If it is not in the kernel after that, it supersedes
	// nothing.
	tried    bool
	vouchers []verify.Voucher
}

// is reports whether the loaded live patch is this one, as far as that can be known.
func (k knownLivePatch) is(loaded livepatch.Patch) bool {
	return loaded.Name == k.Name && !k.unseen && loaded.Is(k.note)
}

// isOn reports whether the kernel runs this live patch.
func (k knownLivePatch) isOn(loaded []livepatch.Patch) bool {
	return slices.ContainsFunc(loaded, func(l livepatch.Patch) bool { return k.is(l) && l.On() })
}

// RefuseForOtherKernels returns an ErrOtherKernel if the release lists the named live patch only for other kernels.
// Such live patches are rarely stored, so the survey could not explain why there is none.
func RefuseForOtherKernels(f facts.Facts, p *offer.Published, name string) error {
	if p.Release == nil {
		return nil
	}
	hasName := func(l release.LivePatch) bool { return l.Name == name }
	if slices.ContainsFunc(forThisKernel(f, p.Release.LivePatches), hasName) {
		return nil
	}
	if i := slices.IndexFunc(p.Release.LivePatches, hasName); i >= 0 {
		return fmt.Errorf("%w: %s: %s", ErrOtherKernel, name, misfit(f, p.Release.LivePatches[i]))
	}
	return nil
}

// SurveyOf returns the state of every listed live patch, in the same order, and after them what somebody else loaded.
func SurveyOf(
	f facts.Facts, loaded []livepatch.Patch, listed []knownLivePatch, held map[string]record.Held,
) []LivePatch {
	list, ours := []LivePatch{}, map[string]bool{}
	for i, k := range listed {
		p := LivePatch{
			Patch: livepatch.Patch{Name: k.Name}, Fixes: k.Fixes, Stored: k.stored, Vouchers: k.vouchers,
			withdrawn:     k.withdrawn,
			KernelRelease: k.KernelRelease, KernelVersion: k.KernelVersion, KernelBuildID: k.KernelBuildID,
		}
		if why := misfit(f, k.LivePatch); why != "" {
			p.State, p.Reason = LiveElsewhere, why
			list = append(list, p)
			continue
		}
		inKernel := slices.IndexFunc(loaded, k.is)
		if inKernel >= 0 {
			p.Patch, ours[k.Name] = loaded[inKernel], true
		}
		by := supersededBy(f, loaded, listed[i+1:], held)
		p.State, p.Reason = p.stateHere(by, inKernel >= 0, loaded, held)
		list = append(list, p)
	}
	for _, l := range loaded {
		if !ours[l.Name] {
			list = append(list, LivePatch{Patch: l, State: stateOf(l), Reason: "loaded by somebody else"})
		}
	}
	return list
}

// stateHere returns the state of a live patch for the running kernel, and the reason where that is not obvious. by is
// the live patch that supersedes it, "" for none.
func (p LivePatch) stateHere(
	by string, inKernel bool, loaded []livepatch.Patch, held map[string]record.Held,
) (LiveState, string) {
	hold, isHeld := held[p.Name]
	switch {
	case p.On():
		return stateOf(p.Patch), ""
	case isHeld:
		return LiveHeld, hold.Reason
	case p.withdrawn:
		return LiveWithdrawn, ""
	case by != "":
		return LiveSuperseded, "by " + by
	case inKernel:
		return LiveDisabled, ""
	case slices.ContainsFunc(loaded, func(l livepatch.Patch) bool { return l.Name == p.Name }):
		return LiveTaken, fmt.Sprintf("`updatectl livepatch revert %[1]s` takes that out, and "+
			"`updatectl livepatch apply %[1]s` loads this one", p.Name)
	}
	return LiveWaiting, ""
}

// stateOf returns the state of a live patch that is in the kernel.
func stateOf(p livepatch.Patch) LiveState {
	switch {
	case p.Effective():
		return LiveEffective
	case p.Enabled:
		return LiveTransition
	case p.Transition:
		return LiveLeaving
	}
	return LiveDisabled
}

// supersededBy returns the name of the live patch that supersedes one, out of those that the release lists after it; ""
// for none. It is the last one for this kernel, whatever it fixes: live patches are cumulative, so the kernel keeps
// only one of them. One that is held, or that did not load, supersedes nothing unless the kernel runs it.
func supersededBy(
	f facts.Facts, loaded []livepatch.Patch, later []knownLivePatch, held map[string]record.Held,
) string {
	for _, k := range slices.Backward(later) {
		if k.withdrawn || misfit(f, k.LivePatch) != "" {
			continue
		}
		if _, isHeld := held[k.Name]; k.isOn(loaded) || !isHeld && !k.tried {
			return k.Name
		}
	}
	return ""
}

// Waiting returns the live patches that would be loaded now.
func Waiting(list []LivePatch) []LivePatch {
	return slices.DeleteFunc(slices.Clone(list), func(p LivePatch) bool { return !p.waits() })
}

// Unfinished reports whether a live patch for the running kernel is wanted and not effective.
func (p LivePatch) Unfinished() bool {
	return p.waits() || p.State == LiveTransition || p.State == LiveLeaving
}

// waits reports whether Load would load it, or wait for its transition.
func (p LivePatch) waits() bool {
	switch p.State {
	case LiveWaiting, LiveTaken: // the other one may be gone by then; otherwise the error says what to do
		return true
	case LiveDisabled, LiveTransition: // the process that watched the transition may have been killed
		return p.Stored
	}
	return false
}

// Store returns the store of live patches.
func (lp *Patches) Store() patches.Store { return patches.At(patches.Dir(lp.Path(record.StateDir))) }

// storedLivePatches returns the live patches on the disk in two lists of the same order. Those of the last release come
// last, in its order; the others are withdrawn. With a policy, it also finds who vouches for each of them today.
func (lp *Patches) storedLivePatches(
	ctx context.Context, policy *verify.Policy,
) ([]knownLivePatch, []patches.Stored, error) {
	store := lp.Store()
	all, err := store.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	releases, err := store.Releases(ctx)
	if err != nil {
		return nil, nil, err
	}
	var list []knownLivePatch
	for _, s := range all {
		k := knownLivePatch{
			LivePatch: s.LivePatch, stored: true, note: s.Note,
			withdrawn: len(releases) == 0 || s.Evidence != releases[0],
		}
		if policy != nil {
			k.vouchers = lp.vouchersToday(ctx, s, *policy)
		}
		list = append(list, k)
	}
	return list, all, nil
}

// vouchersToday returns who vouches for a stored live patch by the policy; nobody when it would not be loaded.
func (lp *Patches) vouchersToday(
	ctx context.Context, s patches.Stored, policy verify.Policy,
) []verify.Voucher {
	v, _, err := lp.Store().Release(ctx, s.Evidence, policy)
	if err != nil {
		return nil
	}
	return v.Vouchers()
}

// Survey returns the live patches of this host that are stored or in the kernel. When the policy cannot be read, it
// leaves out who vouches for them.
func (lp *Patches) Survey(ctx context.Context, f facts.Facts, rec *record.Record) ([]LivePatch, error) {
	loaded, err := lp.Kernel.Patches()
	if err != nil {
		return nil, err
	}
	var policy *verify.Policy
	if p, err := lp.Policy(); err == nil {
		policy = &p
	}
	list, _, err := lp.storedLivePatches(ctx, policy)
	if errors.Is(err, os.ErrPermission) {
		list, err = nil, nil // users other than root see only what is in the kernel
	}
	all := SurveyOf(f, loaded, list, rec.Held)
	for i, p := range all {
		if p.Transition {
			all[i].Blockers = lp.Kernel.Blockers(p.Patch)
		}
	}
	return all, err
}

// KeepEnabled is [Patches.StorePatches] if the configuration enables live patches.
func (lp *Patches) KeepEnabled(ctx context.Context, p *offer.Published, f facts.Facts) error {
	if !lp.Config.LivePatch.Enabled {
		return nil
	}
	return lp.StorePatches(ctx, p, f)
}

// StorePatches stores the live patches of the offered release that are for the running kernel or for another one that
// this host may boot: at boot they are loaded before there is a network. If an earlier release had live patches, a
// release without any is stored as well, which withdraws them.
func (lp *Patches) StorePatches(ctx context.Context, p *offer.Published, f facts.Facts) error {
	if p.Release == nil {
		return nil
	}
	if len(p.Release.LivePatches) == 0 && !rootfs.Exists(patches.Dir(lp.Path(record.StateDir))) {
		return nil
	}
	others := func(l release.LivePatch) bool { return !lp.mayRunKernelOf(f, l) }
	fit := slices.DeleteFunc(slices.Clone(p.Release.LivePatches), others)
	if err := lp.Store().Keep(ctx, p.Source, p.Verified, fit); err != nil {
		return err
	}
	lp.Log.Debug("stored the live patches for the kernels of this host", zap.Int("count", len(fit)))
	return nil
}

// mayRunKernelOf reports whether a live patch is for the running kernel, or for one that this host may boot: the
// running root, or the host root that every full reboot starts, has modules for it. Which build of that kernel it is
// shows only when it runs.
func (lp *Patches) mayRunKernelOf(f facts.Facts, l release.LivePatch) bool {
	const modules = "/usr/lib/modules"
	return misfit(f, l) == "" || rootfs.Exists(lp.Path(filepath.Join(modules, l.KernelRelease))) ||
		rootfs.Exists(lp.Path(filepath.Join(roots.HostMount, modules, l.KernelRelease)))
}

// Listed returns the live patches of a release, whether they are stored or not. The build id of a module is known only
// if it is stored.
func Listed(p *offer.Published, stored []patches.Stored) []knownLivePatch {
	var list []knownLivePatch
	for _, l := range p.Release.LivePatches {
		k := knownLivePatch{LivePatch: l, unseen: true, vouchers: p.Verified.Vouchers()}
		same := func(s patches.Stored) bool { return s.Descriptor.Digest == l.Descriptor.Digest }
		if i := slices.IndexFunc(stored, same); i >= 0 {
			k.unseen, k.note = false, stored[i].Note
		}
		list = append(list, k)
	}
	return list
}
