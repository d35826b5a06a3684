package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// LiveKernel identifies the running kernel for a publisher of live patches.
type LiveKernel struct {
	Release string `json:"release"`
	Version string `json:"version"`
	BuildID string `json:"build_id,omitempty"`
}

// LivePatchList is the answer of livepatch list.
type LivePatchList struct {
	Kernel      LiveKernel       `json:"kernel"`
	LivePatches []live.LivePatch `json:"live_patches"`
}

// LivePatches lists the loaded and the stored live patches. Users other than root see only the loaded ones.
func (a *Agent) LivePatches(ctx context.Context) (LivePatchList, error) {
	if a.Machine.Running && !a.Machine.Superuser {
		loaded, err := a.Live.Kernel.Patches()
		return LivePatchList{LivePatches: live.SurveyOf(facts.Facts{}, loaded, nil, nil)}, err
	}
	f, rec, err := a.Look(ctx)
	if err != nil {
		return LivePatchList{}, err
	}
	list := LivePatchList{Kernel: LiveKernel{f.KernelRelease, f.KernelVersion, f.KernelBuildID}}
	list.LivePatches, err = a.Live.Survey(ctx, f, rec)
	return list, err
}

// LivePatchOptions is what the operator asks of livepatch apply.
type LivePatchOptions struct {
	// Name is the live patch to load, even when it is held or superseded; "" is the last one listed.
	Name string
	// Stored uses only what is on the disk and contacts no source.
	Stored bool
	// From overrides the configured source.
	From string
	// Unattended is set by units: nothing is loaded when [livepatch] enabled is false.
	Unattended bool
	// Wait waits until another updatectl is done, instead of failing.
	Wait bool
}

// LivePatchReport is what livepatch apply and revert did.
type LivePatchReport struct {
	// Loaded and Reverted are names.
	Loaded   []string         `json:"loaded,omitempty"`
	Reverted []string         `json:"reverted,omitempty"`
	Patches  []live.LivePatch `json:"live_patches"`
	Warnings []string         `json:"warnings,omitempty"`
}

// LivePatchApply fetches the published live patches (with o.Stored it uses those on the disk) and loads the one for
// the running kernel.
func (a *Agent) LivePatchApply(ctx context.Context, o LivePatchOptions) (LivePatchReport, error) {
	if err := a.RequireRunning(); err != nil {
		return LivePatchReport{}, err
	}
	s, err := a.open(ctx, "livepatch apply", o.Wait)
	if err != nil {
		return LivePatchReport{}, err
	}
	defer s.close()
	return s.livePatchApply(ctx, o)
}

// livePatchApply is LivePatchApply in an open session.
func (s *session) livePatchApply(ctx context.Context, o LivePatchOptions) (r LivePatchReport, err error) {
	r.Patches = []live.LivePatch{}
	if o.Unattended && !s.Config.LivePatch.Enabled {
		return r, nil
	}
	if !o.Stored && s.rec.Moving() { // fetching may take longer than the time that the root has to become good
		return r, fmt.Errorf("%w: the switch to %s is not confirmed yet", record.ErrBlocked, s.rec.Switch.Target)
	}
	if !o.Stored {
		p, err := s.fetchVerified(ctx, o.From, s.facts, s.rec, false)
		if err != nil {
			return r, err
		}
		r.Warnings = p.Warnings
		if err := errors.Join(s.accept(p), s.Live.StorePatches(ctx, p, s.facts)); err != nil {
			return r, err
		}
		if err := live.RefuseForOtherKernels(s.facts, p, o.Name); err != nil {
			return r, err
		}
	}
	if o.Name != "" && s.rec.Held[o.Name] != (record.Held{}) {
		delete(s.rec.Held, o.Name)
		if err := s.Records.Write(s.rec); err != nil {
			return r, err
		}
	}
	r.Loaded, err = s.Live.Load(ctx, s.facts, s.rec, o.Name, o.Unattended && o.Stored)
	var listErr error
	r.Patches, listErr = s.Live.Survey(ctx, s.facts, s.rec)
	return r, errors.Join(err, listErr)
}

// LivePatchRevert reverts one live patch, or with "" every one that this agent loaded, the last one first. A reverted
// live patch is not loaded again automatically. The error is a [live.ErrNoLivePatch] when there is none of that name.
func (a *Agent) LivePatchRevert(ctx context.Context, name string, wait bool) (LivePatchReport, error) {
	if err := a.RequireRunning(); err != nil {
		return LivePatchReport{}, err
	}
	s, err := a.open(ctx, "livepatch revert", wait)
	if err != nil {
		return LivePatchReport{}, err
	}
	defer s.close()
	return s.livePatchRevert(ctx, name)
}

// revertable are the states in which a live patch is in the kernel, so that reverting all reverts it.
var revertable = []live.LiveState{live.LiveEffective, live.LiveTransition, live.LiveLeaving, live.LiveDisabled}

// livePatchRevert is LivePatchRevert in an open session.
func (s *session) livePatchRevert(ctx context.Context, name string) (r LivePatchReport, err error) {
	list, err := s.Live.Survey(ctx, s.facts, s.rec)
	if err != nil {
		return r, err
	}
	for _, p := range slices.Backward(list) {
		switch {
		case name == "" && !p.Stored, name != "" && p.Name != name, p.State == live.LiveElsewhere,
			slices.Contains(r.Reverted, p.Name):
			continue
		case name == "" && !slices.Contains(revertable, p.State):
			continue
		}
		if err := s.Live.Revert(ctx, p, s.rec); err != nil {
			return r, err
		}
		r.Reverted = append(r.Reverted, p.Name)
	}
	if name != "" && len(r.Reverted) == 0 {
		return r, fmt.Errorf("%w: %s", live.ErrNoLivePatch, name)
	}
	r.Patches, err = s.Live.Survey(ctx, s.facts, s.rec)
	return r, err
}

// loadBeforeSwitch loads waiting live patches before userspace switches to another root. A live patch that fails does
// not stop the switch: it is tried again when the new root is good, and fewer old tasks block its transition then.
func (s *session) loadBeforeSwitch(ctx context.Context, done *Applied) {
	var err error
	done.Loaded, err = s.Live.LoadWaiting(ctx, s.facts, s.rec)
	if err != nil {
		done.Warnings = append(done.Warnings, fmt.Sprintf("%v; it is tried again after the switch", err))
	}
}

// applyLive is apply when the published root runs already, or when the release has no image: only live patches change.
// With level soft it restarts userspace in the same root when that would complete a stalled transition.
func (s *session) applyLive(ctx context.Context, off *offer.Published, done *Applied, wish level.Level) error {
	if off.Release == nil || !s.Config.LivePatch.Enabled {
		return nil
	}
	var err error
	done.Loaded, err = s.Live.Load(ctx, s.facts, s.rec, "", false)
	if len(done.Loaded) > 0 {
		done.Level = level.Live
	}
	if (errors.Is(err, live.ErrSoftRebootHelps) || errors.Is(err, live.ErrNoRestart)) && wish == level.Soft {
		done.Warnings = append(done.Warnings, err.Error())
		why := err.Error()
		if err = beginTurn(ctx, s, done); err == nil {
			if err = s.restart(ctx, why); err != nil {
				s.Turn.CallOff(ctx, err.Error())
			}
		}
		if err == nil {
			done.Level, done.Restarting = level.Soft, true
		}
	}
	s.Live.Collect(s.facts, s.rec)
	var listErr error
	done.LivePatches, listErr = s.Live.Survey(ctx, s.facts, s.rec)
	return errors.Join(err, listErr)
}

// restart restarts userspace in the running root: with nothing armed, a soft reboot stays in it. updatectl-livepatch
// loads the stored live patches before the services start again. The error is a [roots.ErrIncompatible] or a
// [roots.ErrFullReboot] when the host should not soft-reboot.
func (s *session) restart(ctx context.Context, why string) error {
	if err := roots.Restartable(s.facts); err != nil {
		return err
	}
	// The soft reboot ends this process; SIGTERM must not interrupt it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.RequestTimeout)
	defer cancel()
	s.Live.WriteNotes(live.Notes{BootID: s.facts.BootID}) // forget what stalled, so that it is tried again at once
	if err := s.Machine.Systemd.SoftReboot(ctx); err != nil {
		if errors.Is(err, pid1.ErrInhibited) {
			err = fmt.Errorf("%w: %w", record.ErrBlocked, err)
		}
		return err
	}
	s.Records.AppendEvent(record.Event{
		Event: record.EventRestarting, Root: s.facts.Root, Reason: why, Kernel: s.facts.KernelRelease,
	})
	return nil
}
