package level

import (
	"fmt"
	"slices"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// judgeKernelNeed checks the oldest kernel that the image can run on. On an older one, a soft switch would end with a
// root in which some service fails for a reason that nobody sees.
func judgeKernelNeed(f facts.Facts, t Target) (Verdict, string) {
	need := t.KernelNeed
	if rootfs.CompareKernels(t.KernelMin, need.Version) > 0 {
		need = rootfs.KernelNeed{Version: t.KernelMin, By: "its publisher"}
	}
	older := func(release string) bool { return rootfs.CompareKernels(release, need.Version) < 0 }
	switch {
	case t.Root == switcher.HostRoot || need.Version == "":
		return "", ""
	case !older(f.KernelRelease):
		return VerdictOK, fmt.Sprintf("the image needs %s or newer (%s), and %s runs", need.Version, need.By, f.KernelRelease)
	case len(t.Kernels) > 0 && !slices.ContainsFunc(t.Kernels, func(k rootfs.Kernel) bool { return !older(k.Release) }):
		return VerdictRefuse, fmt.Sprintf("the image needs the kernel %s or newer (%s), %s runs, and the image brings "+
			"only %s: publish it with a newer kernel", need.Version, need.By, f.KernelRelease, t.Kernels[0].Release)
	}
	return VerdictFull, fmt.Sprintf("the image needs the kernel %s or newer (%s), and %s runs; "+
		"a full reboot helps if this host's boot loader has a newer one", need.Version, need.By, f.KernelRelease)
}
