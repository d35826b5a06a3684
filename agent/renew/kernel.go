package renew

import (
	"context"
	"time"

	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// KernelStatus is what soft reboots left old in the running kernel, compared with what the booted root wants.
type KernelStatus struct {
	Release     string    `json:"release"`
	Version     string    `json:"version"`
	At          time.Time `json:"at"`
	BootedAt    time.Time `json:"booted_at,omitzero"`
	RebootBy    time.Time `json:"reboot_by,omitzero"` // by [switch] max-kernel-age
	SoftReboots int       `json:"soft_reboots"`
	// FullReboots is the release of the image's kernel that full reboots start, "" if they start the host's own.
	FullReboots string `json:"full_reboots,omitempty"`
	// Root is the running root; Own are the kernels in its image.
	Root string          `json:"root"`
	Own  []rootfs.Kernel `json:"own"`
	// CommandLine is what the kernel was booted with. Wanted lists the parameters that the root wants, Missing those of
	// them that are not there.
	CommandLine string   `json:"command_line"`
	Wanted      []string `json:"wanted"`
	Missing     []string `json:"missing"`
	// ModulesFrom is the root that the kernel's modules are carried over from, "" when the booted root has them.
	// NoModules is whether there are none for this kernel at all.
	ModulesFrom string `json:"modules_from,omitempty"`
	NoModules   bool   `json:"no_modules,omitempty"`
	// Microcode is the microcode revision of the processor; the kernel loads it when it boots.
	Microcode string `json:"microcode,omitempty"`
	// Policy is the loaded SELinux policy, PolicyRoot the root it came from, and OwnPolicy the policy of the running
	// root. All are empty when SELinux is off.
	Policy     rootfs.Policy `json:"policy,omitzero"`
	PolicyRoot string        `json:"policy_root,omitempty"`
	OwnPolicy  rootfs.Policy `json:"own_policy,omitzero"`
	// Options are modules loaded with other options than configured now; Sysctls are settings that no file sets any more.
	Options []facts.StaleOptions `json:"options"`
	Sysctls []facts.StaleSysctl  `json:"sysctls"`
	// Profiles are AppArmor's that are loaded from an earlier root, and that the running root does not have.
	Profiles []facts.StaleProfile `json:"profiles"`
	// Units are active from an earlier root and were not renewed.
	Units []Old `json:"units"`
}

// Kernel returns what soft reboots left old. HaveModules is whether the running root, or one before it, has modules for
// the kernel. It changes nothing.
func (r *Renewal) Kernel(ctx context.Context, f facts.Facts, haveModules bool) (k KernelStatus, err error) {
	k = KernelStatus{
		Release: f.KernelRelease, Version: f.KernelVersion, Root: f.Root,
		At: f.At, BootedAt: f.KernelBooted, RebootBy: f.RebootBy, SoftReboots: f.SoftReboots,
		CommandLine: f.CommandLine, Microcode: r.Machine.Kernel.Microcode(),
	}
	if k.ModulesFrom, err = r.Machine.Kernel.ModulesFrom(f.KernelRelease); err != nil {
		return k, err
	}
	k.NoModules = !haveModules
	image, err := rootfs.ReadImage(r.Machine.Root)
	if err != nil {
		return k, err
	}
	k.Own = image.Kernels
	if k.ModulesFrom != "" { // the carried modules hide those of the image
		if k.Own, err = r.Machine.Kernel.OwnKernels(); err != nil {
			return k, err
		}
	}
	k.Wanted, k.Missing = image.Kargs, rootfs.MissingKargs(f.CommandLine, image.Kargs)
	now, err := r.Machine.Kernel.Present()
	if err != nil {
		return k, err
	}
	past, err := r.ReadPast()
	if err != nil {
		return k, err
	}
	k.Options, k.Sysctls = past.ChangedOptions(now), r.Machine.Kernel.StaleSysctls(past, past.DroppedSysctls(now))
	k.Profiles = past.DroppedProfiles(now)
	k.Own, k.Wanted, k.Missing = orEmpty(k.Own), orEmpty(k.Wanted), orEmpty(k.Missing)
	k.Units, err = r.Left(ctx)
	k.Options, k.Sysctls, k.Units = orEmpty(k.Options), orEmpty(k.Sysctls), orEmpty(k.Units)
	if now.Policy != (rootfs.Policy{}) || past.Policy != (rootfs.Policy{}) {
		k.Policy, k.PolicyRoot, k.OwnPolicy = past.Policy, past.PolicyRoot, now.Policy
	}
	return k, err
}

// orEmpty returns a list that is written as [] in JSON when there is nothing in it, and not as null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
