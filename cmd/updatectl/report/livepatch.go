package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

// LivePatches writes the kernel and its live patches.
func LivePatches(w io.Writer, l agent.LivePatchList) {
	kernelFlags(w, l.Kernel)
	livePatchesText(w, l.LivePatches)
}

// LivePatchesLoaded writes which live patches were loaded, and the state of all.
func LivePatchesLoaded(w io.Writer, r agent.LivePatchReport) {
	if len(r.Loaded) == 0 {
		fmt.Fprintln(w, "Nothing to load.")
	}
	for _, name := range r.Loaded {
		fmt.Fprintf(w, "%s is effective.\n", name)
	}
	livePatchesText(w, r.Patches)
}

// LivePatchesReverted writes which live patches were reverted, and the state of all.
func LivePatchesReverted(w io.Writer, r agent.LivePatchReport) {
	if len(r.Reverted) == 0 {
		fmt.Fprintln(w, "Nothing to revert.")
	}
	for _, name := range r.Reverted {
		fmt.Fprintf(w, "%s is reverted; `updatectl livepatch apply %s` loads it again.\n", name, name)
	}
	livePatchesText(w, r.Patches)
}

// kernelFlags names the kernel as "releasectl livepatch add" takes it, for a publisher to paste. The version has spaces
// in it, so it gets a line of its own: broken there, it would be pasted as another one.
func kernelFlags(w io.Writer, k agent.LiveKernel) {
	if k.Release == "" {
		return // users other than root see less
	}
	build := "# no build id: no live patch can be bound to this kernel"
	if k.BuildID != "" {
		build = "--kernel-build-id " + k.BuildID
	}
	fmt.Fprintf(w, "Kernel\t--kernel-release %s \\\n", k.Release)
	fmt.Fprintf(w, "\t--kernel-version \\\n")
	fmt.Fprintf(w, "\t  '%s' \\\n", k.Version)
	fmt.Fprintf(w, "\t%s\n", build)
}

func livePatchesText(w io.Writer, list []live.LivePatch) {
	if len(list) == 0 {
		fmt.Fprintln(w, "The kernel has no live patches loaded, and none is stored.")
	}
	for _, p := range list {
		fmt.Fprintf(w, "%s\n", livePatchText(p))
		blockersText(w, p.Blockers)
	}
}

// blockersText writes the tasks that a transition waits for, with their stacks.
func blockersText(w io.Writer, blockers []livepatch.Blocker) {
	for _, b := range blockers {
		fmt.Fprintf(w, "  blocked by\t%s\n", b)
		for _, function := range b.Stack {
			fmt.Fprintf(w, "\t  %s\n", function)
		}
	}
}

// livePatchText returns a live patch in a line of two cells.
func livePatchText(p live.LivePatch) string {
	words := []string{string(p.State)}
	switch {
	case p.State == live.LiveTransition:
		words = []string{"in transition: some tasks still run the old code"}
	case p.State == live.LiveLeaving:
		words = []string{"being reverted: some tasks still run the new code"}
	case p.Reason != "":
		words = []string{string(p.State) + ": " + p.Reason}
	}
	if len(p.Fixes) > 0 {
		words = append(words, "fixes "+strings.Join(p.Fixes, " "))
	}
	if len(p.Vouchers) > 0 {
		words = append(words, "signed by "+signedBy(p.Vouchers))
	} else if p.Stored {
		words = append(words, "nobody vouches for it")
	}
	return p.Name + "\t" + strings.Join(words, ", ")
}

// fixesText writes the state of every fix of the kernel.
func fixesText(w io.Writer, fixes []live.Fix) {
	for _, x := range fixes {
		fmt.Fprintf(w, "Fix\t%s  %s\n", x.CVE, fixText(x))
	}
}

func fixText(x live.Fix) string {
	if x.State != live.FixOpen {
		text := string(x.State)
		if x.By != "" {
			text += " " + x.By
		}
		return text
	}
	text := "open: needs another kernel" // a full reboot boots the host's, which no release describes
	if x.By != "" {
		text += fmt.Sprintf(", or the live patch %s, which is %s", x.By, x.Reason)
	}
	if !x.RebootBy.IsZero() {
		text += "; a full reboot is due by " + x.RebootBy.Format("2006-01-02")
	}
	return text
}
