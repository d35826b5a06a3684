// Package disk is the disk of a simulated machine: a journalling file system with a page cache. It answers what is on
// the disk, whether there is room for more, and what a power cut leaves. It knows no processes: the caller has to lock
// it, and to wait while it hangs.
package disk

import "time"

// Disk is a file system that commits what is not synced in its order, some time later. A power cut loses the end of it.
type Disk struct {
	// Now is what a process sees; it is changed by Change only.
	Now Files
	// ReadOnly: the kernel or somebody remounted it.
	ReadOnly bool

	durable Files
	pending []change
	// full: nothing is free but what somebody gave up lately. Others take it soon.
	full    bool
	free    int64
	freedAt time.Time
	// hung is closed when the disk answers again; nil when it does.
	hung   chan struct{}
	cached bool
}

// change is one that lies in the page cache.
type change struct {
	at time.Time
	do func(Files)
}

// New returns a disk with files on it, all of them durable.
func New(f Files) *Disk { return &Disk{Now: f.Clone(), durable: f.Clone()} }

// Change makes a change that is not durable yet. It is made again in what is durable, so it must depend on the files
// alone.
func (d *Disk) Change(at time.Time, do func(Files)) {
	do(d.Now)
	d.pending = append(d.pending, change{at, do})
}

// Sync makes every change durable.
func (d *Disk) Sync() {
	for _, c := range d.pending {
		c.do(d.durable)
	}
	d.pending = nil
}

// commitInterval is how long the kernel may leave a change in the page cache.
const commitInterval = 30 * time.Second

// Cut has the power cut, and returns how many changes are lost. The changes of the last commitInterval may be: luck
// returns how many of them survive, less than n.
func (d *Disk) Cut(at time.Time, luck func(n int) int) (lost int) {
	old := 0
	for old < len(d.pending) && at.Sub(d.pending[old].at) > commitInterval {
		old++
	}
	kept := old + luck(len(d.pending)-old+1)
	for _, c := range d.pending[:kept] {
		c.do(d.durable)
	}
	lost = len(d.pending) - kept
	d.pending, d.Now = nil, d.durable.Clone()
	return lost
}

// Fill fills the disk, or ends that it is full.
func (d *Disk) Fill(full bool) { d.full, d.free = full, 0 }

// hogTime is how long room that somebody gave up stays free on a full disk.
const hogTime = 100 * time.Millisecond

// Take reports whether there is room for a file in the place of another one, and takes it.
func (d *Disk) Take(at time.Time, old, f File) bool {
	if !d.full {
		return true
	}
	if at.Sub(d.freedAt) > hogTime {
		d.free = 0
	}
	if f.Room() > d.free {
		return false
	}
	d.free += old.Room() - f.Room()
	return true
}

// Give gives room back, which stays free for hogTime.
func (d *Disk) Give(at time.Time, size int64) {
	if d.full {
		d.free, d.freedAt = d.free+size, at
	}
}

// Replaced gives the room of a file back whose name another one took. That prolongs nothing: the room is free as long
// as what was given back before.
func (d *Disk) Replaced(f File) { d.free += f.Room() }

// Hang has the disk not answer. Cached: what is read again and again, as the record is, can still be read.
func (d *Disk) Hang(cached bool) { d.hung, d.cached = make(chan struct{}), cached }

// Answer has the disk answer again.
func (d *Disk) Answer() {
	if d.hung != nil {
		close(d.hung)
		d.hung = nil
	}
}

// Hung returns nil while the disk answers, and otherwise what is closed when it does again.
func (d *Disk) Hung() <-chan struct{} { return d.hung }

// Cached reports whether a disk that hangs still gives what is read again and again.
func (d *Disk) Cached() bool { return d.cached }
