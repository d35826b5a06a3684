package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
)

func newLivePatch(out *output) *cobra.Command {
	return newGroup(&cobra.Command{
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
"uname -v" and the build ID of the kernel; hosts with another kernel ignore it.
On a host with that kernel, "updatectl livepatch list" prints all three as flags
of this command. --kernel-version and --kernel-build-id are required. The name
and the kernel release are read from the module; the flags can only confirm
them.

Hosts load the live patches of a release in the order in which they were added.
A live patch is superseded, and not loaded, when a later one has all its fixes.`,
		Example: `  releasectl livepatch add --kernel-build-id 5c0ffee… --fixes CVE-2026-1234 \
    --kernel-version '#1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)' \
    oci:layout:stable livepatch-1.ko`,
		Args: arguments("the release to add to", "the kernel module to add"),
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
			return out.drafted("add", reference, d)
		},
	}
	f := c.Flags()
	f.StringVar(&p.KernelRelease, "kernel-release", "",
		"`RELEASE` of the kernel, as in uname -r (default: the module's)")
	f.StringVar(&p.KernelVersion, "kernel-version", "", "`VERSION` of the kernel, as in uname -v")
	f.StringVar(&p.KernelBuildID, "kernel-build-id", "", "GNU build ID of the kernel, in `HEX`")
	f.StringVar(&p.Name, "name", "", "`NAME` of the module (default: the module's)")
	f.StringSliceVar(&p.Fixes, "fixes", nil, "CVE numbers that it fixes, a `LIST` with commas")
	return c
}
