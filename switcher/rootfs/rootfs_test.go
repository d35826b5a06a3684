package rootfs

import (
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestAcceptable(t *testing.T) {
	good := []string{"etc/os-release -> ../usr/lib/os-release", "usr/lib/os-release", "usr/lib/systemd/systemd",
		"dev/", "proc/", "sys/", "run/"}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.HasPrefix(s, name) })
	}
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"whole": {good, ""},
		"no os-release": {
			slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.Contains(s, "os-release") }),
			"no os-release",
		},
		"no init": {without("usr/lib/systemd"), "no executable init"},
		"init by link": {
			append(without("usr/lib/systemd"), "sbin -> usr/sbin", "usr/sbin/init -> ../../opt/init", "opt/init"), "",
		},
		"init outside": {append(without("usr/lib/systemd"), "sbin/init -> /nowhere/init"), "no executable init"},
		"no /dev":      {without("dev"), "no directory /dev"},
		"no /run":      {without("run"), "no directory /run"},
		"/sys a link":  {append(without("sys"), "sys -> nowhere"), "no directory /sys"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Acceptable(testtree.Make(t, c.files...))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Acceptable = %v, want %q", err, c.want)
			}
		})
	}
}
