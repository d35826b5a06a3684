package composefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/erofs/go-erofs"
)

// Owned is how many names in an image have files of one uid or gid, with the path of one of them.
type Owned struct {
	Files int
	Path  string
}

// Owners are the uids and gids in an image: of owners and in ACLs.
type Owners struct{ UIDs, GIDs map[uint32]Owned }

// ReadOwners returns who owns what in an image, apart from the paths below skip, such as "etc". It trusts the image, so
// check its Digest first. The error is an ErrImage.
func ReadOwners(f io.ReaderAt, skip string) (Owners, error) {
	o := Owners{UIDs: map[uint32]Owned{}, GIDs: map[uint32]Owned{}}
	img, err := erofs.Open(f)
	if err != nil {
		return o, fmt.Errorf("%w: %w", ErrImage, err)
	}
	err = fs.WalkDir(img, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == skip && d.IsDir() {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*erofs.Stat)
		if !ok {
			return errors.New("it has no attributes")
		}
		o.add(stat, strings.TrimPrefix("/"+path, "/."))
		return nil
	})
	if err != nil {
		return o, fmt.Errorf("%w: %w", ErrImage, err)
	}
	return o, nil
}

func (o Owners) add(stat *erofs.Stat, path string) {
	uids, gids := map[uint32]bool{stat.UID: true}, map[uint32]bool{stat.GID: true}
	for _, attr := range []string{aclAccess, aclDefault} {
		readACL(stat.Xattrs[attr+aclSuffix], uids, gids)
	}
	count := func(in map[uint32]Owned, ids map[uint32]bool) {
		for id := range ids {
			n, known := in[id]
			if !known {
				n.Path = path
			}
			n.Files++
			in[id] = n
		}
	}
	count(o.UIDs, uids)
	count(o.GIDs, gids)
}

// readACL adds the uids and gids that an ACL names. The format is that of the kernel's posix_acl_xattr.h: a version in
// 4 bytes, then for each entry a tag, permissions and a number in 2, 2 and 4 bytes.
func readACL(acl string, uids, gids map[uint32]bool) {
	const header, entrySize, tagUser, tagGroup = 4, 8, 0x02, 0x08
	for at := header; at+entrySize <= len(acl); at += entrySize {
		id := binary.LittleEndian.Uint32([]byte(acl[at+4 : at+entrySize]))
		switch binary.LittleEndian.Uint16([]byte(acl[at : at+2])) {
		case tagUser:
			uids[id] = true
		case tagGroup:
			gids[id] = true
		}
	}
}
