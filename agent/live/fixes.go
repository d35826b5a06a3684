package live

import (
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// FixState says what brings a fix of the kernel, or that it is missing.
type FixState string

// The states of a fix.
const (
	// FixedByImage: an image brings the running kernel, and the release lists the fix for that image.
	FixedByImage FixState = "fixed by image"
	// FixedByLivePatch: an effective live patch has it.
	FixedByLivePatch FixState = "fixed by live patch"
	// FixOpen: neither the running kernel nor an effective live patch is known to have it.
	FixOpen FixState = "open"
)

// Fix is a fix of the kernel that a release names.
type Fix struct {
	CVE   string   `json:"cve"`
	State FixState `json:"state"`
	// By is the live patch that has the fix. For an open fix, it is one for this kernel that is not effective, and Reason
	// is the state of that live patch.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// RebootBy is when a full reboot is due because of the kernel's age; zero when none is. It starts the host root's
	// kernel, which may not have the fix either.
	RebootBy time.Time `json:"reboot_by,omitzero"`
}

// coverage returns every fix that the releases list, and whether the running kernel has it. Nothing is known about a
// fix that no release lists.
func coverage(f facts.Facts, class string, releases []*release.Release, live []LivePatch) []Fix {
	image, all := map[string]bool{}, map[string]bool{}
	for _, r := range releases {
		for _, i := range r.Images {
			for _, cve := range i.Fixes {
				all[cve] = true
				image[cve] = image[cve] || bringsRunningKernel(i, f, class)
			}
		}
		for _, p := range r.LivePatches {
			for _, cve := range p.Fixes {
				all[cve] = true
			}
		}
	}
	fixes := make([]Fix, 0, len(all))
	for cve := range all {
		fixes = append(fixes, Cover(f, cve, image[cve], live))
	}
	slices.SortFunc(fixes, func(a, b Fix) int { return compareCVE(a.CVE, b.CVE) })
	return fixes
}

// bringsRunningKernel reports whether an image for this machine and class brings the running kernel. Some distributions
// keep the kernel release across several builds, so the build is compared as well, where the publisher names it.
func bringsRunningKernel(i release.Image, f facts.Facts, class string) bool {
	return i.For(ocispec.Platform{OS: "linux", Architecture: f.Architecture}, class) &&
		i.KernelRelease == f.KernelRelease && (i.KernelVersion == "" || i.KernelVersion == f.KernelVersion)
}

// Cover returns the state of one fix. A live patch counts only when it is effective; image is whether the image that
// brought the running kernel has the fix.
func Cover(f facts.Facts, cve string, image bool, live []LivePatch) Fix {
	fix := Fix{CVE: cve, State: FixOpen, RebootBy: f.RebootBy}
	for _, p := range live {
		if p.State == LiveElsewhere || !slices.Contains(p.Fixes, cve) {
			continue
		}
		if p.State == LiveEffective {
			fix = Fix{CVE: cve, State: FixedByLivePatch, By: p.Name}
			break
		}
		fix.By, fix.Reason = p.Name, string(p.State)
	}
	if image {
		return Fix{CVE: cve, State: FixedByImage}
	}
	return fix
}

// compareCVE compares by year and number: CVE-2026-9999 comes before CVE-2026-10000.
func compareCVE(a, b string) int {
	if len(a) != len(b) && a[:min(len(a), len("CVE-2026"))] == b[:min(len(b), len("CVE-2026"))] {
		return len(a) - len(b)
	}
	return slices.Compare([]byte(a), []byte(b))
}

// namesOfOpen returns the names of the open fixes.
func namesOfOpen(fixes []Fix) []string {
	var open []string
	for _, x := range fixes {
		if x.State == FixOpen {
			open = append(open, x.CVE)
		}
	}
	return open
}

// Coverage returns the fixes that the stored releases list, and whether the running kernel has them: the releases of
// the given roots, and the last release with live patches. A release that the current policy does not accept is
// ignored; without a valid policy there are none.
func (lp *Patches) Coverage(ctx context.Context, f facts.Facts, rec *record.Record, roots ...string) ([]Fix, error) {
	live, err := lp.Survey(ctx, f, rec)
	if err != nil {
		return nil, err
	}
	policy, err := lp.Policy()
	if err != nil {
		// Only for debugging: config check and every fetch report it.
		lp.Log.Debug("fixes are not reported without a valid policy", zap.Error(err))
		return nil, nil
	}
	return coverage(f, lp.Config.Source.Compatible, lp.releases(ctx, policy, roots), live), nil
}

// OpenFixes returns the names of the fixes of [Patches.Coverage] that are open.
func (lp *Patches) OpenFixes(
	ctx context.Context, f facts.Facts, rec *record.Record, roots ...string,
) ([]string, error) {
	fixes, err := lp.Coverage(ctx, f, rec, roots...)
	return namesOfOpen(fixes), err
}

// releases returns the releases of the given roots and the last one with live patches, each once. One that cannot be
// verified is left out.
func (lp *Patches) releases(ctx context.Context, policy verify.Policy, roots []string) []*release.Release {
	var all []*release.Release
	add := func(r *release.Release, err error) {
		if err != nil {
			lp.Log.Debug("a release is ignored", zap.Error(err))
			return
		}
		if !slices.ContainsFunc(all, func(other *release.Release) bool { return other.Digest == r.Digest }) {
			all = append(all, r)
		}
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(roots))) {
		if root, err := lp.Machine.Trees.Root(id); err == nil {
			add(releaseOf(root, policy))
		}
	}
	kept, err := lp.Store().Releases(ctx)
	if err == nil && len(kept) > 0 {
		_, r, err := lp.Store().Release(ctx, kept[0], policy)
		add(r, err)
	}
	return all
}

// releaseOf returns the release that a root came with, verified by the policy.
func releaseOf(root store.Root, policy verify.Policy) (*release.Release, error) {
	e, err := root.Evidence()
	if err != nil {
		return nil, err
	}
	e.Chain = e.Chain[:1] // Parse reports an image without a release
	v, err := policy.Again(e)
	if err != nil {
		return nil, err
	}
	return release.Parse(v)
}
