package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/verify"
)

var (
	// ErrNoLivePatch: there is no such live patch for this kernel.
	ErrNoLivePatch = errors.New("no such live patch")
	// ErrOtherKernel: the live patch is for another build of a kernel; it is ErrIncompatible, too.
	ErrOtherKernel = fmt.Errorf("%w: the live patch is for another kernel", ErrIncompatible)
	// ErrSoftRebootHelps comes with a stalled transition: all that blocks it ends with userspace.
	ErrSoftRebootHelps = errors.New("a soft reboot would end all of them")
	// errNoRestart comes instead of it where something stands against a soft reboot of this host.
	errNoRestart = errors.New("a soft reboot would end all of them, and this host should not have one")
)

// LiveState is what a live patch is to this host.
type LiveState string

// The states of a live patch. Its fixes count in the first one only.
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
	// LiveTaken: the kernel has a module of its name that is not this one.
	LiveTaken LiveState = "another build of it is loaded"
	// LiveLate: what is listed after it is in the kernel, and it would come on top of that.
	LiveLate LiveState = "out of turn"
)

// LivePatch is a live patch as this host sees it: loaded, stored, or both.
type LivePatch struct {
	livepatch.Patch
	State LiveState `json:"state"`
	// Reason is why it is in this state, where that is not obvious.
	Reason string   `json:"reason,omitempty"`
	Fixes  []string `json:"fixes,omitempty"`
	// KernelRelease, KernelVersion and KernelBuildID are the kernel that it is for; "" when it came from somewhere else.
	KernelRelease string `json:"kernel_release,omitempty"`
	KernelVersion string `json:"kernel_version,omitempty"`
	KernelBuildID string `json:"kernel_build_id,omitempty"`
	// Stored tells that it is on the disk, Vouchers who vouches for it by the policy of today.
	Stored   bool             `json:"stored"`
	Vouchers []verify.Voucher `json:"vouchers,omitempty"`
	// Blockers are the tasks that a transition waits for.
	Blockers []livepatch.Blocker `json:"blockers,omitempty"`

	withdrawn bool
	// after is a live patch in the kernel that is listed after this one, which is not there; "" for none. Of a function that
	// both change, the kernel runs what was loaded last. Behind tells that this one would undo the other; else it has to
	// be seen.
	after  string
	behind bool
}

// Held is why a live patch is not loaded by itself any more.
type Held struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Loading is the live patch that is being loaded: who finds it after another boot knows what the kernel went down with.
type Loading struct {
	Name   string `json:"name"`
	BootID string `json:"boot_id"`
}

// misfit says why a live patch is not for the running kernel, "" when it is. All three names of a kernel count: distributors
// build another kernel under the same release, and the version magic in a module is not always compared.
func misfit(f switcher.Facts, p release.LivePatch) string {
	switch {
	case p.KernelRelease != f.KernelRelease:
		return fmt.Sprintf("it is for the kernel %s, and this host runs %s", p.KernelRelease, f.KernelRelease)
	case p.KernelVersion != f.KernelVersion:
		return fmt.Sprintf("it is for the build %q of the kernel %s, and this host runs %q", p.KernelVersion, p.KernelRelease, f.KernelVersion)
	case f.KernelBuildID == "":
		return "it is for one build of a kernel, and the running one does not tell its build id (/sys/kernel/notes)"
	case p.KernelBuildID != f.KernelBuildID:
		return fmt.Sprintf("it is for the kernel with the build id %s, and this host runs %s", p.KernelBuildID, f.KernelBuildID)
	}
	return ""
}

// pick chooses, of what a release lists, the live patches for the running kernel.
func pick(f switcher.Facts, listed []release.LivePatch) []release.LivePatch {
	var fit []release.LivePatch
	for _, p := range listed {
		if misfit(f, p) == "" {
			fit = append(fit, p)
		}
	}
	return fit
}

// known is a live patch that a release lists, for survey.
type known struct {
	release.LivePatch
	stored, withdrawn bool
	// note is the section with the build id of its module, nil when that is not known; of one that is unseen, the module was
	// never on this host, and what the kernel has of its name is something else.
	note   []byte
	unseen bool
	// late is what the notes say of it; failed tells that it was tried and did not load: it stands in for nothing.
	late, failed bool
	vouchers     []verify.Voucher
}

// is tells whether what the kernel has loaded is this very live patch, as far as that can be known.
func (k known) is(l livepatch.Patch) bool { return l.Name == k.Name && !k.unseen && l.Is(k.note) }

// elsewhere refuses a live patch that is asked for by name and that a release has for other kernels only. Few of these are
// kept, so that nothing else could say why it is not to be had.
func elsewhere(f switcher.Facts, p *published, name string) error {
	if p.release == nil || slices.ContainsFunc(pick(f, p.release.LivePatches), func(l release.LivePatch) bool { return l.Name == name }) {
		return nil
	}
	for _, l := range p.release.LivePatches {
		if l.Name == name {
			return fmt.Errorf("%w: %s: %s", ErrOtherKernel, name, misfit(f, l))
		}
	}
	return nil
}

// survey joins what the kernel has loaded with what is known of live patches, in the order in which they are to be loaded.
func survey(f switcher.Facts, loaded []livepatch.Patch, all []known, held map[string]Held) []LivePatch {
	list, ours := []LivePatch{}, map[string]bool{}
	for i, k := range all {
		p := LivePatch{
			Patch: livepatch.Patch{Name: k.Name}, Fixes: k.Fixes, Stored: k.stored, Vouchers: k.vouchers,
			KernelRelease: k.KernelRelease, KernelVersion: k.KernelVersion, KernelBuildID: k.KernelBuildID, withdrawn: k.withdrawn,
		}
		p.State, p.Reason = LiveWaiting, ""
		by := superseded(f, all, i, held)
		hold, isHeld := held[k.Name]
		inKernel := slices.IndexFunc(loaded, k.is)
		after, isAfter := ahead(f, loaded, all[i+1:])
		if inKernel < 0 || !loaded[inKernel].On() {
			p.after, p.behind = after.Name, isAfter && (after.Replace || k.late)
		}
		switch why := misfit(f, k.LivePatch); {
		case why != "":
			p.State, p.Reason = LiveElsewhere, why
		case inKernel >= 0:
			p.Patch, p.State = loaded[inKernel], stateOf(loaded[inKernel])
			ours[k.Name] = true
		case isHeld:
			p.State, p.Reason = LiveHeld, hold.Reason
		case k.withdrawn:
			p.State = LiveWithdrawn
		case by != "":
			p.State, p.Reason = LiveSuperseded, "by "+by
		case isAfter && after.Replace:
			p.State, p.Reason = LiveSuperseded, fmt.Sprintf("by %s, which is listed after it and replaces all that were loaded before", after.Name)
		case p.behind:
			p.State, p.Reason = LiveLate, fmt.Sprintf("%s, which is listed after it, is in the kernel; the next boot of the kernel loads both in their order", after.Name)
		case slices.ContainsFunc(loaded, func(l livepatch.Patch) bool { return l.Name == k.Name }):
			p.State, p.Reason = LiveTaken, fmt.Sprintf("`updatectl livepatch revert %s` takes that out, and `updatectl livepatch apply %s` loads this one", k.Name, k.Name)
		}
		list = append(list, p)
	}
	for _, l := range loaded {
		if !ours[l.Name] {
			list = append(list, LivePatch{Patch: l, State: stateOf(l), Reason: "loaded by somebody else"})
		}
	}
	return list
}

// ahead finds, among the live patches that are listed after one, one that the kernel runs, and rather one that replaces all
// before it.
func ahead(f switcher.Facts, loaded []livepatch.Patch, later []known) (found livepatch.Patch, any bool) {
	for _, k := range later {
		i := slices.IndexFunc(loaded, k.is)
		if i >= 0 && loaded[i].On() && misfit(f, k.LivePatch) == "" && (!any || loaded[i].Replace) {
			found, any = loaded[i], true
		}
	}
	return found, any
}

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

// superseded names a later live patch for this kernel that has every fix of the one at i, "" when there is none: loading
// both would only mean to replace the one by the other.
func superseded(f switcher.Facts, all []known, i int, held map[string]Held) string {
	for _, later := range all[i+1:] {
		_, isHeld := held[later.Name]
		if isHeld || later.withdrawn || later.failed || misfit(f, later.LivePatch) != "" {
			continue
		}
		if hasAll(later.Fixes, all[i].Fixes) {
			return later.Name
		}
	}
	return ""
}

// hasAll tells whether a live patch with these fixes stands in for one with those. One that names none cannot be known to
// have a stand-in.
func hasAll(fixes, those []string) bool {
	return len(those) > 0 && !slices.ContainsFunc(those, func(fix string) bool { return !slices.Contains(fixes, fix) })
}

// Waiting returns the live patches that would be loaded now.
func Waiting(list []LivePatch) []LivePatch {
	return slices.DeleteFunc(slices.Clone(list), func(p LivePatch) bool { return !p.waits() })
}

// Unfinished tells whether a live patch for the running kernel is wanted and not effective.
func (p LivePatch) Unfinished() bool {
	return p.waits() || p.State == LiveTransition || p.State == LiveLeaving
}

func (p LivePatch) waits() bool {
	if p.behind {
		return false
	}
	switch p.State {
	case LiveWaiting, LiveTaken: // what has its name there may have been taken out by then, and else the error says what to do
		return true
	case LiveDisabled, LiveTransition: // a transition may have lost who watched it
		return p.Stored
	}
	return false
}

// livePatches is the store of live patches.
func (a *Agent) livePatches() patches.Store { return patches.At(patches.Dir(a.path(StateDir))) }

// stored lists the live patches on the disk. Those of the release that was kept last are the ones to load; what it no
// longer lists was withdrawn. With a policy it is told who vouches for them today.
func (a *Agent) stored(ctx context.Context, policy *verify.Policy) ([]known, []patches.Stored, error) {
	store := a.livePatches()
	all, err := store.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	releases, err := store.Releases(ctx)
	if err != nil {
		return nil, nil, err
	}
	var list []known
	for _, s := range all {
		k := known{LivePatch: s.LivePatch, stored: true, note: s.Note, withdrawn: len(releases) == 0 || s.Evidence != releases[0]}
		if policy != nil {
			k.vouchers = a.vouchers(ctx, s, *policy)
		}
		list = append(list, k)
	}
	return list, all, nil
}

// vouchers tells who vouches for a stored live patch by the policy of today: nobody, when it would not be loaded.
func (a *Agent) vouchers(ctx context.Context, s patches.Stored, policy verify.Policy) []verify.Voucher {
	v, _, err := a.livePatches().Release(ctx, s.Evidence, policy)
	if err != nil {
		return nil
	}
	return v.Vouchers()
}

// LiveKernel names the running kernel as a publisher of live patches needs it.
type LiveKernel struct {
	Release string `json:"release"`
	Version string `json:"version"`
	BuildID string `json:"build_id,omitempty"`
}

// LivePatchList is the answer of livepatch list.
type LivePatchList struct {
	Kernel      LiveKernel  `json:"kernel"`
	LivePatches []LivePatch `json:"live_patches"`
}

// LivePatches lists what the kernel has loaded and what is stored. Who is not root sees what the kernel has loaded.
func (a *Agent) LivePatches(ctx context.Context) (LivePatchList, error) {
	if a.Machine.Live() && os.Geteuid() != 0 {
		loaded, err := a.live.Patches()
		return LivePatchList{LivePatches: survey(switcher.Facts{}, loaded, nil, nil)}, err
	}
	facts, rec, err := a.look(ctx)
	if err != nil {
		return LivePatchList{}, err
	}
	list := LivePatchList{Kernel: LiveKernel{facts.KernelRelease, facts.KernelVersion, facts.KernelBuildID}}
	list.LivePatches, err = a.survey(ctx, facts, rec)
	return list, err
}

// survey is survey of what is on this host. A policy that cannot work leaves out who vouches.
func (a *Agent) survey(ctx context.Context, f switcher.Facts, rec *Record) ([]LivePatch, error) {
	loaded, err := a.live.Patches()
	if err != nil {
		return nil, err
	}
	var policy *verify.Policy
	if p, err := a.policy(); err == nil {
		policy = &p
	}
	list, _, err := a.stored(ctx, policy)
	if errors.Is(err, os.ErrPermission) {
		list, err = nil, nil // in another tree, who is not root sees what that tree shows
	}
	all := survey(f, loaded, a.withNotes(f, list), rec.Held)
	for i, p := range all {
		if p.Transition {
			all[i].Blockers = a.live.Blockers(p.Patch)
		}
	}
	return all, err
}

// keepLive is keep for what does more than live patches, where the configuration wants them.
func (a *Agent) keepLive(ctx context.Context, p *published, f switcher.Facts) error {
	if !a.Config.LivePatch.Enabled {
		return nil
	}
	return a.keep(ctx, p, f)
}

// keep brings the live patches that the offered release has for the running kernel onto the disk, and those for the others
// that the host may boot: the network is not there yet when they are to be loaded. A release that lists none is kept,
// too, where there was one that did: what it no longer lists was withdrawn.
func (a *Agent) keep(ctx context.Context, p *published, f switcher.Facts) error {
	if p.release == nil {
		return nil
	}
	if len(p.release.LivePatches) == 0 && !exists(patches.Dir(a.path(StateDir))) {
		return nil
	}
	fit := slices.DeleteFunc(slices.Clone(p.release.LivePatches), func(l release.LivePatch) bool { return !a.mayRun(f, l) })
	if err := a.livePatches().Keep(ctx, p.source, p.verified, fit); err != nil {
		return err
	}
	a.Log.Debug("kept the live patches for the kernels of this host", zap.Int("count", len(fit)))
	return nil
}

// mayRun tells whether a live patch is for the running kernel, or for one that a boot may bring: the root that runs or the
// mutable host, which every boot starts in, has modules for it. Which build of that kernel it is shows when it runs.
func (a *Agent) mayRun(f switcher.Facts, l release.LivePatch) bool {
	const modules = "/usr/lib/modules"
	return misfit(f, l) == "" || exists(a.path(filepath.Join(modules, l.KernelRelease))) ||
		exists(a.path(filepath.Join(hostMount, modules, l.KernelRelease)))
}

// LivePatchOptions are the operator's wishes for livepatch apply.
type LivePatchOptions struct {
	// Name is the only one to load, also if it is held; "" for all that wait.
	Name string
	// Stored keeps to what is on the disk and asks no source.
	Stored bool
	// From overrides the configured source.
	From string
	// Unattended does what the configuration says, and nothing else.
	Unattended bool
	// Wait waits for another updatectl instead of giving up.
	Wait bool
}

// LivePatchReport is what livepatch apply and revert did.
type LivePatchReport struct {
	// Loaded and Reverted are names.
	Loaded   []string    `json:"loaded,omitempty"`
	Reverted []string    `json:"reverted,omitempty"`
	Patches  []LivePatch `json:"live_patches"`
	Warnings []string    `json:"warnings,omitempty"`
}

// LivePatchApply loads the live patches for the running kernel that are stored, and before that, unless it is to keep to
// these, fetches what is published.
func (a *Agent) LivePatchApply(ctx context.Context, o LivePatchOptions) (LivePatchReport, error) {
	unlock, facts, rec, err := a.beginLive(ctx, "livepatch apply", o.Wait)
	if err != nil {
		return LivePatchReport{}, err
	}
	defer unlock()
	return a.livePatchApply(ctx, o, facts, rec)
}

// beginLive is the start of every command that changes live patches only. They may be the first thing that a host does, so
// the directory of the record is made here, too.
func (a *Agent) beginLive(ctx context.Context, verb string, wait bool) (unlock func(), f switcher.Facts, rec *Record, err error) {
	if err := a.requireLive(); err != nil {
		return nil, f, nil, err
	}
	if unlock, err = a.lock(ctx, verb, wait); err != nil {
		return nil, f, nil, err
	}
	if _, err = a.openStore(); err == nil {
		f, rec, err = a.look(ctx)
	}
	if err != nil {
		unlock()
	}
	return unlock, f, rec, err
}

func (a *Agent) livePatchApply(ctx context.Context, o LivePatchOptions, f switcher.Facts, rec *Record) (r LivePatchReport, err error) {
	if o.Unattended && !a.Config.LivePatch.Enabled {
		return r, nil
	}
	if !o.Stored {
		p, err := a.fetch(ctx, o.From, f, rec, false)
		if err != nil {
			return r, err
		}
		r.Warnings = p.warnings
		if err := errors.Join(a.accept(p, rec), a.keep(ctx, p, f)); err != nil {
			return r, err
		}
		if err := elsewhere(f, p, o.Name); err != nil {
			return r, err
		}
	}
	if o.Name != "" && rec.Held[o.Name] != (Held{}) {
		delete(rec.Held, o.Name)
		if err := a.writeRecord(rec); err != nil {
			return r, err
		}
	}
	r.Loaded, err = a.loadLive(ctx, f, rec, o.Name, o.Unattended && o.Stored)
	var listErr error
	r.Patches, listErr = a.survey(ctx, f, rec)
	return r, errors.Join(err, listErr)
}
