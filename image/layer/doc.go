// Package layer turns the layers of an OCI image into one file tree in memory.
//
// Nothing in a layer reaches the disk under a name that the layer chooses. Names, links, owners and attributes become
// inodes of a [Tree]; file contents go to a [Putter], which names them by digest. So a hostile entry has no path to
// escape through. It is refused with [ErrLayer], as a careful unpacker would refuse it, and everything that a layer
// can make grow is bounded ([ErrLimit]).
//
// The rules are those of the OCI image specification, as the common unpackers implement them: a whiteout removes what
// lower layers contain, wherever it is in its own layer; a directory is merged with one in a lower layer; parents that
// are symbolic links are followed inside the tree; hard links share one inode, and replacing one name does not change
// the others.
package layer

import (
	"fmt"

	"github.com/updatectl/updatectl/verify"
)

var (
	// ErrLayer means that a layer is malformed or hostile. It is a verify.ErrMalformed.
	ErrLayer = fmt.Errorf("the layer is %w", verify.ErrMalformed)
	// ErrLimit means that a layer exceeds one of the bounds. It is an ErrLayer.
	ErrLimit error = limitError{}
)

type limitError struct{}

func (limitError) Error() string { return "the layer is too large" }
func (limitError) Unwrap() error { return ErrLayer }

// The bounds of one image. A Debian server has 1.4 GB and 27 000 entries; the largest desktop and GPU images have
// nearly 30 GB and 500 000.
const (
	// MaxLayers is twice what container engines accept.
	MaxLayers = 256
	// maxEntries keeps the tree in memory below 256 MB: an entry takes about 400 bytes.
	maxEntries = 1 << 19
	// maxPath is PATH_MAX; a longer path could not be opened.
	maxPath = 4096
	// maxName is NAME_MAX.
	maxName = 255
	// maxTarget is PATH_MAX without the final NUL: the longest target of a symbolic link.
	maxTarget = maxPath - 1
	// maxSymlinks is the number of symbolic links that the kernel follows in one path.
	maxSymlinks = 40
	// maxXattr is the largest extended attribute that EROFS can store, which has 16 bits for its length. The kernel's
	// XATTR_SIZE_MAX is one byte more.
	maxXattr = 1<<16 - 1
	// maxXattrs bounds all extended attributes of an inode together. EROFS counts them with 16 bits in units of 4
	// bytes; those of overlayfs need room, too.
	maxXattrs = 128 << 10
	// maxMetadata bounds names, link targets and attributes of all entries.
	maxMetadata = 128 << 20
	// maxFile bounds one file. A sparse file takes 8 bytes of the composefs image for each 4 KiB, which is 32 MB.
	maxFile = 16 << 30
	// maxContent bounds all files together, including holes.
	maxContent = 64 << 30
	// maxStream bounds a decompressed layer.
	maxStream = 64 << 30
	// maxRatio is how many times larger than the blob its content may be, once it is larger than freeStream. Root file
	// systems have a ratio of 3 to 5; disk images full of zeros, which are sometimes published, reach 100.
	maxRatio   = 200
	freeStream = 1 << 30
	// maxWindow is the largest zstd window that is accepted, because the window is held in memory. `zstd --long` and
	// `zstd --ultra -22` use 128 MiB.
	maxWindow = 128 << 20
)
