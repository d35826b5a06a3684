package composefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/erofs/go-erofs"

	"github.com/updatectl/updatectl/image/fsverity"
)

// Changes is how many files of an image differ from those of another: each name that is not a directory counts.
type Changes struct {
	Added   int `json:"added"`
	Removed int `json:"removed"`
	Changed int `json:"changed"`
	Files   int `json:"files"` // all of the new image
	// Bytes is the size of the content that the other image does not have.
	Bytes int64 `json:"bytes"`
}

// entry is what is compared of a file. Times are not: a rebuilt file with the same content is the same.
type entry struct {
	mode       fs.FileMode
	uid, gid   uint32
	device     uint32
	object     fsverity.Digest
	target     string // of a link
	capability string
	size       int64
}

// Compare returns how the files of a new image differ from those of an old one, apart from the paths that skip reports,
// which are absolute. It trusts the images, so check their Digest first. The error is an ErrImage.
func Compare(old, fresh io.ReaderAt, skip func(path string) bool) (Changes, error) {
	before, has := map[string]entry{}, map[fsverity.Digest]bool{}
	err := eachFile(old, skip, func(path string, e entry) {
		before[path] = e
		has[e.object] = true
	})
	var c Changes
	if err != nil {
		return c, err
	}
	err = eachFile(fresh, skip, func(path string, e entry) {
		was, known := before[path]
		delete(before, path)
		c.Files++
		switch {
		case !known:
			c.Added++
		case was != e:
			c.Changed++
		}
		if !has[e.object] && e.object != (fsverity.Digest{}) {
			has[e.object] = true
			c.Bytes += e.size
		}
	})
	c.Removed = len(before)
	return c, err
}

// eachFile calls visit with every file of an image.
func eachFile(f io.ReaderAt, skip func(string) bool, visit func(string, entry)) error {
	img, err := erofs.Open(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	err = fs.WalkDir(img, ".", func(name string, d fs.DirEntry, err error) error {
		path := "/" + name
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && skip(path):
			return fs.SkipDir
		case d.IsDir() || skip(path):
			return nil
		}
		e, err := entryOf(img, name, d)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		visit(path, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	return nil
}

// entryOf returns what is compared of a file.
func entryOf(img fs.FS, name string, d fs.DirEntry) (entry, error) {
	info, err := d.Info()
	if err != nil {
		return entry{}, err
	}
	stat, ok := info.Sys().(*erofs.Stat)
	if !ok {
		return entry{}, errors.New("it has no attributes")
	}
	e := entry{mode: info.Mode(), uid: stat.UID, gid: stat.GID, capability: stat.Xattrs["security.capability"]}
	switch {
	case info.Mode().IsRegular():
		e.size = info.Size()
		e.object, err = objectOf(info)
	case info.Mode()&fs.ModeSymlink != 0:
		e.target, err = fs.ReadLink(img, name)
	default:
		e.device = stat.Rdev
	}
	return e, err
}
