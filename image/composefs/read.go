package composefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/erofs/go-erofs"

	"github.com/updatectl/updatectl/image/fsverity"
)

// ErrImage means that a file is not an intact composefs image.
var ErrImage = errors.New("not an intact composefs image")

// Objects calls visit with the object of every file that has content, once for each name of the file. It trusts the
// image, so check its Digest first. The error is an ErrImage.
func Objects(f io.ReaderAt, visit func(fsverity.Digest)) error {
	img, err := erofs.Open(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	err = fs.WalkDir(img, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		object, err := objectOf(info)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		if object != (fsverity.Digest{}) {
			visit(object)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	return nil
}

// objectOf returns the digest of a file's content, or the zero value for an empty file.
func objectOf(info fs.FileInfo) (fsverity.Digest, error) {
	stat, ok := info.Sys().(*erofs.Stat)
	if !ok {
		return fsverity.Digest{}, errors.New("it has no attributes")
	}
	digest, ok := strings.CutPrefix(stat.Xattrs[metacopyXattr], metacopyHeader)
	if !ok || len(digest) != len(fsverity.Digest{}) {
		if info.Size() == 0 {
			return fsverity.Digest{}, nil
		}
		return fsverity.Digest{}, errors.New("it names no object")
	}
	return fsverity.Digest([]byte(digest)), nil
}
