package composefs

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// go-erofs gives every name an inode of its own. EROFS does not require that: a directory entry is a name and an inode
// number. So joinLinks makes the other names of a hard-linked file point to the inode of the first one. Their
// placeholder inodes remain as 32 unreachable bytes each.
//
// This code reads only what go-erofs writes: blocks of 4 KiB and directories with a flat layout, whose tail is inline
// or not.

// The on-disk format (fs/erofs/erofs_fs.h of the kernel).
const (
	blockSize     = 4096
	superblock    = 1024
	sbInodes      = superblock + 16 // number of inodes
	sbMetaBlock   = superblock + 40 // block where inodes start
	sbRoot        = superblock + 14 // inode number of the root
	slotSize      = 32              // bytes that an inode number counts
	inodeExtended = 1 << 0
	inodeInline   = 2 // data layout: right after the inode
	direntSize    = 12
	direntType    = 10 // offset of the type in an entry
)

// joinLinks turns aliases into hard links.
func joinLinks(f *os.File, aliases []alias) error {
	if len(aliases) == 0 {
		return nil
	}
	img, err := openRaw(f)
	if err != nil {
		return err
	}
	for _, a := range aliases {
		if err := img.join(a); err != nil {
			return fmt.Errorf("cannot link %q to %q in the composefs image: %w", a.path, a.target, err)
		}
	}
	return img.dropInodes(len(aliases))
}

// raw gives access to the bytes of an image.
type raw struct {
	f    *os.File
	meta int64
	root uint64
	dirs map[string]directory // those read so far
}

// directory has the entries of a directory, and their offset in the file.
type directory struct {
	at      int64
	entries []dirent
}

// dirent is a directory entry, with the offset of its head.
type dirent struct {
	name string
	nid  uint64
	kind byte
	at   int64
}

func openRaw(f *os.File) (*raw, error) {
	sb := make([]byte, 128)
	if _, err := f.ReadAt(sb, superblock); err != nil {
		return nil, fmt.Errorf("cannot read the superblock: %w", err)
	}
	return &raw{
		f:    f,
		meta: int64(binary.LittleEndian.Uint32(sb[sbMetaBlock-superblock:])) * blockSize,
		root: uint64(binary.LittleEndian.Uint16(sb[sbRoot-superblock:])),
		dirs: map[string]directory{},
	}, nil
}

// join makes a directory entry point to the inode of another one.
func (r *raw) join(a alias) error {
	target, err := r.entry(a.target)
	if err != nil {
		return err
	}
	from, err := r.entry(a.path)
	if err != nil {
		return err
	}
	if _, err := r.f.WriteAt(binary.LittleEndian.AppendUint64(nil, target.nid), from.at); err != nil {
		return err
	}
	_, err = r.f.WriteAt([]byte{target.kind}, from.at+direntType)
	return err
}

// dropInodes subtracts the placeholders from the number of inodes in the superblock.
func (r *raw) dropInodes(count int) error {
	buf := make([]byte, 8)
	if _, err := r.f.ReadAt(buf, sbInodes); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(buf, binary.LittleEndian.Uint64(buf)-uint64(count))
	_, err := r.f.WriteAt(buf, sbInodes)
	return err
}

// entry returns the directory entry of a path.
func (r *raw) entry(name string) (dirent, error) {
	dir, err := r.directory(path.Dir(name))
	if err != nil {
		return dirent{}, err
	}
	base := path.Base(name)
	i, ok := slices.BinarySearchFunc(dir.entries, base,
		func(e dirent, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return dirent{}, fmt.Errorf("it has no %q", name)
	}
	return dir.entries[i], nil
}

// directory returns a directory; "." is the root.
func (r *raw) directory(name string) (directory, error) {
	if dir, ok := r.dirs[name]; ok {
		return dir, nil
	}
	nid := r.root
	if name != "." {
		e, err := r.entry(name)
		if err != nil {
			return directory{}, err
		}
		nid = e.nid
	}
	dir, err := r.read(nid)
	if err == nil {
		r.dirs[name] = dir
	}
	return dir, err
}

// read finds the data of a directory and parses it.
func (r *raw) read(nid uint64) (directory, error) {
	start := r.meta + int64(nid)*slotSize
	inode := make([]byte, 64)
	if _, err := r.f.ReadAt(inode[:32], start); err != nil {
		return directory{}, err
	}
	format := binary.LittleEndian.Uint16(inode)
	head, size := int64(32), int64(binary.LittleEndian.Uint32(inode[8:]))
	if format&inodeExtended != 0 {
		head, size = 64, int64(binary.LittleEndian.Uint64(inode[8:]))
	}
	if count := int64(binary.LittleEndian.Uint16(inode[2:])); count > 0 {
		head += 12 + (count-1)*4 // extended attributes
	}
	at := int64(binary.LittleEndian.Uint32(inode[16:])) * blockSize
	if format>>1&7 == inodeInline {
		at = start + head
	}
	data := make([]byte, size)
	if _, err := r.f.ReadAt(data, at); err != nil && err != io.EOF {
		return directory{}, err
	}
	return directory{at, parseDirents(data, at)}, nil
}

// parseDirents reads blocks of entries: first the heads, which have a fixed size, then the names, each of which ends
// where the next begins.
func parseDirents(data []byte, at int64) []dirent {
	var entries []dirent
	for off := 0; off < len(data); off += blockSize {
		block := data[off:min(off+blockSize, len(data))]
		count := int(binary.LittleEndian.Uint16(block[8:])) / direntSize
		for i := range count {
			head := block[i*direntSize:]
			from, to := int(binary.LittleEndian.Uint16(head[8:])), len(block)
			if i+1 < count {
				to = int(binary.LittleEndian.Uint16(head[direntSize+8:]))
			}
			entries = append(entries, dirent{
				name: strings.TrimRight(string(block[from:to]), "\x00"),
				nid:  binary.LittleEndian.Uint64(head),
				kind: head[direntType],
				at:   at + int64(off+i*direntSize),
			})
		}
	}
	return entries
}
