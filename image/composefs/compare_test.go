package composefs

import (
	"archive/tar"
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestCompare: what differs in content, owner, mode, capability, target or kind is changed. What is skipped does not
// count.
func TestCompare(t *testing.T) {
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	symlink := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	owned := func(h tar.Header, uid int) tar.Header { h.Uid = uid; return h }
	mode := func(h tar.Header, mode int64) tar.Header { h.Mode = mode; return h }
	capable := func(h tar.Header) tar.Header {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "x"}
		return h
	}
	empty := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	old := write(t, build(t, dir("usr"), file("usr/same"), file("usr/content"), file("usr/owner"), file("usr/mode"),
		file("usr/capability"), symlink("usr/target", "a"), file("usr/kind"), file("usr/gone"), dir("etc"),
		file("etc/x")))
	fresh := write(t, build(t, dir("usr"), file("usr/same"), empty("usr/content"), owned(file("usr/owner"), 7),
		mode(file("usr/mode"), 0o755), capable(file("usr/capability")), symlink("usr/target", "b"),
		symlink("usr/kind", "a"), file("usr/brand-new"), link("usr/brand-new-too", "usr/brand-new"),
		empty("usr/empty"), dir("etc"), empty("etc/x"),
		empty("etc/y")))
	got, err := Compare(old, fresh, func(path string) bool { return path == "/etc" })
	want := Changes{Added: 3, Removed: 1, Changed: 6, Files: 10, Bytes: int64(len("usr/brand-new"))}
	if err != nil || got != want {
		t.Errorf("it is %+v, %v, want %+v", got, err, want)
	}
	got, err = Compare(old, old, func(path string) bool { return strings.HasPrefix(path, "/usr/") })
	if want := (Changes{Files: 1}); err != nil || got != want {
		t.Errorf("an image differs from itself: %+v, %v", got, err)
	}
	none := bytes.NewReader(make([]byte, 8192))
	if _, err := Compare(old, none, func(string) bool { return false }); !errors.Is(err, ErrImage) {
		t.Errorf("no image is compared: %v", err)
	}
}
