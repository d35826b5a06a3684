package inventory

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

const (
	// version begins every inventory. One of another version is not used.
	version = "updatectl layer inventory 1"
	// maxFile bounds an inventory, in bytes. That of a server root with 38 900 entries has less than 3 MB.
	maxFile = 64 << 20
	// window is how far back the compression looks, in bytes: entries resemble their neighbours.
	window = 1 << 20
)

// ErrTooLarge means that no inventory is kept of a layer: it has too many entries, or too large ones.
var ErrTooLarge = errors.New("the inventory of the layer is too large")

// The kinds of entries in the stream.
const (
	kindEnd     = 0
	kindPlain   = 1 // an entry without an object
	kindContent = 2 // an entry, with its object at the end
)

// Layer names a layer by what a signed manifest and its configuration say.
type Layer struct{ Blob, Diff digest.Digest }

// Name returns the name of the file that has the inventory of the layer.
func (l Layer) Name() string { return Prefix + l.Blob.Algorithm().String() + "-" + l.Blob.Encoded() }

// Prefix begins the names of inventories.
const Prefix = "layer-"

// head returns the text that an inventory of the layer begins with.
func (l Layer) head() string { return version + "\n" + l.Blob.String() + "\n" + l.Diff.String() + "\n" }

// Writer writes an inventory.
type Writer struct {
	out      *bounded
	zip      *zstd.Encoder
	line     []byte
	unpacked int64 // bytes of all entries
	unfit    bool  // no reader would take an entry
}

// NewWriter begins the inventory of a layer.
func NewWriter(w io.Writer, l Layer) (*Writer, error) {
	out := &bounded{w: w, sum: sha256.New()}
	if _, err := io.WriteString(out, l.head()); err != nil {
		return nil, err
	}
	zip, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("cannot compress the inventory: %w", err)
	}
	return &Writer{out: out, zip: zip}, nil
}

// Add writes an entry. It is a [layer.Noter].
func (w *Writer) Add(hdr *tar.Header, object fsverity.Digest) error {
	w.line = appendEntry(w.line[:0], hdr, object)
	w.unpacked += int64(len(w.line))
	w.unfit = w.unfit || !fits(hdr) || w.unpacked >= maxEntries
	if w.unfit { // the layer is staged all the same
		return nil
	}
	_, err := w.zip.Write(w.line)
	return err
}

// fits reports whether an entry is within what is read again.
func fits(hdr *tar.Header) bool {
	for name, value := range hdr.PAXRecords {
		if len(name) > maxText || len(value) > maxText {
			return false
		}
	}
	return hdr.Size >= 0 && len(hdr.Name) <= maxText && len(hdr.Linkname) <= maxText && len(hdr.PAXRecords) <= maxXattrs
}

// appendEntry appends what the tree reads of an entry.
func appendEntry(b []byte, hdr *tar.Header, object fsverity.Digest) []byte {
	kind := byte(kindPlain)
	if object != (fsverity.Digest{}) {
		kind = kindContent
	}
	b = append(b, kind, hdr.Typeflag)
	b = appendText(appendText(b, hdr.Name), hdr.Linkname)
	for _, n := range []int64{
		hdr.Mode & 0o7777, int64(hdr.Uid), int64(hdr.Gid), hdr.ModTime.Unix(), int64(hdr.ModTime.Nanosecond()), hdr.Size,
		hdr.Devmajor, hdr.Devminor,
	} {
		b = binary.AppendVarint(b, n)
	}
	xattrs := slices.DeleteFunc(slices.Sorted(maps.Keys(hdr.PAXRecords)),
		func(record string) bool { return !layer.IsXattr(record) })
	b = binary.AppendUvarint(b, uint64(len(xattrs)))
	for _, record := range xattrs {
		b = appendText(appendText(b, record), hdr.PAXRecords[record])
	}
	if kind == kindContent {
		b = append(b, object[:]...)
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// Close ends the inventory. The error is an ErrTooLarge if it must not be kept.
func (w *Writer) Close() error {
	_, err := w.zip.Write([]byte{kindEnd})
	if err = errors.Join(err, w.zip.Close()); err != nil {
		return err
	}
	if w.out.over || w.unfit {
		return ErrTooLarge
	}
	_, err = w.out.w.Write(w.out.sum.Sum(nil))
	return err
}

// bounded writes until the bound is reached, and then counts on.
type bounded struct {
	w    io.Writer
	sum  hash.Hash
	size int64
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.size += int64(len(p)); b.size > maxFile-sha256.Size {
		b.over = true
		return len(p), nil
	}
	b.sum.Write(p)
	return b.w.Write(p)
}
