package composefs

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/erofs/go-erofs"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

const (
	// headerMagic and headerVersion begin a composefs image; the superblock of the file system begins at 1024.
	headerMagic   = 0xd078629a
	headerVersion = 1
	// headerHasACL requests a mount with POSIX ACLs.
	headerHasACL = 1 << 0
)

// Write writes the image of a tree to an empty file and returns the digest of the image.
func Write(f *os.File, tree *layer.Tree) (fsverity.Digest, error) {
	src, err := newSource(tree)
	if err != nil {
		return fsverity.Digest{}, err
	}
	// The build time is fixed, because the same tree must give the same bytes.
	w := erofs.Create(f, erofs.WithBuildTime(0, 0))
	if err := w.CopyFrom(src, erofs.MetadataOnly()); err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot lay out the composefs image: %w", err)
	}
	if err := w.Close(); err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot write the composefs image: %w", err)
	}
	if err := joinLinks(f, src.aliases); err != nil {
		return fsverity.Digest{}, err
	}
	if err := writeHeader(f, src.acl); err != nil {
		return fsverity.Digest{}, err
	}
	return Digest(f)
}

// writeHeader writes the header that marks the file as a composefs image.
func writeHeader(f io.WriterAt, acl bool) error {
	header := make([]byte, 32)
	binary.LittleEndian.PutUint32(header, headerMagic)
	binary.LittleEndian.PutUint32(header[4:], headerVersion)
	if acl {
		binary.LittleEndian.PutUint32(header[8:], headerHasACL)
	}
	if _, err := f.WriteAt(header, 0); err != nil {
		return fmt.Errorf("cannot write the composefs header: %w", err)
	}
	return nil
}

// Digest returns the fs-verity digest of a whole file.
func Digest(f io.ReaderAt) (fsverity.Digest, error) {
	d, err := fsverity.Compute(f)
	if err != nil {
		err = fmt.Errorf("cannot read the composefs image: %w", err)
	}
	return d, err
}
