package agent

import (
	"context"
	"time"

	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// KernelStatus tells what of the running kernel is not as the booted root would have it, after soft reboots.
type KernelStatus struct {
	Release     string    `json:"release"`
	Version     string    `json:"version"`
	At          time.Time `json:"at"`
	BootedAt    time.Time `json:"booted_at,omitzero"`
	RebootBy    time.Time `json:"reboot_by,omitzero"` // by [switch] max-kernel-age
	SoftReboots int       `json:"soft_reboots"`
	// Root is the one that runs; Own are the kernels it brings itself.
	Root string          `json:"root"`
	Own  []rootfs.Kernel `json:"own"`
	// CommandLine is what the kernel was booted with; Wanted is what the root wants on it, and Missing what of it is not.
	CommandLine string   `json:"command_line"`
	Wanted      []string `json:"wanted"`
	Missing     []string `json:"missing"`
	// ModulesFrom is the root that the kernel's modules are carried over from, "" when the booted one has them itself, or
	// where NoModules tells that there are none for this kernel.
	ModulesFrom string `json:"modules_from,omitempty"`
	NoModules   bool   `json:"no_modules,omitempty"`
	// Microcode is the revision that the processor runs, as the kernel loaded it at its boot.
	Microcode string `json:"microcode,omitempty"`
	// Policy is the SELinux policy that is loaded and PolicyRoot the root it came from; OwnPolicy is the running root's.
	// All are empty where SELinux is off.
	Policy     rootfs.Policy `json:"policy,omitzero"`
	PolicyRoot string        `json:"policy_root,omitempty"`
	OwnPolicy  rootfs.Policy `json:"own_policy,omitzero"`
	// Options are modules that were loaded with other options, Sysctls settings that no file sets any more.
	Options []facts.StaleOptions `json:"options"`
	Sysctls []facts.StaleSysctl  `json:"sysctls"`
}

// Kernel tells what a soft reboot left old. It changes nothing.
func (a *Agent) Kernel(ctx context.Context) (KernelStatus, error) {
	if err := a.RequireRunning(); err != nil {
		return KernelStatus{}, err
	}
	f, _, err := a.Look(ctx)
	if err != nil {
		return KernelStatus{}, err
	}
	k := KernelStatus{
		Release: f.KernelRelease, Version: f.KernelVersion, At: f.At, BootedAt: f.KernelBooted, RebootBy: f.RebootBy, SoftReboots: f.SoftReboots,
		Root: f.Root, CommandLine: f.CommandLine, Microcode: a.Machine.Kernel.Microcode(),
	}
	if k.ModulesFrom, err = a.Machine.Kernel.ModulesFrom(f.KernelRelease); err != nil {
		return k, err
	}
	k.NoModules = !a.Roots.HaveModules(f)
	image, err := rootfs.ReadImage(a.Machine.Root)
	if err != nil {
		return k, err
	}
	k.Own = image.Kernels
	if k.ModulesFrom != "" { // they lie over what the root has for this release
		if k.Own, err = a.Machine.Kernel.OwnKernels(); err != nil {
			return k, err
		}
	}
	k.Wanted, k.Missing = image.Kargs, rootfs.MissingKargs(f.CommandLine, image.Kargs)
	now, err := a.Machine.Kernel.Present()
	if err != nil {
		return k, err
	}
	past, err := a.ReadPast()
	if err != nil {
		return k, err
	}
	k.Options, k.Sysctls = past.ChangedOptions(now), a.Machine.Kernel.StaleSysctls(past, past.DroppedSysctls(now))
	k.Own, k.Wanted, k.Missing = orEmpty(k.Own), orEmpty(k.Wanted), orEmpty(k.Missing)
	k.Options, k.Sysctls = orEmpty(k.Options), orEmpty(k.Sysctls)
	if now.Policy != (rootfs.Policy{}) || past.Policy != (rootfs.Policy{}) {
		k.Policy, k.PolicyRoot, k.OwnPolicy = past.Policy, past.PolicyRoot, now.Policy
	}
	return k, nil
}
