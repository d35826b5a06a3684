package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// published is an image that the source has and the policy passed. No layer of it was fetched yet.
type published struct {
	reference string
	source    *source.Source
	// verified is what the reference stands for; image is nil for a release of live patches alone.
	verified *verify.Verified
	image    *image.Image
	// release is the release that lists the image, nil for an image on its own; mark is what the record keeps of either.
	release *release.Release
	mark    release.Mark
	// seen is the latest time that is known to have passed: by the record, or by the proofs that came with the signatures.
	seen time.Time
	// waived is why the record would have refused it, had the operator not allowed a downgrade.
	waived error
	// warnings are for the operator, whatever becomes of it.
	warnings []string
}

// userAgent is what registries see.
const userAgent = "updatectl"

// fetchOffer asks the source what it publishes and has it verified: bounded bytes of the manifest, then its signatures, and
// only then what they say, and whether it is its time.
func (a *Agent) fetchOffer(ctx context.Context, reference string, f facts.Facts, rec *Record, running string, downgrade bool) (*published, error) {
	policy, err := a.policy()
	if err != nil {
		return nil, err
	}
	if reference == "" {
		reference = a.Config.Source.Image
	}
	if reference == "" {
		return nil, fmt.Errorf("%w: %s[source] image is empty: name the image to follow", ErrConfig, a.Config.at("source.image"))
	}
	p := &published{reference: reference}
	src, err := a.open(p)
	if err != nil {
		return nil, err
	}
	desc, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	a.Log.Debug("resolved", zap.String("reference", reference), zap.Stringer("digest", desc.Digest))
	content, err := src.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	candidates, err := src.Candidates(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	verified, err := policy.Verify(content, desc.MediaType, candidates)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", reference, err)
	}
	p.verified = verified
	return p, a.choose(ctx, p, verified, a.circumstances(f, rec, running, downgrade), f.Root)
}

// fetch is fetchOffer for the version of the root that runs.
func (a *Agent) fetch(ctx context.Context, reference string, f facts.Facts, rec *Record, downgrade bool) (*published, error) {
	return a.fetchOffer(ctx, reference, f, rec, a.versionOf(versioned(f, rec), rec), downgrade)
}

// open opens the reference, and the mirrors if it is the one that they are mirrors of.
func (a *Agent) open(p *published) (src *source.Source, err error) {
	o := source.Options{PlainHTTP: a.Config.Source.PlainHTTP, UserAgent: userAgent}
	if p.reference == a.Config.Source.Image {
		o.Mirrors = a.Config.Source.Mirrors
	}
	o.Warn = func(err error) {
		p.warnings = append(p.warnings, err.Error())
		a.Log.Warn(err.Error())
	}
	p.source, err = source.Open(p.reference, o)
	return p.source, err
}

// stage brings the image onto the disk, or finds it there.
func (a *Agent) stage(ctx context.Context, w *work) (store.Root, error) {
	p := w.offer
	if err := a.keepEnabledLivePatches(ctx, p, w.facts); err != nil {
		return store.Root{}, err
	}
	if p.image == nil { // the root that a boot of the kernel left
		return w.store.Root(w.done.Root)
	}
	_, lookErr := w.store.Root(p.image.ID())
	root, err := image.Stage(ctx, w.store, p.source, p.image, p.reference, a.stageProgress)
	if err != nil {
		return root, err
	}
	if p.waived != nil {
		if err := a.accept(p, w.rec); err != nil {
			return root, err
		}
	}
	p.mark.Version = cmp.Or(p.mark.Version, root.Info.Version)
	w.done.Version = p.mark.Version
	w.rec.Staged, w.rec.Accepted[root.ID] = root.ID, p.mark
	if err := w.rec.on(CauseStaged); err != nil {
		return root, err
	}
	if err := a.writeRecord(w.rec); err != nil {
		return root, err
	}
	if lookErr != nil { // it was not there before
		w.done.NewBytes = root.Info.NewBytes
		a.tell(Event{Event: "staged", Root: root.ID, Version: p.mark.Version, Sequence: p.mark.Sequence, Vouchers: root.Info.Vouchers})
	}
	return root, nil
}

// renew keeps the evidence of today beside the root that runs: it may be signed by others than when it was staged.
func (a *Agent) renew(st *store.Store, p *published) error {
	if p.image == nil {
		return nil
	}
	root, err := st.Root(p.image.ID())
	if err == nil {
		_, err = root.Renew(p.image.Verified, a.Now())
	}
	return err
}

func (a *Agent) stageProgress(e image.Event) {
	if a.Progress == nil {
		return
	}
	step := e.Phase
	if e.Layers > 1 {
		step = fmt.Sprintf("%s %d/%d", e.Phase, e.Layer, e.Layers)
	}
	a.Progress(Progress{Step: step, Done: e.Done, Total: e.Total})
}

// Available is the answer of check: what the source publishes beside what runs.
type Available struct {
	Reference string           `json:"reference"`
	Root      string           `json:"root"`
	Version   string           `json:"version,omitempty"`
	Vouchers  []verify.Voucher `json:"vouchers"`
	// Booted is the root that runs; Newer tells that the published one is another.
	Booted string `json:"booted"`
	Newer  bool   `json:"newer"`
	// Staged tells that it is on the disk already; Bad why it is not taken by itself.
	Staged bool `json:"staged"`
	Bad    *Bad `json:"bad,omitempty"`
	// Download is the size in bytes of its layers, 0 where none has to be fetched.
	Download int64 `json:"download"`
	// Release is the release that lists the image, nil for an image on its own.
	Release  *Release `json:"release,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// LivePatches are those that the release lists; Live tells that one of them is for the running kernel,
	// wanted, and not effective.
	LivePatches []LivePatch `json:"live_patches,omitempty"`
	Live        bool        `json:"live"`
}

// Check asks the source for a newer image, without fetching layers or changing anything.
func (a *Agent) Check(ctx context.Context, reference string) (Available, error) {
	facts, rec, err := a.look(ctx)
	if err != nil {
		return Available{}, err
	}
	p, err := a.fetch(ctx, reference, facts, rec, false)
	if err != nil {
		return Available{}, err
	}
	return a.available(ctx, p, facts, rec)
}

func (a *Agent) available(ctx context.Context, p *published, f facts.Facts, rec *Record) (Available, error) {
	root := p.root(f, rec)
	v := Available{
		Reference: p.reference, Root: root, Version: p.mark.Version, Vouchers: p.verified.Vouchers(),
		Release: p.told(), Warnings: p.warnings,
		Booted: f.Root, Newer: root != f.Root, Staged: rec.Staged == root,
	}
	if p.release != nil && a.Config.LivePatch.Enabled {
		loaded, err := a.live.Patches()
		if err != nil {
			return v, err
		}
		stored, err := a.livePatches().List(ctx)
		if err != nil && !errors.Is(err, os.ErrPermission) {
			return v, err
		}
		v.LivePatches = survey(f, loaded, listed(p, stored), rec.Held)[:len(p.release.LivePatches)]
		v.Live = slices.ContainsFunc(v.LivePatches, LivePatch.Unfinished)
	}
	if bad, ok := rec.Bad[v.Root]; ok {
		v.Bad = &bad
	}
	if p.image != nil && v.Newer && !v.Staged {
		for _, l := range p.image.Manifest.Layers {
			v.Download += l.Size
		}
	}
	return v, nil
}

// look reads the machine and the record without changing either.
func (a *Agent) look(ctx context.Context) (facts.Facts, *Record, error) {
	if a.Machine.Live() && os.Geteuid() != 0 {
		return facts.Facts{}, nil, fmt.Errorf("cannot look at the host: %w", ErrPermission)
	}
	facts, err := a.Machine.Facts(ctx)
	if err != nil {
		return facts, nil, err
	}
	if limit := time.Duration(a.Config.Switch.MaxKernelAge); limit > 0 && !facts.KernelBooted.IsZero() {
		facts.RebootBy = facts.KernelBooted.Add(limit)
	}
	if facts.SELinuxOn {
		facts.SELinux = a.loadedPolicy(facts.SELinux)
	}
	rec, err := a.readRecord()
	return facts, rec, err
}
