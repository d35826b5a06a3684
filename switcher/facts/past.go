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

// Present is what the running root sets in the kernel and what of it can be compared with that of earlier roots.
type Present struct {
	// Sysctls are the keys that its sysctl.d sets, as paths below /proc/sys.
	Sysctls []string
	// Options are those of its modprobe.d, by module; Loaded are the modules that are loaded.
	Options map[string]string
	Loaded  []string
	// Policy is its SELinux policy, empty where SELinux is off.
	Policy rootfs.Policy
}

// Past is what earlier roots left in the running kernel. It is noted from root to root and forgotten with the kernel.
type Past struct {
	// Sysctls tells for each key which root's sysctl.d set it last.
	Sysctls map[string]string `json:"sysctls"`
	// Modules are the loaded modules with the options of the root in which they were first seen.
	Modules map[string]Loaded `json:"modules"`
	// Policy is the SELinux policy of the root in which it was loaded.
	Policy     rootfs.Policy `json:"policy,omitzero"`
	PolicyRoot string        `json:"policy_root,omitempty"`
}

// Loaded is how a module was loaded.
type Loaded struct {
	Root    string `json:"root"`
	Options string `json:"options,omitempty"`
}

// Note adds what a root sets, once it is up. Of a module that is no longer loaded nothing stays old.
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
	if p.PolicyRoot == "" {
		p.Policy, p.PolicyRoot = now.Policy, root
	}
}

// LoadedPolicy is the policy in the kernel, where it is known; otherwise the one that the running root has: nothing was loaded
// before it.
func (p Past) LoadedPolicy(own rootfs.Policy) rootfs.Policy {
	if p.Policy.Digest == "" {
		return own
	}
	return p.Policy
}

// StaleSysctl is a setting that nobody sets any more and that is still in force.
type StaleSysctl struct {
	Key   string `json:"key"` // as sysctl(8) writes it
	Value string `json:"value"`
	Root  string `json:"root"` // whose sysctl.d set it
}

// StaleOptions is a loaded module for which the running root has other options than it was loaded with.
type StaleOptions struct {
	Module string `json:"module"`
	Loaded string `json:"loaded"`
	Now    string `json:"now"`
	Root   string `json:"root"` // in which it was loaded
}

// DroppedSysctls lists the keys that an earlier root set and the present one does not.
func (p Past) DroppedSysctls(now Present) []string {
	var dropped []string
	for _, key := range slices.Sorted(maps.Keys(p.Sysctls)) {
		if !slices.Contains(now.Sysctls, key) {
			dropped = append(dropped, key)
		}
	}
	return dropped
}

// ChangedOptions lists the loaded modules whose options are others by now.
func (p Past) ChangedOptions(now Present) []StaleOptions {
	changed := []StaleOptions{}
	for _, m := range slices.Sorted(maps.Keys(p.Modules)) {
		if was := p.Modules[m]; slices.Contains(now.Loaded, m) && was.Options != now.Options[m] {
			changed = append(changed, StaleOptions{m, was.Options, now.Options[m], was.Root})
		}
	}
	return changed
}

// Present reads what the running root sets.
func (m Machine) Present() (Present, error) {
	root := rootfs.Dir(m.Root)
	now := Present{
		Sysctls: rootfs.ParseSysctl(root.Fragments("sysctl.d")).Keys(m.Path("/proc/sys")),
		Options: rootfs.ParseOptions(root.Fragments("modprobe.d")),
	}
	if rootfs.Exists(m.Path("/sys/fs/selinux/enforce")) {
		now.Policy = root.Policy()
	}
	text, err := os.ReadFile(m.Path("/proc/modules"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without modules
		return now, fmt.Errorf("cannot list the loaded modules: %w", err)
	}
	now.Loaded = parseModules(string(text))
	return now, nil
}

// StaleSysctls adds the present values to keys; those that the kernel no longer has are left out.
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
