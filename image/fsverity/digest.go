// Package fsverity computes the digest that the kernel's fs-verity has of a file, so that an object can be named
// before the kernel has measured it.
//
// The parameters are those of composefs: SHA-256, blocks of 4 KiB, no salt.
package fsverity

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

const (
	blockSize = 4096
	hashSize  = sha256.Size
	// descriptorSize is sizeof(struct fsverity_descriptor) without a signature.
	descriptorSize = 256
	// maxLevels is enough for 2^63 bytes: each level is 128 times smaller than the one below.
	maxLevels = 9
)

// Digest is an fs-verity digest. The zero value means "no content".
type Digest [hashSize]byte

// String returns the digest in hex, as `fsverity digest --compact` prints it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes the digest as String does, for JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	*d = parsed
	return err
}

// Parse reads a digest in hex, as String returns it.
func Parse(s string) (Digest, error) {
	var d Digest
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != hashSize {
		return Digest{}, fmt.Errorf("%q is not an fs-verity digest", s)
	}
	copy(d[:], raw)
	return d, nil
}

// Hasher computes the digest of what is written to it. The zero value is ready to use. It keeps one block for each
// level of the Merkle tree.
type Hasher struct {
	size   uint64
	block  [blockSize]byte // the data block being filled
	used   int
	levels [maxLevels]level
}

// level is the block of hashes being filled at one level of the Merkle tree.
type level struct {
	block [blockSize]byte
	used  int
	count int // number of hashes added to this level so far
}

// Reset returns the hasher to its zero value.
func (h *Hasher) Reset() {
	h.size, h.used = 0, 0
	for i := range h.levels {
		h.levels[i].used, h.levels[i].count = 0, 0
	}
}

// Write adds content. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	h.size += uint64(n)
	if h.used > 0 {
		c := copy(h.block[h.used:], p)
		h.used += c
		p = p[c:]
		if h.used < blockSize {
			return n, nil
		}
		h.add(0, sha256.Sum256(h.block[:]))
		h.used = 0
	}
	for ; len(p) >= blockSize; p = p[blockSize:] {
		h.add(0, sha256.Sum256(p[:blockSize]))
	}
	h.used = copy(h.block[:], p)
	return n, nil
}

// add adds a hash to a level, and the hash of a full block to the next level.
func (h *Hasher) add(at int, sum [hashSize]byte) {
	l := &h.levels[at]
	copy(l.block[l.used:], sum[:])
	l.used += hashSize
	l.count++
	if l.used == blockSize {
		l.used = 0
		h.add(at+1, sha256.Sum256(l.block[:]))
	}
}

// Digest returns the digest of everything written. Reset the hasher before it is used again.
func (h *Hasher) Digest() Digest {
	var descriptor [descriptorSize]byte
	descriptor[0] = 1  // version
	descriptor[1] = 1  // SHA-256
	descriptor[2] = 12 // log2 of the block size
	binary.LittleEndian.PutUint64(descriptor[8:], h.size)
	root := h.root()
	copy(descriptor[16:], root[:])
	return sha256.Sum256(descriptor[:])
}

// root completes the Merkle tree and returns its root hash, which is all zeros for an empty file.
func (h *Hasher) root() [hashSize]byte {
	if h.size == 0 {
		return [hashSize]byte{}
	}
	if h.used > 0 {
		clear(h.block[h.used:])
		h.add(0, sha256.Sum256(h.block[:]))
		h.used = 0
	}
	at := 0
	for h.levels[at].count > 1 {
		if l := &h.levels[at]; l.used > 0 {
			clear(l.block[l.used:])
			l.used = 0
			h.add(at+1, sha256.Sum256(l.block[:]))
		}
		at++
	}
	return [hashSize]byte(h.levels[at].block[:hashSize])
}

// Sum returns the digest of data.
func Sum(data []byte) Digest {
	var h Hasher
	h.Write(data)
	return h.Digest()
}
