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

// LiveKernel names the running kernel as a publisher of live patches needs it.
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

// LivePatches lists what the kernel has loaded and what is stored. Users other than root see only what is loaded.
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

// LivePatchOptions are the operator's wishes for livepatch apply.
type LivePatchOptions struct {
	// Name is the one to load, even if it is held or superseded; "" for the last one listed.
	Name string
	// Stored uses only what is on the disk and asks no source.
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
	Loaded   []string         `json:"loaded,omitempty"`
	Reverted []string         `json:"reverted,omitempty"`
	Patches  []live.LivePatch `json:"live_patches"`
	Warnings []string         `json:"warnings,omitempty"`
}

// LivePatchApply fetches the published live patches, unless it is to use only the stored ones, and loads the one for
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

func (s *session) livePatchApply(ctx context.Context, o LivePatchOptions) (r LivePatchReport, err error) {
	r.Patches = []live.LivePatch{}
	if o.Unattended && !s.Config.LivePatch.Enabled {
		return r, nil
	}
	if !o.Stored {
		p, err := s.ask(ctx, o.From, s.facts, s.rec, false)
		if err != nil {
			return r, err
		}
		r.Warnings = p.Warnings
		if err := errors.Join(s.accept(p), s.Live.Keep(ctx, p, s.facts)); err != nil {
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

// LivePatchRevert takes a live patch out of the kernel, or with "" all of ours, the last one first. It is not loaded
// again automatically.
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

func (s *session) livePatchRevert(ctx context.Context, name string) (r LivePatchReport, err error) {
	list, err := s.Live.Survey(ctx, s.facts, s.rec)
	if err != nil {
		return r, err
	}
	for _, p := range slices.Backward(list) {
		switch {
		case name == "" && !p.Stored, name != "" && p.Name != name, p.State == live.LiveElsewhere, slices.Contains(r.Reverted, p.Name):
			continue
		case p.State != live.LiveEffective && p.State != live.LiveTransition && p.State != live.LiveLeaving && p.State != live.LiveDisabled && name == "":
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

// loadBeforeSwitch loads what waits before userspace switches to another root. One that does not load does not stop
// the switch: it is tried again when the new root is good, and then fewer old tasks block a transition that stalled.
func (s *session) loadBeforeSwitch(ctx context.Context, done *Applied) {
	var err error
	done.Loaded, err = s.Live.LoadWaiting(ctx, s.facts, s.rec)
	if err != nil {
		done.Warnings = append(done.Warnings, fmt.Sprintf("%v; it is tried again after the switch", err))
	}
}

// applyLive is apply for a host that runs the published root already, or for a release without an image: only live
// patches change. With level soft it restarts userspace in the same root when that would let a stalled one through.
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
		if err = s.restart(ctx, err.Error()); err == nil {
			done.Level, done.Restarting = level.Soft, true
		}
	}
	s.Live.Collect(s.facts, s.rec)
	var listErr error
	done.LivePatches, listErr = s.Live.Survey(ctx, s.facts, s.rec)
	return errors.Join(err, listErr)
}

// restart restarts userspace in the running root: with nothing armed, systemd comes back in it. updatectl-livepatch
// loads what is stored before the services start again. The error is an ErrIncompatible or an ErrFullReboot where the
// host should not soft-reboot.
func (s *session) restart(ctx context.Context, why string) error {
	if err := roots.Restartable(s.facts); err != nil {
		return err
	}
	// As in switchTo: it ends this process.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transition.AskTime)
	defer cancel()
	s.Live.WriteNotes(live.Notes{BootID: s.facts.BootID}) // what it restarts for is tried at once
	if err := s.Machine.Systemd.SoftReboot(ctx); err != nil {
		if errors.Is(err, pid1.ErrInhibited) {
			err = fmt.Errorf("%w: %w", record.ErrBlocked, err)
		}
		return err
	}
	s.Records.Tell(record.Event{Event: record.EventRestarting, Root: s.facts.Root, Reason: why, Kernel: s.facts.KernelRelease})
	return nil
}
