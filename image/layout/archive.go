package layout

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/updatectl/updatectl/durable"
)

const (
	// maxArchived bounds the entries of an archive. A layout with maxEntries images has far fewer.
	maxArchived = 64 << 10
	// maxHeaders bounds what is read to list the entries, in bytes: a tar may consist of extensions of headers.
	maxHeaders = 128 << 20
	// maxArchivedName bounds a name in an archive, in bytes. The name of a blob has less than 150.
	maxArchivedName = 255
)

// archive presents a tar of an OCI layout as the directory that it was made of. The headers are read once, and nothing
// is unpacked. The file is opened only once: a file that replaces it is another archive.
type archive struct {
	path string

	mu      sync.Mutex
	file    *os.File
	entries map[string]extent
}

// extent says where in the archive the content of a file is.
type extent struct{ offset, size int64 }

// Open opens a file in the archive.
func (a *archive) Open(name string) (fs.File, error) {
	if err := a.scan(); err != nil {
		return nil, err
	}
	e, ok := a.entries[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &archived{SectionReader: io.NewSectionReader(a.file, e.offset, e.size), name: path.Base(name)}, nil
}

// ReadDir lists the files in a directory.
func (a *archive) ReadDir(dir string) ([]fs.DirEntry, error) {
	if err := a.scan(); err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for name, e := range a.entries {
		if path.Dir(name) == dir {
			list = append(list, fs.FileInfoToDirEntry(archivedInfo{path.Base(name), e.size}))
		}
	}
	slices.SortFunc(list, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	return list, nil
}

// scan lists the entries when it is called for the first time.
func (a *archive) scan() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.entries != nil {
		return nil
	}
	f, err := durable.OpenRegular(a.path)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	entries, err := scanTar(f, st.Size())
	if err != nil {
		f.Close()
		return err
	}
	a.file, a.entries = f, entries // the garbage collector closes the file
	return nil
}

// scanTar lists the files in a tar of size bytes. A name that occurs twice, or a file that cannot be part of a layout,
// makes it refuse the archive, because another reader might see another layout in it.
func scanTar(f io.ReadSeeker, size int64) (map[string]extent, error) {
	if err := checkPlain(f); err != nil {
		return nil, err
	}
	entries := map[string]extent{}
	f = &limited{f, maxHeaders}
	r := tar.NewReader(f)
	for count := 0; ; count++ {
		h, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("it is not an intact tar: %w", err)
		}
		if count == maxArchived {
			return nil, fmt.Errorf("it has more than %d entries", maxArchived)
		}
		name, err := archivedName(h)
		if err != nil {
			return nil, err
		}
		if name == "" { // a directory
			continue
		}
		if _, twice := entries[name]; twice {
			return nil, fmt.Errorf("it contains %q twice", name)
		}
		// The content begins at the current offset: the reader reads whole blocks, and seeks to skip content.
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > size-offset {
			return nil, fmt.Errorf("it ends within %q", name)
		}
		entries[name] = extent{offset, h.Size}
	}
}

// limited reads a number of bytes at most; to seek costs nothing.
type limited struct {
	io.ReadSeeker
	left int
}

// Read reads. Too much is an error.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadSeeker.Read(p)
	if l.left -= n; l.left < 0 {
		return 0, fmt.Errorf("its headers have more than %d bytes", maxHeaders)
	}
	return n, err
}

// archivedName returns the name of a file without a leading "./", or "" for a directory. Anything else is an error.
func archivedName(h *tar.Header) (string, error) {
	name := strings.TrimSuffix(h.Name, "/")
	if name != "." {
		name = strings.TrimPrefix(name, "./")
	}
	if len(name) > maxArchivedName || !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("it contains an entry with the name %.60q", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return "", fmt.Errorf("%q is a sparse file", name)
		}
	}
	switch {
	case h.Typeflag == tar.TypeDir:
		return "", nil
	case h.Typeflag == tar.TypeReg && name != "." && !strings.HasSuffix(h.Name, "/"):
		return name, nil
	}
	return "", fmt.Errorf("%q is neither a file nor a directory", name)
}

// compressions has the magic numbers of compressed files.
var compressions = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"xz", "\xfd7zXZ\x00"}, {"bzip2", "BZh"},
	{"lz4", "\x04\x22\x4d\x18"},
}

// checkPlain refuses a compressed tar, in which nothing can be found without decompressing all of it.
func checkPlain(f io.ReadSeeker) error {
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return err
	}
	for _, c := range compressions {
		if bytes.HasPrefix(head[:n], []byte(c.magic)) {
			return fmt.Errorf("it is compressed with %s, and only an uncompressed tar can be read in place: "+
				"decompress it (the layers in it stay compressed)", c.name)
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// archived is a file in an archive.
type archived struct {
	*io.SectionReader
	name string
}

// Stat describes the file.
func (f *archived) Stat() (fs.FileInfo, error) { return archivedInfo{f.name, f.Size()}, nil }

// Close does nothing: the archive stays open.
func (f *archived) Close() error { return nil }

// archivedInfo describes a file in an archive.
type archivedInfo struct {
	name string
	size int64
}

func (i archivedInfo) Name() string       { return i.name }
func (i archivedInfo) Size() int64        { return i.size }
func (i archivedInfo) Mode() fs.FileMode  { return 0o444 }
func (i archivedInfo) ModTime() time.Time { return time.Time{} }
func (i archivedInfo) IsDir() bool        { return false }
func (i archivedInfo) Sys() any           { return nil }
