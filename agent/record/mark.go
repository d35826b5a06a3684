package record

import (
	"time"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
)

// Offered is a published release, or an image on its own, in the form that the record keeps.
type Offered struct {
	// Root is the identity of its root, "" for a release of live patches alone.
	Root string
	// Release reports whether this is a release; otherwise it is an image on its own.
	Release bool
	// Mark is its place in the order of releases.
	Mark release.Mark
	// Seen is the latest time known to have passed, from the record or from the proven times of signatures.
	Seen time.Time
	// InOrder reports whether this may follow what was accepted before: it is not older, or the operator allowed it.
	InOrder bool
}

// Accept records that a published release or image was accepted. It reports whether the record changed.
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
		// An image on its own has no place in the order of releases, even if the operator allowed it.
	case o.InOrder:
		r.Mark = o.Mark
	}
	return r.Mark != before || r.Accepted[o.Root] != as || !r.Seen.Equal(seen)
}

// LeaveRoot records as bad the root that the operator leaves, so that tonight's unattended apply does not return to
// it. If the root is bad already, the first reason is kept: it says more. The host root is never bad.
func (r *Record) LeaveRoot(root string, b Bad, at time.Time) {
	if _, bad := r.Bad[root]; bad || root == switcher.HostRoot {
		return
	}
	b.At = at.UTC()
	r.Bad[root] = b
}
