package disk

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// File is a file or a directory. It never changes: whatever writes makes another one.
type File struct {
	Content []byte
	Dir     bool
	// Size is that of a file without content, such as the reserve.
	Size int64
}

// Room returns how many bytes of the disk a file takes.
func (f File) Room() int64 {
	const block = 4 << 10
	return (max(f.Size, int64(len(f.Content))) + block - 1) / block * block
}

// Files are those of one file system, by their absolute names.
type Files map[string]File

// Clone returns a copy.
func (f Files) Clone() Files { return maps.Clone(f) }

// Exists reports whether there is something of that name.
func (f Files) Exists(name string) bool {
	_, there := f[name]
	return there
}

// Below returns the names of a tree, itself first.
func (f Files) Below(name string) []string {
	var names []string
	for other := range f {
		if other == name || strings.HasPrefix(other, name+"/") {
			names = append(names, other)
		}
	}
	slices.Sort(names)
	return names
}

// IsEmpty reports whether nothing is in a directory.
func (f Files) IsEmpty(dir string) bool { return len(f.Below(dir)) <= 1 }

// MakeDir makes a directory, with those above it.
func (f Files) MakeDir(name string) {
	for ; name != "/" && !f.Exists(name); name = path.Dir(name) {
		f[name] = File{Dir: true}
	}
}

// Remove removes a tree.
func (f Files) Remove(name string) {
	for _, n := range f.Below(name) {
		delete(f, n)
	}
}

// Move gives a tree another name; what had that name is gone.
func (f Files) Move(from, to string) {
	moved := Files{}
	for _, n := range f.Below(from) {
		moved[to+strings.TrimPrefix(n, from)] = f[n]
	}
	f.Remove(from)
	f.Remove(to)
	maps.Copy(f, moved)
}

// Glob returns the names that match a pattern.
func (f Files) Glob(pattern string) []string {
	var names []string
	for name := range f {
		if ok, err := filepath.Match(pattern, name); err == nil && ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
