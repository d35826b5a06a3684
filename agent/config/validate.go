package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
)

// leastMaxRate is the least that [source] max-rate may be: at less, an image takes days.
const leastMaxRate Bytes = 64 << 10

// validate returns everything that is wrong with the values, as one [ErrConfig] each.
func (c *Config) validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s%w", ErrConfig, c.Where(key), fmt.Errorf(format, args...)))
	}
	if _, err := level.ParseLevel(c.Switch.Level); err != nil {
		fault("switch.level", "[switch] level: %w", err)
	}
	if s := c.Switch.Stuck; s != StuckCancel && s != StuckEscalate {
		fault("switch.stuck", "[switch] stuck is %q and must be %s or %s", s, StuckCancel, StuckEscalate)
	}
	if f := c.Switch.Fallback; f != FallbackRefuse && f != FallbackFull {
		fault("switch.fallback", "[switch] fallback is %q and must be %s or %s", f, FallbackRefuse, FallbackFull)
	}
	if k := c.Boot.Kernel; k != KernelImage && k != KernelHost {
		fault("boot.kernel", "[boot] kernel is %q and must be %s or %s", k, KernelImage, KernelHost)
	}
	if _, err := parseHold(c.Switch.Hold); err != nil {
		fault("switch.hold", "%w", err)
	}
	if v := c.Store.Verity; v != VerityAuto && v != VerityRequire {
		fault("store.verity", "[store] verity is %q and must be %s or %s", v, VerityAuto, VerityRequire)
	}
	if c.Verify.Threshold < 1 {
		fault("verify.threshold", "[verify] threshold is %d and must be at least 1", c.Verify.Threshold)
	}
	if r := c.Verify.RevokedRoots; r != RevokedWarn && r != RevokedRefuse {
		fault("verify.revoked-roots", "[verify] revoked-roots is %q and must be %s or %s", r, RevokedWarn, RevokedRefuse)
	}
	if _, err := source.Open("oci:/", source.Options{Mirrors: c.Source.Mirrors}); errors.Is(err, failure.ErrReference) {
		fault("source.mirrors", "[source] mirrors: %w", err)
	}
	if most, least := c.Source.MaxRate, max(c.Source.MinRate, leastMaxRate); most != 0 && most < least {
		fault("source.max-rate", "[source] max-rate is %v and must be at least %v", most, least)
	}
	if c.Source.Compatible != "" {
		if _, err := release.ParseClass(c.Source.Compatible); err != nil {
			fault("source.compatible", "[source] compatible: %w", err)
		}
	}
	if c.Source.Stream != "" {
		if _, err := release.ParseStream(c.Source.Stream); err != nil {
			fault("source.stream", "[source] stream: %w", err)
		}
	}
	if err := c.HealthGate().Validate(); err != nil {
		key, _, _ := strings.Cut(err.Error(), ":")
		fault("health."+key, "[health] %w", err)
	}
	if l, h := c.LivePatch.Deadline, c.Health.Deadline; c.LivePatch.Enabled && l >= h {
		fault("livepatch.deadline", "[livepatch] deadline is %v and must be less than [health] deadline, %v: "+
			"a live patch that stalls would use up the time that a new root has to become good",
			time.Duration(l), time.Duration(h))
	}
	c.validateState(fault)
	c.validateKeep(fault)
	c.validateFleet(fault)
	return errors.Join(faults...)
}

// validateKeep reports every fault of the [[keep]] tables.
func (c *Config) validateKeep(fault func(key, format string, args ...any)) {
	seen := map[string]bool{}
	for _, name := range c.KeptUnits() {
		switch {
		case name == "":
			fault("keep.unit", "[[keep]] has no unit")
		case strings.HasPrefix(name, "updatectl"):
			fault("keep.unit", "[[keep]] unit: %s is updatectl's own; take it out", name)
		case !keep.IsUnitName(name):
			fault("keep.unit", "[[keep]] unit: %q is not the name of a service or a socket, such as \"web.socket\"", name)
		case seen[name]:
			fault("keep.unit", "[[keep]] unit: %s is there twice", name)
		}
		seen[name] = true
	}
}

// neverPersistent are the directories that come from the image or from the kernel. Nothing at or below them can be
// kept from root to root.
var neverPersistent = []string{
	"/etc", "/usr", "/boot", "/efi", "/dev", "/proc", "/sys", "/run", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
	"/libx32",
}

// ownState is where the agent keeps roots and record. It comes along with /var.
const ownState = "/var/lib/updatectl"

// isWithin reports whether a clean path is dir or below it.
func isWithin(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// isBelowAny reports whether a clean path is below one of the directories.
func isBelowAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return p != dir && isWithin(p, dir) })
}

// validateState reports every fault of the [state] table.
func (c *Config) validateState(fault func(key, format string, args ...any)) {
	requireAbsolute := func(key string, paths []string) {
		for _, p := range paths {
			if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
				fault("state."+key, "[state] %s: %q is not a clean absolute path below /", key, p)
			}
		}
	}
	requireAbsolute("persist", c.State.Persist)
	requireAbsolute("image-owned", c.State.ImageOwned)
	if !slices.Contains(c.State.Persist, "/var") {
		fault("state.persist", "[state] persist must contain /var: the roots and the record live there")
		return
	}
	for _, p := range c.State.Persist {
		if why := notPersistent(p); why != "" {
			fault("state.persist", "[state] persist: %s cannot belong to the host: %s", p, why)
		}
		for _, owned := range c.State.ImageOwned {
			if isWithin(p, owned) {
				fault("state.persist", "[state] persist: %s cannot belong to the host: %s comes from the image; "+
					"take one of them out", p, "[state] image-owned "+owned)
			}
		}
	}
	for _, p := range c.State.ImageOwned {
		switch {
		case isWithin(ownState, p) || isWithin(p, ownState):
			fault("state.image-owned", "[state] image-owned: %s cannot come from the image: "+
				"the roots and the record are in %s", p, ownState)
		case !isBelowAny(p, c.State.Persist):
			fault("state.image-owned", "[state] image-owned: %s is not below a directory of [state] persist; "+
				"take it out: what else there is comes from the image anyway", p)
		}
	}
}

// notPersistent returns why a clean absolute path cannot be kept from root to root, and what to do instead; "" if it
// can.
func notPersistent(p string) string {
	if isWithin(p, ownState) {
		return "updatectl keeps " + ownState + " with /var; take it out"
	}
	for _, dir := range neverPersistent {
		switch {
		case !isWithin(p, dir):
		case dir == "/etc":
			return "every root has its own /etc, into which changes are merged; " +
				"use [state] adopt for what the first image takes over"
		case slices.Contains([]string{"/dev", "/proc", "/sys", "/run"}, dir):
			return dir + " comes from the kernel or is gone after a full reboot; move the data to /var"
		default:
			return "what is in " + dir + " comes from the image or is the boot loader's; move the data to /srv or /var, " +
				"or put them into the image"
		}
	}
	return ""
}
