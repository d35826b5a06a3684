package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Kernel writes what has not changed since the kernel was booted, one subject after the other.
func Kernel(w io.Writer, k renew.KernelStatus) {
	fmt.Fprintf(w, "Kernel\t%s, %s%s%s\n", rootfs.Kernel{Release: k.Release, Version: k.Version},
		bootedText(k.BootedAt, k.At), softRebootsText(k.SoftReboots), limitText(k.RebootBy))
	if k.FullReboots != "" {
		fmt.Fprintf(w, "Full reboots\tstart %s, which an image has brought\n", k.FullReboots)
	}
	for _, own := range k.Own {
		fmt.Fprintf(w, "Root's own\t%s%s\n", own, runsText(own, k))
	}
	if len(k.Own) == 0 {
		fmt.Fprintf(w, "Root's own\tnone\n")
	}
	fmt.Fprintf(w, "Command line\t%s\n", k.CommandLine)
	if len(k.Missing) > 0 {
		fmt.Fprintf(w, "  missing\t%s, which the root wants\n", strings.Join(k.Missing, " "))
	}
	switch {
	case k.NoModules:
		fmt.Fprintf(w, "Modules\tnone for this kernel: no more can be loaded\n")
	case k.ModulesFrom == "":
		fmt.Fprintf(w, "Modules\tthe root's own\n")
	default:
		fmt.Fprintf(w, "Modules\tcarried over from %s\n", short(k.ModulesFrom))
	}
	fmt.Fprintf(w, "Firmware\tdrivers keep what they have loaded; from now on they load the root's\n")
	if k.Microcode != "" {
		fmt.Fprintf(w, "Microcode\trevision %s; only a full reboot loads another one\n", k.Microcode)
	}
	policyText(w, k)
	for _, o := range k.Options {
		fmt.Fprintf(w, "Options\t%s was loaded in %s %s; the root has %s\n",
			o.Module, short(o.Root), withText(o.Loaded), orNone(o.Now))
	}
	for _, s := range k.Sysctls {
		fmt.Fprintf(w, "Sysctl\t%s = %s, set by %s, and no longer by any file\n", s.Key, s.Value, short(s.Root))
	}
	for _, p := range k.Profiles {
		fmt.Fprintf(w, "AppArmor\t%s is loaded from %s; the root has no such profile\n", p.Profile, short(p.Root))
	}
	for _, u := range k.Units {
		fmt.Fprintf(w, "Unit\t%s is active from an earlier root: %s\n", u.Unit, u.Reason)
	}
}

// runsText returns whether the root's own kernel is the one that runs, to end a sentence.
func runsText(own rootfs.Kernel, k renew.KernelStatus) string {
	switch {
	case own.Release != k.Release:
		return ", which does not run"
	case own.Version != "" && own.Version != k.Version:
		return ", another build than the one that runs"
	case own.Version == "" && k.ModulesFrom != "":
		return ", of an unknown build"
	}
	return ", which runs"
}

func policyText(w io.Writer, k renew.KernelStatus) {
	switch {
	case k.Policy == rootfs.Policy{} && k.OwnPolicy == rootfs.Policy{}:
		fmt.Fprintf(w, "SELinux\toff\n")
	case k.Policy == k.OwnPolicy:
		fmt.Fprintf(w, "SELinux\t%s, as the root has it\n", k.Policy)
	case k.OwnPolicy.Digest == "":
		fmt.Fprintf(w, "SELinux\t%s was loaded in %s; the root has none\n", k.Policy, short(k.PolicyRoot))
	default:
		fmt.Fprintf(w, "SELinux\t%s was loaded in %s; the root has %s\n", k.Policy, short(k.PolicyRoot), k.OwnPolicy)
	}
}

func withText(options string) string {
	if options == "" {
		return "without options"
	}
	return "with " + options
}

func orNone(options string) string {
	if options == "" {
		return "none"
	}
	return options
}
