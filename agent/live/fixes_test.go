package live

import (
	"fmt"
	"slices"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

// A fix counts by an effective live patch for this kernel, or by the kernel that runs, and by nothing else.
func TestCoverage(t *testing.T) {
	f := hosttest.Kernel
	f.RebootBy = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	here := ocispec.Descriptor{Platform: &ocispec.Platform{OS: "linux", Architecture: f.Architecture}}
	releases := []*release.Release{{
		Images: []release.Image{
			{Descriptor: here, KernelRelease: f.KernelRelease, Fixes: []string{"CVE-2026-0001"}},
			{Descriptor: here, KernelRelease: "6.12.99", Fixes: []string{"CVE-2026-0001", "CVE-2026-0002", "CVE-2026-10000"}},
			{Descriptor: here, Fixes: []string{"CVE-2026-0003"}},
		},
		LivePatches: []release.LivePatch{{Fixes: []string{"CVE-2026-0002", "CVE-2026-0004"}}},
	}, {LivePatches: []release.LivePatch{{Fixes: []string{"CVE-2026-0005", "CVE-2025-0001", "CVE-2026-0006"}}}}}
	patch := func(name string, state LiveState, fixes ...string) LivePatch {
		return LivePatch{Patch: livepatch.Patch{Name: name}, State: state, Fixes: fixes}
	}
	live := []LivePatch{
		patch("on", LiveEffective, "CVE-2026-0002", "CVE-2026-0001"),
		patch("moving", LiveTransition, "CVE-2026-0004", "CVE-2026-0002"),
		patch("held", LiveHeld, "CVE-2026-0005"),
		patch("elsewhere", LiveElsewhere, "CVE-2026-0006"),
	}
	fixes := coverage(f, "", releases, live)
	var got []string
	for _, x := range fixes {
		got = append(got, fmt.Sprintf("%s %s|%s|%s|%v", x.CVE, x.State, x.By, x.Reason, !x.RebootBy.IsZero()))
	}
	want := []string{
		"CVE-2025-0001 open|||true",
		"CVE-2026-0001 fixed by image|||false",
		"CVE-2026-0002 fixed by live patch|on||false",
		"CVE-2026-0003 open|||true",
		"CVE-2026-0004 open|moving|in transition|true",
		"CVE-2026-0005 open|held|held|true",
		"CVE-2026-0006 open|||true",
		"CVE-2026-10000 open|||true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if open := namesOfOpen(fixes); len(open) != 6 || open[0] != "CVE-2025-0001" {
		t.Errorf("open: %v", open)
	}
	if len(coverage(f, "", nil, nil)) != 0 {
		t.Error("nothing is known, and something is told")
	}
}

// Whether an image brings the running kernel: by platform, class, release, and the build where the publisher names it.
func TestBrings(t *testing.T) {
	f := hosttest.Kernel
	f.Architecture = "amd64"
	for name, c := range map[string]struct {
		change func(*release.Image)
		want   bool
	}{
		"the release":           {func(*release.Image) {}, true},
		"the very build":        {func(i *release.Image) { i.KernelVersion = f.KernelVersion }, true},
		"another build":         {func(i *release.Image) { i.KernelVersion = "#2 SMP" }, false},
		"another release":       {func(i *release.Image) { i.KernelRelease = "6.12.99" }, false},
		"another architecture":  {func(i *release.Image) { i.Descriptor.Platform.Architecture = "arm64" }, false},
		"this class":            {func(i *release.Image) { i.Compatible = "edge-2" }, true},
		"another machine class": {func(i *release.Image) { i.Compatible = "edge-1" }, false},
	} {
		i := release.Image{KernelRelease: f.KernelRelease}
		i.Descriptor.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		c.change(&i)
		if got := bringsRunningKernel(i, f, "edge-2"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
