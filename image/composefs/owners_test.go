package composefs

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestReadOwners: every number of an owner and in an ACL is found, under each name, but not below /etc.
func TestReadOwners(t *testing.T) {
	crontab, acl, etc := file("usr/crontab"), file("usr/acl"), file("etc/of-the-merge")
	crontab.Gid, crontab.Mode, etc.Uid = 997, 0o2755, 5
	value := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{1, 6, ^uint32(0)}, {2, 4, 110}, {4, 4, ^uint32(0)}, {8, 4, 995}, {16, 4, ^uint32(0)},
		{32, 0, ^uint32(0)}} {
		value = binary.LittleEndian.AppendUint16(value, uint16(e[0]))
		value = binary.LittleEndian.AppendUint16(value, uint16(e[1]))
		value = binary.LittleEndian.AppendUint32(value, e[2])
	}
	acl.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": string(value)}
	dir := tar.Header{Typeflag: tar.TypeDir, Name: "usr/"}
	f := write(t, build(t, dir, tar.Header{Typeflag: tar.TypeDir, Name: "etc/"}, crontab, acl, etc,
		link("usr/linked", "usr/crontab"), tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "usr", Uid: 101}))
	o, err := ReadOwners(f, "etc")
	if err != nil {
		t.Fatal(err)
	}
	delete(o.UIDs, 0)
	delete(o.GIDs, 0)
	want := Owners{
		UIDs: map[uint32]Owned{101: {1, "/link"}, 110: {1, "/usr/acl"}},
		GIDs: map[uint32]Owned{997: {2, "/usr/crontab"}, 995: {1, "/usr/acl"}},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("owners %v, want %v", o, want)
	}
	if _, err := ReadOwners(strings.NewReader("no image"), ""); !errors.Is(err, ErrImage) {
		t.Errorf("a file that is no image: %v", err)
	}
}
