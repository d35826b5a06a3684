package facts

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Present is what the running root sets in the kernel and that can be compared with earlier roots.
type Present struct {
	// Sysctls lists the keys that its sysctl.d sets, as paths below /proc/sys.
	Sysctls []string
	// Options are the options in its modprobe.d, by module. Loaded lists the loaded modules.
	Options map[string]string
	Loaded  []string
	// Policy is its SELinux policy, empty where SELinux is off.
	Policy rootfs.Policy
	// Profiles are the AppArmor profiles that it defines, LoadedProfiles those that the kernel has. Both are empty where
	// AppArmor is off.
	Profiles, LoadedProfiles []string
}

// Past is what earlier roots left in the running kernel. Every root adds to it; a full reboot ends it.
type Past struct {
	// Sysctls has, for each key, the root that set it last in its sysctl.d.
	Sysctls map[string]string `json:"sysctls"`
	// Modules are the loaded modules, with the root in which they were first seen and the options that it had for them.
	Modules map[string]Loaded `json:"modules"`
	// Policy is the SELinux policy of the root in which it was loaded.
	Policy     rootfs.Policy `json:"policy,omitzero"`
	PolicyRoot string        `json:"policy_root,omitempty"`
	// Profiles has, for each loaded AppArmor profile, the root that defined it last. What no root defines, such as the
	// profiles of containers, is not in it.
	Profiles map[string]string `json:"profiles,omitempty"`
}

// Loaded is how a module was loaded.
type Loaded struct {
	Root    string `json:"root"`
	Options string `json:"options,omitempty"`
}

// Note adds what a root sets, once it is up. Modules that are no longer loaded are removed.
func (p *Past) Note(root string, now Present) {
	if p.Sysctls == nil {
		p.Sysctls = map[string]string{}
	}
	if p.Modules == nil {
		p.Modules = map[string]Loaded{}
	}
	for _, key := range now.Sysctls {
		p.Sysctls[key] = root
	}
	maps.DeleteFunc(p.Modules, func(m string, _ Loaded) bool { return !slices.Contains(now.Loaded, m) })
	for _, m := range now.Loaded {
		if _, known := p.Modules[m]; !known {
			p.Modules[m] = Loaded{root, now.Options[m]}
		}
	}
	if p.Profiles == nil {
		p.Profiles = map[string]string{}
	}
	for _, name := range now.Profiles {
		p.Profiles[name] = root
	}
	maps.DeleteFunc(p.Profiles, func(name, _ string) bool { return !slices.Contains(now.LoadedProfiles, name) })
	if p.PolicyRoot == "" {
		p.Policy, p.PolicyRoot = now.Policy, root
	}
}

// LoadedPolicy returns the policy in the kernel. own is the policy of the running root, which counts if no earlier root
// loaded one.
func (p Past) LoadedPolicy(own rootfs.Policy) rootfs.Policy {
	if p.Policy.Digest == "" {
		return own
	}
	return p.Policy
}

// StaleSysctl is a setting of an earlier root that is still in force, although the running root does not set it.
type StaleSysctl struct {
	Key   string `json:"key"` // as sysctl(8) writes it
	Value string `json:"value"`
	Root  string `json:"root"` // the root that set it
}

// StaleOptions is a module that was loaded with other options than the running root has for it.
type StaleOptions struct {
	Module string `json:"module"`
	Loaded string `json:"loaded"`
	Now    string `json:"now"`
	Root   string `json:"root"` // the root in which it was loaded
}

// DroppedSysctls returns the keys that an earlier root set and the running one does not.
func (p Past) DroppedSysctls(now Present) []string {
	var dropped []string
	for _, key := range slices.Sorted(maps.Keys(p.Sysctls)) {
		if !slices.Contains(now.Sysctls, key) {
			dropped = append(dropped, key)
		}
	}
	return dropped
}

// ChangedOptions returns the loaded modules for which the running root has other options.
func (p Past) ChangedOptions(now Present) []StaleOptions {
	changed := []StaleOptions{}
	for _, m := range slices.Sorted(maps.Keys(p.Modules)) {
		if was := p.Modules[m]; slices.Contains(now.Loaded, m) && was.Options != now.Options[m] {
			changed = append(changed, StaleOptions{m, was.Options, now.Options[m], was.Root})
		}
	}
	return changed
}

// StaleProfile is an AppArmor profile of an earlier root that is still loaded, although the running root has none of
// that name.
type StaleProfile struct {
	Profile string `json:"profile"`
	Root    string `json:"root"` // the root that defined it
}

// DroppedProfiles returns the loaded profiles that an earlier root defined and the running one does not.
func (p Past) DroppedProfiles(now Present) []StaleProfile {
	dropped := []StaleProfile{}
	for _, name := range slices.Sorted(maps.Keys(p.Profiles)) {
		if slices.Contains(now.LoadedProfiles, name) && !slices.Contains(now.Profiles, name) {
			dropped = append(dropped, StaleProfile{name, p.Profiles[name]})
		}
	}
	return dropped
}

// Present returns what the running root sets.
func (m Machine) Present() (Present, error) {
	root := rootfs.Dir(m.Root)
	now := Present{
		Sysctls: rootfs.ParseSysctl(root.Fragments("sysctl.d")).Keys(m.Path("/proc/sys")),
		Options: rootfs.ParseOptions(root.Fragments("modprobe.d")),
	}
	if rootfs.Exists(m.Path("/sys/fs/selinux/enforce")) {
		now.Policy = root.Policy()
	}
	if text, err := os.ReadFile(m.Path("/sys/kernel/security/apparmor/profiles")); err == nil {
		now.Profiles, now.LoadedProfiles = rootfs.Profiles(root), rootfs.ParseLoadedProfiles(string(text))
	}
	text, err := os.ReadFile(m.Path("/proc/modules"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without modules
		return now, fmt.Errorf("cannot list the loaded modules: %w", err)
	}
	now.Loaded = parseModules(string(text))
	return now, nil
}

// StaleSysctls returns keys with their current values. Keys that the kernel does not have any more are left out.
func (m Machine) StaleSysctls(p Past, keys []string) []StaleSysctl {
	stale := []StaleSysctl{}
	for _, key := range keys {
		if value, err := os.ReadFile(m.Path(filepath.Join("/proc/sys", key))); err == nil {
			name := strings.ReplaceAll(key, "/", ".")
			if strings.Contains(key, ".") { // an interface with a dot in its name
				name = key
			}
			stale = append(stale, StaleSysctl{name, strings.TrimSpace(string(value)), p.Sysctls[key]})
		}
	}
	return stale
}
