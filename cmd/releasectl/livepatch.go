package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
)

func newLivePatch(out *output) *cobra.Command {
	return usage.Group(&cobra.Command{
		Use:   "livepatch",
		Short: "Add live patches to a release that is not signed yet",
	}, newAddLivePatch(out))
}

func newAddLivePatch(out *output) *cobra.Command {
	var p release.LivePatch
	c := &cobra.Command{
		Use:   "add [flags] oci:DIR[:TAG] FILE.ko",
		Short: "Add a live patch for one build of a kernel",
		Long: `Pack a kernel module as a live patch and add it to a release in an OCI layout.
A release may list live patches only: hosts then keep their image.

A live patch fits exactly one build of a kernel, which is named by "uname -r",
"uname -v" and the build id of the kernel; hosts with another kernel ignore it.
On a host with that kernel, "updatectl livepatch list" prints all three as flags
of this command. --kernel-version and --kernel-build-id are required. The name
and the kernel release are read from the module; the flags can only confirm
them.

Live patches must be cumulative (".replace = true" in the source of the module)
or the only one for their kernel. Of those that a release lists for one kernel,
hosts load the last one; the earlier ones are superseded, and are loaded only
when the last one does not load.`,
		Example: `  releasectl livepatch add --kernel-build-id 5c0ffee… --fixes CVE-2026-1234 \
    --kernel-version '#1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)' \
    oci:layout:stable livepatch-1.ko`,
		Args: usage.Arguments("the release to add to", "the kernel module to add"),
		RunE: func(c *cobra.Command, args []string) error {
			reference, _, _, err := inLayout(args[0])
			if err == nil {
				err = required(c, "kernel-version", "kernel-build-id")
			}
			if err != nil {
				return err
			}
			d, err := publish.AddLivePatch(c.Context(), reference, args[1], p)
			if errors.Is(err, os.ErrNotExist) {
				return &usageError{err}
			}
			if err != nil {
				return err
			}
			warnSuperseded(out, d.Release.LivePatches)
			return out.drafted("add", reference, d)
		},
	}
	f := c.Flags()
	f.StringVar(&p.KernelRelease, "kernel-release", "",
		"`RELEASE` of the kernel, as in uname -r (default: the module's)")
	f.StringVar(&p.KernelVersion, "kernel-version", "", "`VERSION` of the kernel, as in uname -v")
	f.StringVar(&p.KernelBuildID, "kernel-build-id", "", "GNU build id of the kernel, in `HEX`")
	f.StringVar(&p.Name, "name", "", "`NAME` of the module (default: the module's)")
	f.StringSliceVar(&p.Fixes, "fixes", nil, "CVE numbers that it fixes, a `LIST` with commas")
	return c
}

// warnSuperseded warns the publisher when the live patch that was added last supersedes others for the same kernel,
// and names the fixes that hosts would lose. Whether it is cumulative cannot be read: in the module's file, the flag
// is a field of a structure whose layout depends on the kernel's configuration.
func warnSuperseded(out *output, list []release.LivePatch) {
	last := list[len(list)-1]
	for _, p := range list[:len(list)-1] {
		if p.KernelBuildID != last.KernelBuildID || p.KernelRelease != last.KernelRelease ||
			p.KernelVersion != last.KernelVersion {
			continue
		}
		warning := fmt.Sprintf("hosts with this kernel load only %s, the last one listed, and not %s: "+
			"%s has to be cumulative (.replace = true), which its file does not show", last.Name, p.Name, last.Name)
		lost := slices.DeleteFunc(slices.Clone(p.Fixes), func(fix string) bool { return slices.Contains(last.Fixes, fix) })
		if len(lost) > 0 {
			warning += fmt.Sprintf("; and its --fixes does not name %s, which %s fixes", strings.Join(lost, ", "), p.Name)
		}
		out.talk("warning: %s", warning)
	}
}
