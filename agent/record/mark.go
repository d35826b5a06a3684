package record

import (
	"time"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
)

// Offered is what was published, as the record keeps it.
type Offered struct {
	// Root is the identity of its root, "" for a release of live patches alone.
	Root string
	// Release tells whether it is a release; otherwise it is an image on its own.
	Release bool
	// Mark is its place in the order of releases.
	Mark release.Mark
	// Seen is the latest time that is known to have passed, by the record or by proofs that came with signatures.
	Seen time.Time
	// InOrder tells whether it may follow what was accepted before: it is not older, or the operator allowed it.
	InOrder bool
}

// Accept records what was published as accepted, and returns whether the record changed.
func (r *Record) Accept(o Offered, now time.Time) bool {
	before, seen := r.Mark, r.Seen
	as := r.Accepted[o.Root]
	switch {
	case o.Release:
		r.Mark = o.Mark
		if o.Root != "" {
			r.Accepted[o.Root] = o.Mark
		}
		for _, t := range []time.Time{now, o.Seen} {
			if t.After(r.Seen) {
				r.Seen = t.UTC()
			}
		}
	case r.Mark.Sequence > 0, !release.Ordered(o.Mark.Version):
		// An image on its own says nothing about the order of releases, even if the operator takes it.
	case o.InOrder:
		r.Mark = o.Mark
	}
	return r.Mark != before || r.Accepted[o.Root] != as || !r.Seen.Equal(seen)
}

// LeaveRoot records why the root that is left is not taken again by an unattended apply, which would undo tonight what the
// operator does now. Why it was given up before, when it was, says more about it. The host root is never given up.
func (r *Record) LeaveRoot(root string, b Bad, at time.Time) {
	if _, known := r.Bad[root]; known || root == switcher.HostRoot {
		return
	}
	b.At = at.UTC()
	r.Bad[root] = b
}
