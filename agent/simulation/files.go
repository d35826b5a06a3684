package simulation

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// node is a file or a directory. It never changes: whatever writes makes another one.
type node struct {
	content []byte
	dir     bool
	// size is that of a file without content, such as the reserve.
	size int64
}

// room is how much of the disk a node takes.
func (n node) room() int64 {
	const block = 4 << 10
	return (max(n.size, int64(len(n.content))) + block - 1) / block * block
}

// files are those of one file system, by their absolute names.
type files map[string]node

func (f files) clone() files {
	c := make(files, len(f))
	for name, n := range f {
		c[name] = n
	}
	return c
}

// exists reports whether there is something of that name.
func (f files) exists(name string) bool {
	_, there := f[name]
	return there
}

// below returns the names of a tree, itself first.
func (f files) below(name string) []string {
	var names []string
	for other := range f {
		if other == name || strings.HasPrefix(other, name+"/") {
			names = append(names, other)
		}
	}
	slices.Sort(names)
	return names
}

func (f files) isEmpty(dir string) bool { return len(f.below(dir)) <= 1 }

func (f files) makeDir(name string) {
	for ; name != "/" && !f.exists(name); name = path.Dir(name) {
		f[name] = node{dir: true}
	}
}

func (f files) remove(name string) {
	for _, n := range f.below(name) {
		delete(f, n)
	}
}

// move gives a tree another name; what had that name is gone.
func (f files) move(from, to string) {
	moved := files{}
	for _, n := range f.below(from) {
		moved[to+strings.TrimPrefix(n, from)] = f[n]
	}
	f.remove(from)
	f.remove(to)
	for n, content := range moved {
		f[n] = content
	}
}

func (f files) glob(pattern string) []string {
	var names []string
	for name := range f {
		if ok, err := filepath.Match(pattern, name); err == nil && ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// change is one that lies in the page cache.
type change struct {
	at time.Time
	do func(files)
}

// disk is a journalling file system: what is not synced is committed in its order, some time later. A power cut loses
// the end of it.
type disk struct {
	now, durable files
	pending      []change
	// full: nothing is free but what somebody gave up lately. Others take it soon.
	full    bool
	free    int64
	freedAt time.Time
	// readOnly: the kernel or somebody remounted it.
	readOnly bool
	// hung is closed when the disk answers again; nil when it does. cached: what is read again and again, as the record
	// is, can still be read then.
	hung   chan struct{}
	cached bool
}

// commitInterval is how long the kernel may leave a change in the page cache.
const commitInterval = 30 * time.Second

// change makes a change that is not durable yet.
func (d *disk) change(at time.Time, do func(files)) {
	do(d.now)
	d.pending = append(d.pending, change{at, do})
}

// sync makes every change durable.
func (d *disk) sync() {
	for _, c := range d.pending {
		c.do(d.durable)
	}
	d.pending = nil
}

// cut is what a power cut leaves: the durable content and as many of the changes since as luck has it.
func (d *disk) cut(at time.Time, luck func(n int) int) (lost int) {
	old := 0
	for old < len(d.pending) && at.Sub(d.pending[old].at) > commitInterval {
		old++
	}
	kept := old + luck(len(d.pending)-old+1)
	for _, c := range d.pending[:kept] {
		c.do(d.durable)
	}
	lost = len(d.pending) - kept
	d.pending, d.now = nil, d.durable.clone()
	return lost
}

// hogTime is how long room that somebody gave up stays free on a full disk.
const hogTime = 100 * time.Millisecond

// take reports whether there is room for a node in the place of another one, and takes it.
func (d *disk) take(at time.Time, old, n node) bool {
	if !d.full {
		return true
	}
	if at.Sub(d.freedAt) > hogTime {
		d.free = 0
	}
	if n.room() > d.free {
		return false
	}
	d.free += old.room() - n.room()
	return true
}

// give gives room back.
func (d *disk) give(at time.Time, size int64) {
	if d.full {
		d.free, d.freedAt = d.free+size, at
	}
}
