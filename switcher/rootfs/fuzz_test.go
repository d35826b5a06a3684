package rootfs

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzSettings: keys are below /proc/sys, options belong to a module, and profiles have names.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{
		"net.ipv4.ip_forward = 1\n-net/ipv4/conf/*.rp_filter\n; x\n", "../../etc/passwd = 1\nnet..x = 1\n[ = 1\n",
		"options a-b x=1\noptions a_b \\\n y=2\noptions c\n", "profile a (enforce)\na b (complain)\n (x)\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules := ParseSysctl([]string{text})
		for _, key := range slices.Concat(rules.set, rules.excluded) {
			if !filepath.IsLocal(key) {
				t.Errorf("the key %q", key)
			}
		}
		rules.matches("net/ipv4/ip_forward")
		for module, options := range ParseOptions([]string{text}) {
			if module == "" || options == "" || strings.ContainsAny(module, "- ") {
				t.Errorf("the module %q has the options %q", module, options)
			}
		}
		for _, name := range ParseLoadedProfiles(text) {
			if name == "" || strings.Contains(name, "\n") {
				t.Errorf("the profile %q", name)
			}
		}
	})
}
