package agent

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Available is the answer of check: what the source publishes, compared with what runs.
type Available struct {
	Reference string           `json:"reference"`
	Root      string           `json:"root"`
	Version   string           `json:"version,omitempty"`
	Vouchers  []verify.Voucher `json:"vouchers"`
	// Booted is the running root; Newer is whether another root is published.
	Booted string `json:"booted"`
	Newer  bool   `json:"newer"`
	// Trying is whether the running root is not judged yet.
	Trying bool `json:"trying,omitempty"`
	// Staged is whether the published root is on the disk already; Bad is why it is not applied automatically.
	Staged bool        `json:"staged"`
	Bad    *record.Bad `json:"bad,omitempty"`
	// Download is the size of its layers in bytes, 0 when none has to be fetched.
	Download int64 `json:"download"`
	// Release is the release that lists the image, nil for an image without a release.
	Release  *offer.Release `json:"release,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
	// LivePatches are those that the release lists. Live is whether one of them is for the running kernel, wanted, and
	// not effective yet.
	LivePatches []live.LivePatch `json:"live_patches,omitempty"`
	Live        bool             `json:"live"`
}

// Check asks the source for a newer image. It fetches no layers and changes nothing.
func (a *Agent) Check(ctx context.Context, reference string) (Available, error) {
	f, rec, err := a.Look(ctx)
	if err != nil {
		return Available{}, err
	}
	p, err := a.fetchVerified(ctx, reference, f, rec, false)
	if err != nil {
		return Available{}, err
	}
	return a.available(ctx, p, f, rec)
}

// available compares what is published with what runs.
func (a *Agent) available(ctx context.Context, p *offer.Published, f facts.Facts,
	rec *record.Record) (Available, error) {
	root := p.Root(f, rec)
	v := Available{
		Reference: p.Reference, Root: root, Version: p.Mark.Version, Vouchers: p.Verified.Vouchers(),
		Release: p.ReleaseSummary(), Warnings: p.Warnings,
		Booted: f.Root, Newer: root != f.Root, Staged: rec.Staged == root,
	}
	if a.Machine.Running {
		phase, underWay := a.underWayNow(f, rec)
		v.Trying = phase == record.PhaseTrying && underWay != nil
	}
	if p.Release != nil && a.Config.LivePatch.Enabled {
		loaded, err := a.Live.Kernel.Patches()
		if err != nil {
			return v, err
		}
		stored, err := a.Live.Store().List(ctx)
		if err != nil && !errors.Is(err, os.ErrPermission) {
			return v, err
		}
		v.LivePatches = live.SurveyOf(f, loaded, live.Listed(p, stored), rec.Held)[:len(p.Release.LivePatches)]
		v.Live = slices.ContainsFunc(v.LivePatches, live.LivePatch.Unfinished)
	}
	if bad, ok := rec.Bad[v.Root]; ok {
		v.Bad = &bad
	}
	if p.Image != nil && v.Newer && !v.Staged {
		for _, l := range p.Image.Manifest.Layers {
			v.Download += l.Size
		}
	}
	return v, nil
}
