package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/updatectl/updatectl/image/fsverity"
)

// SkipNote is a [Noter] that notes nothing.
func SkipNote(*tar.Header, fsverity.Digest) error { return nil }

// Noted is what a [Noter] saw of one entry of a layer.
type Noted struct {
	Header *tar.Header // valid until the next entry is read
	Object fsverity.Digest
}

// Replay applies a layer by what a [Noter] saw of it, without its content. The entries go through the same code as
// those of an archive, so the tree is the same, and so are the bounds. Errors of entries are returned unchanged. The
// tree cannot be used after an error.
func (t *Tree) Replay(entries iter.Seq2[Noted, error]) error {
	t.layer++
	for e, err := range entries {
		if err != nil {
			return err
		}
		put := func(io.Reader, int64) (fsverity.Digest, error) {
			if e.Object == (fsverity.Digest{}) {
				return e.Object, fmt.Errorf("%w: %q has no object", ErrLayer, e.Header.Name)
			}
			return e.Object, nil
		}
		if err := t.add(e.Header, &contents{}, put); err != nil {
			return err
		}
	}
	return nil
}

// IsXattr reports whether a PAX record is an extended attribute.
func IsXattr(record string) bool { return strings.HasPrefix(record, xattrRecord) }
