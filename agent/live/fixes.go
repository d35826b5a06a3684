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

// FixState tells where a fix of the kernel comes from, or that it is missing.
type FixState string

// The states of a fix.
const (
	// FixedByImage: the running kernel is one that an image brings, which has the fix.
	FixedByImage FixState = "fixed by image"
	// FixedByLivePatch: an effective live patch has it.
	FixedByLivePatch FixState = "fixed by live patch"
	// FixOpen: nothing that is known to have it runs.
	FixOpen FixState = "open"
)

// Fix is a fix of the kernel that a release names.
type Fix struct {
	CVE   string   `json:"cve"`
	State FixState `json:"state"`
	// By is the live patch that has it; of an open one, a live patch for this kernel that is not effective, and Reason its state.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// RebootBy is when a full reboot is due for the age of the kernel; the zero value when none is. It boots the host's kernel,
	// which nothing tells to have the fix.
	RebootBy time.Time `json:"reboot_by,omitzero"`
}

// coverage tells of every fix that the releases name whether the running kernel has it. What no release names is not known.
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

// bringsRunningKernel tells whether the kernel that runs on this machine, which has the class, is the one that an image brings. A release
// stays over several builds on some distributions, and another machine's kernel may have the same; where the publisher does
// not tell the build, the release has to do.
func bringsRunningKernel(i release.Image, f facts.Facts, class string) bool {
	return i.For(ocispec.Platform{OS: "linux", Architecture: f.Architecture}, class) &&
		i.KernelRelease == f.KernelRelease && (i.KernelVersion == "" || i.KernelVersion == f.KernelVersion)
}

// Cover tells of one fix. A live patch counts only when it is effective.
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

// compareCVE orders by year and number: CVE-2026-9999 comes before CVE-2026-10000.
func compareCVE(a, b string) int {
	if len(a) != len(b) && a[:min(len(a), len("CVE-2026"))] == b[:min(len(b), len("CVE-2026"))] {
		return len(a) - len(b)
	}
	return slices.Compare([]byte(a), []byte(b))
}

// namesOfOpen names the fixes that the running kernel does not have.
func namesOfOpen(fixes []Fix) []string {
	var open []string
	for _, x := range fixes {
		if x.State == FixOpen {
			open = append(open, x.CVE)
		}
	}
	return open
}

// Coverage is coverage by the evidence that is kept: of the given roots, and of the last release of live patches. What the
// policy of today does not accept counts for nothing.
func (lp *Patches) Coverage(ctx context.Context, f facts.Facts, rec *record.Record, roots ...string) ([]Fix, error) {
	live, err := lp.Survey(ctx, f, rec)
	if err != nil {
		return nil, err
	}
	policy, err := lp.Policy()
	if err != nil {
		lp.Log.Debug("nothing is told of fixes", zap.Error(err)) // config check and everything that fetches tell of it
		return nil, nil
	}
	return coverage(f, lp.Config.Source.Compatible, lp.releases(ctx, policy, roots), live), nil
}

// OpenFixes names the fixes that the releases of the given roots name and the running kernel does not have.
func (lp *Patches) OpenFixes(ctx context.Context, f facts.Facts, rec *record.Record, roots ...string) ([]string, error) {
	fixes, err := lp.Coverage(ctx, f, rec, roots...)
	return namesOfOpen(fixes), err
}

// releases reads the releases in the evidence that is kept, each once.
func (lp *Patches) releases(ctx context.Context, policy verify.Policy, roots []string) []*release.Release {
	var all []*release.Release
	add := func(r *release.Release, err error) {
		if err != nil {
			lp.Log.Debug("a release is passed over", zap.Error(err))
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

// releaseOf reads the release that a root was taken from.
func releaseOf(root store.Root, policy verify.Policy) (*release.Release, error) {
	e, err := root.Evidence()
	if err != nil {
		return nil, err
	}
	e.Chain = e.Chain[:1] // an image on its own is no release, which Parse says
	v, err := policy.Again(e)
	if err != nil {
		return nil, err
	}
	return release.Parse(v)
}
