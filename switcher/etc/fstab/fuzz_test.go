package fstab

import (
	"strings"
	"testing"
)

// FuzzSources: the lines of an fstab and of a mount unit, with sources on the host root.
func FuzzSources(f *testing.F) {
	for _, s := range []string{
		"/srv/a /mnt ext4 loop,lowerdir=/a:/b\\0401", "/a:/b /mnt fuse.mergerfs", "/swap none swap sw", "# a b c",
		"overlay /m overlay lowerdir=,upperdir,workdir=:", "//host/share /m cifs", "/\\057dev/x /m ext4", "/.. /m none bind",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if l, ok := parseFstabLine(text); ok {
			if l.source == "" || strings.ContainsAny(l.rawSource+l.fstype, " \t\n") {
				t.Errorf("%q is %+v", text, l)
			}
			if l.layers() != nil && !l.layered() {
				t.Errorf("%q joins directories, and is not layered", text)
			}
			isHostPath(l.source)
			l.isAutomount()
			Sources{Kept: []string{"/srv"}}.kept(l.source)
		}
		unit := mountUnit{files: []string{"u"}, texts: map[string]string{"u": "[Mount]\n" + text}}
		source := unit.last("What")
		if moved := replaceSource(unit.texts["u"], source, "/moved"); source != "" {
			unit.texts["u"] = moved
			if got := unit.last("What"); got != "/moved" {
				t.Errorf("%q was to be moved, and is mounted from %q in %q", source, got, moved)
			}
		}
	})
}
