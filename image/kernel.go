package image

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

// The header of an x86 kernel has the offset of its banner, counted from the second sector (x86 boot protocol 2.00).
const (
	kernelMagic     = 0x202
	kernelPointer   = 0x20e
	kernelHeader    = kernelPointer + 2
	kernelSector    = 0x200
	kernelTextLimit = 512
)

// banners has the banners of the x86 kernels among the contents that were put: "RELEASE (USER@HOST) VERSION", where
// RELEASE is uname -r and VERSION uname -v.
type banners map[fsverity.Digest]string

// put reads content and returns its digest. It is a layer.Putter.
func (b banners) put(r io.Reader, size int64) (fsverity.Digest, error) {
	var h fsverity.Hasher
	var head bytes.Buffer
	if _, err := io.CopyN(&head, r, min(size, kernelHeader)); err != nil {
		return fsverity.Digest{}, err
	}
	at := int64(-1)
	if header := head.Bytes(); len(header) == kernelHeader && string(header[kernelMagic:kernelMagic+4]) == "HdrS" {
		at = int64(binary.LittleEndian.Uint16(header[kernelPointer:])) + kernelSector
		if _, err := io.CopyN(&head, r, max(0, min(size, at+kernelTextLimit)-kernelHeader)); err != nil {
			return fsverity.Digest{}, err
		}
	}
	if _, err := h.Write(head.Bytes()); err != nil {
		return fsverity.Digest{}, err
	}
	if _, err := io.CopyN(&h, r, size-int64(head.Len())); err != nil {
		return fsverity.Digest{}, err
	}
	if at >= 0 && at < int64(head.Len()) {
		text, _, _ := bytes.Cut(head.Bytes()[at:], []byte{0})
		b[h.Digest()] = string(text)
	}
	return h.Digest(), nil
}

// versions returns uname -v of the kernels in a tree, by uname -r. Kernels without a banner are left out.
func (b banners) versions(t *layer.Tree) map[string]string {
	found := map[string]string{}
	for _, release := range kernels(t) {
		// the last one found counts, as on a host
		for _, path := range []string{"boot/vmlinuz-" + release, modulesPath + "/" + release + "/vmlinuz"} {
			n := t.Lookup(path)
			if n == nil || !n.IsRegular() {
				continue
			}
			name, rest, _ := strings.Cut(b[n.Object], " ")
			if _, version, told := strings.Cut(rest, ") "); told && name == release {
				found[release] = version
			}
		}
	}
	return found
}
