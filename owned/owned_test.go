package owned

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// acl returns an ACL that lets a user write, in the kernel's form: version 2, then entries of tag, rights and number.
func acl(user uint32) []byte {
	const owner, named, group, mask, other, nobody = 0x01, 0x02, 0x04, 0x10, 0x20, 0xffffffff
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{owner, 7, nobody}, {named, 7, user}, {group, 5, nobody}, {mask, 7, nobody},
		{other, 5, nobody}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// TestCheck: whoever can change a file, or exchange it on the way to it, is named.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		says   string
	}{
		"as it is": {func(string) error { return nil }, ""},
		"somebody's file": {func(d string) error { return os.Lchown(d+"/a/b/file", 1234, 0) },
			"b/file belongs to user 1234"},
		"somebody's parent":   {func(d string) error { return os.Lchown(d+"/a", 1234, 0) }, "/a belongs to user 1234"},
		"everybody's file":    {func(d string) error { return os.Chmod(d+"/a/b/file", 0o646) }, "b/file has the mode 0646"},
		"a group's directory": {func(d string) error { return os.Chown(d+"/a/b", 0, 4) }, ""},
		"a group that writes": {func(d string) error {
			return errors.Join(os.Chown(d+"/a/b", 0, 4), os.Chmod(d+"/a/b", 0o775))
		}, "/a/b has the mode 0775"},
		"a user of an ACL writes": {func(d string) error {
			return errors.Join(os.Chmod(d+"/a/b", 0o775), unix.Setxattr(d+"/a/b", ACL, acl(1234), 0))
		}, "/a/b has an ACL and the mode 0775"},
		"a user of an ACL reads": {func(d string) error {
			return errors.Join(unix.Setxattr(d+"/a/b", ACL, acl(1234), 0), os.Chmod(d+"/a/b", 0o755))
		}, ""},
		"root's group writes": {func(d string) error { return os.Chmod(d+"/a/b", 0o775) }, ""},
		"everybody may add":   {func(d string) error { return os.Chmod(d+"/a", 0o777|fs.ModeSticky) }, ""},
		"link to somebody's": {func(d string) error {
			return errors.Join(os.Rename(d+"/a/b/file", d+"/c/file"), os.Lchown(d+"/c", 1234, 0),
				os.Symlink("../../c/file", d+"/a/b/file"))
		}, "/c belongs to user 1234"},
		"somebody's link": {func(d string) error {
			return errors.Join(os.Rename(d+"/a/b/file", d+"/c/file"), os.Symlink(d+"/c/file", d+"/a/b/file"),
				os.Lchown(d+"/a/b/file", 1234, 0))
		}, "b/file belongs to user 1234"},
		"a link and dots": {func(d string) error {
			return errors.Join(os.Rename(d+"/a/b", d+"/c/b"), os.Lchown(d+"/c", 1234, 0),
				os.Symlink(d+"/c/b/../b", d+"/a/b"))
		}, "/c belongs to user 1234"},
		"a loop": {func(d string) error {
			return errors.Join(os.Remove(d+"/a/b/file"), os.Symlink("file", d+"/a/b/file"))
		}, "too many levels"},
		"switched off": {func(d string) error {
			return errors.Join(os.Remove(d+"/a/b/file"), os.Symlink("/dev/null", d+"/a/b/file"))
		}, ""},
		"gone": {func(d string) error { return os.Remove(d + "/a/b/file") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.Mkdir(dir+"/c", 0o755),
				os.WriteFile(dir+"/a/b/file", nil, 0o644), c.change(dir))
			if errors.Is(err, syscall.EPERM) {
				t.Fatalf("this test needs root: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			err = Check(filepath.Join(dir, "a/b/file"))
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			others := strings.Contains(c.says, "belongs") || strings.Contains(c.says, "mode")
			if others != errors.Is(err, ErrOthers) {
				t.Errorf("%v is an ErrOthers: %v", err, !others)
			}
		})
	}
}
