// Package layer turns the layers of an OCI image into one file tree in memory.
//
// Nothing of a layer touches the disk under the name it asks for: names, links, owners and attributes become nodes of
// a [Tree], file contents go to a [Putter] that names them by digest. So a hostile entry has no path to escape
// through; it is refused with [ErrLayer] where a careful unpacker would have refused it, and everything a layer can
// make grow has a bound ([ErrLimit]).
//
// The rules are those of the OCI image specification as the usual unpackers read them: whiteouts remove what lower
// layers brought, wherever they stand in their layer; a directory over a directory merges; parents that are symbolic
// links are followed inside the tree; hard links share one inode, and replacing one name leaves the others alone.
package layer

import (
	"fmt"

	"github.com/updatectl/updatectl/verify"
)

var (
	// ErrLayer is a layer that is malformed or hostile.
	ErrLayer = fmt.Errorf("layer is %w", verify.ErrMalformed)
	// ErrLimit is a layer that goes over one of the bounds; it is an ErrLayer.
	ErrLimit = fmt.Errorf("over a limit: %w", ErrLayer)
)

// Bounds on what one image may ask for. A Debian server is at 1.4 GB and 27 000 entries, the largest desktop and GPU
// images near 30 GB and 500 000.
const (
	// MaxLayers is what container engines accept, and then some.
	MaxLayers = 256
	// maxEntries keeps the tree of an image that goes over it under 256 MB; an entry costs some 400 bytes.
	maxEntries = 1 << 19
	// maxPath is PATH_MAX; a longer path could not be opened.
	maxPath = 4096
	// maxName is NAME_MAX.
	maxName = 255
	// maxTarget is PATH_MAX less the final NUL: the longest symbolic link.
	maxTarget = maxPath - 1
	// maxSymlinks is how many symbolic links the kernel follows in one path.
	maxSymlinks = 40
	// maxXattr is the largest attribute EROFS can hold (a 16-bit length; the kernel's own XATTR_SIZE_MAX is one byte
	// more).
	maxXattr = 1<<16 - 1
	// maxXattrs bounds the attributes of one inode together. EROFS counts them in 16 bits of 4 bytes; the agent's own
	// two attributes need room as well.
	maxXattrs = 128 << 10
	// maxMetadata bounds names, link targets and attributes of all entries.
	maxMetadata = 128 << 20
	// maxFile is the largest single file. A sparse file costs 8 bytes of image for each 4 KiB, so this is 32 MB.
	maxFile = 16 << 30
	// maxContent bounds all files together, holes included.
	maxContent = 64 << 30
	// maxStream bounds one layer decompressed.
	maxStream = 64 << 30
	// maxRatio is how much larger than the blob its content may be, once it is larger than freeStream. Root file
	// systems are at 3 to 5; disk images full of zeros, which are published now and then, reach 100.
	maxRatio   = 200
	freeStream = 1 << 30
	// maxWindow is the zstd window accepted: `zstd --long` and `--ultra -22` use 128 MiB, and it is memory.
	maxWindow = 128 << 20
)
