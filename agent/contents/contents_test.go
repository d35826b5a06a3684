package contents

import (
	"testing"

	"github.com/updatectl/updatectl/switcher/packages"
)

// TestComesFromImage: the files of the image that run are counted, and no others.
func TestComesFromImage(t *testing.T) {
	persist, owned := []string{"/var", "/home"}, []string{"/var/lib/dpkg"}
	for p, want := range map[string]bool{
		"/usr/bin/sh": true, "/etc": false, "/etc/passwd": false, "/etcetera": true, "/home": false, "/home/a": false,
		"/var": true, "/var/lib": true, // on the way to what is the image's
		"/var/lib/dpkg": true, "/var/lib/dpkg/status": true, "/var/lib/dpkgx": false, "/var/log": false, "/varx": true,
	} {
		if got := comesFromImage(p, persist, owned); got != want {
			t.Errorf("%s: %v", p, got)
		}
	}
}

// TestCompared: a root without a database is not one without packages.
func TestCompared(t *testing.T) {
	some := []packages.Package{{Name: "musl", Version: "1"}}
	for name, c := range map[string]struct {
		old, fresh []packages.Package
		known      bool
		lacking    string
	}{
		"both":               {some, some, true, ""},
		"none":               {nil, nil, false, ""},
		"the image has none": {some, nil, false, "the packages of the image"},
		"this root has none": {nil, some, false, "the packages that run"},
	} {
		if d, lacking := compared(c.old, c.fresh); (d != nil) != c.known || lacking != c.lacking {
			t.Errorf("%s: %+v, %q", name, d, lacking)
		}
	}
}
