package record

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/verify"
)

// Vouched is a release that was accepted, and who vouched for it then.
type Vouched struct {
	release.Mark
	Vouchers []verify.Voucher `json:"vouchers,omitempty"`
	// At is when it was accepted first.
	At time.Time `json:"at"`
	// Seen is [Record.Seen] when it was accepted last; SeenBefore is what that was before it was accepted.
	Seen       time.Time `json:"seen,omitzero"`
	SeenBefore time.Time `json:"seen_before,omitzero"`
}

// maxMarks bounds how many releases are kept: the last one of each set of signers.
const maxMarks = 16

// maxClockStep is how far the clock alone may move [Record.Seen] while a host stays with one release. A clock that ran
// ahead must not make the releases of years expire; what is proven is not bounded. Most releases are valid for less.
const maxClockStep = 90 * 24 * time.Hour

// Order is what a release is compared with.
type Order struct {
	Mark release.Mark
	Seen time.Time
	// Fallen is the last release that was accepted, if it no longer counts because too few of its signers do; Lapsed names
	// those who do not.
	Fallen *Vouched
	Lapsed []string
}

// OrderOf returns what releases are compared with today: the last release that was accepted or, if too few of those who
// vouched for it still count, the last one of others who do. Lapsed returns who no longer counts, nil if a release
// counts; see [verify.Policy.Lapsed]. A release of which nobody recorded who vouched counts.
func OrderOf(r *Record, lapsed func(Vouched) []string) Order {
	var o Order
	for i, v := range slices.Backward(r.Marks) {
		who := lapsed(v)
		switch {
		case v.Mark == r.Mark && who == nil: // of several sets of signers, one still counts
			return Order{Mark: r.Mark, Seen: r.Seen}
		case v.Mark == r.Mark && o.Fallen == nil:
			o.Fallen, o.Lapsed = &r.Marks[i], who
		case who == nil && o.Mark == release.Mark{}:
			o.Mark, o.Seen = v.Mark, v.Seen
		}
	}
	if o.Fallen == nil {
		return Order{Mark: r.Mark, Seen: r.Seen}
	}
	return o
}

// String says that the order of releases fell back, "" if it did not.
func (o Order) String() string {
	if o.Fallen == nil {
		return ""
	}
	goesOn := "anything that is not expired may follow"
	if o.Mark != (release.Mark{}) {
		goesOn = "what is published is compared with " + placeOf(o.Mark) + " instead"
	}
	return fmt.Sprintf("%s was accepted before and no longer counts, because %s vouched for it: %s",
		placeOf(o.Fallen.Mark), strings.Join(o.Lapsed, " and "), goesOn)
}

// placeOf returns the place in the order of releases in words. An image on its own has a version only.
func placeOf(m release.Mark) string {
	if m.Sequence == 0 {
		return "version " + m.Version
	}
	return fmt.Sprintf("sequence %d (version %s)", m.Sequence, m.Version)
}

// Offered is a published release, or an image on its own, in the form that the record keeps.
type Offered struct {
	// Root is the identity of its root, "" for a release of live patches alone.
	Root string
	// Release reports whether this is a release; otherwise it is an image on its own.
	Release bool
	// Mark is its place in the order of releases, and Vouchers are those who vouched for it.
	Mark     release.Mark
	Vouchers []verify.Voucher
	// After is what it was compared with.
	After Order
	// Seen is the latest time known to have passed, from the record or from the proven times of signatures.
	Seen time.Time
	// InOrder reports whether this may follow what was accepted before: it is not older, or the operator allowed it.
	InOrder bool
}

// Accept records that a published release or image was accepted. It reports whether the record changed.
func (r *Record) Accept(o Offered, now time.Time) bool {
	before, seen := r.Mark, r.Seen
	as, vouched := r.Accepted[o.Root], false
	if o.After.Fallen != nil && (o.Release || o.InOrder) {
		r.Mark, r.Seen = o.After.Mark, o.After.Seen
	}
	switch {
	case o.Release:
		r.Mark = o.Mark
		if o.Root != "" {
			r.Accepted[o.Root] = o.Mark
		}
		vouched = noteVouched(r, o, now.UTC())
	case r.Mark.Sequence > 0, !release.Ordered(o.Mark.Version):
		// An image on its own has no place in the order of releases, even if the operator allowed it.
	case o.InOrder:
		r.Mark = o.Mark
		vouched = noteVouched(r, o, now.UTC())
	}
	return vouched || r.Mark != before || r.Accepted[o.Root] != as || !r.Seen.Equal(seen)
}

// noteVouched notes who vouched for a release or an image that was accepted, and moves Seen for a release. Only the
// last one of the same signers is kept. It reports whether these signers have not vouched for it before.
func noteVouched(r *Record, o Offered, now time.Time) bool {
	v := Vouched{Mark: o.Mark, Vouchers: o.Vouchers, At: now, SeenBefore: cmp.Or(r.Seen, now)}
	same := func(other Vouched) bool { return signersOf(other) == signersOf(v) }
	isNew := true
	for _, other := range r.Marks {
		if other.Mark == o.Mark {
			v.At, v.SeenBefore, isNew = other.At, other.SeenBefore, isNew && !same(other)
		}
	}
	if o.Release { // only these expire
		moveSeen(r, v.SeenBefore, now, o.Seen)
	}
	v.Seen = r.Seen
	r.Marks = append(slices.DeleteFunc(r.Marks, same), v)
	r.Marks = r.Marks[max(0, len(r.Marks)-maxMarks):]
	return isNew
}

// moveSeen moves Seen to the latest of the clock, as far as it may move it since before, and what is proven.
func moveSeen(r *Record, before, clock, proven time.Time) {
	if latest := before.Add(maxClockStep); clock.After(latest) {
		clock = latest
	}
	for _, t := range []time.Time{clock, proven} {
		if t.After(r.Seen) {
			r.Seen = t.UTC()
		}
	}
}

// signersOf returns the same text for two releases that the same signers vouched for.
func signersOf(v Vouched) string {
	names := make([]string, len(v.Vouchers))
	for i, s := range v.Vouchers {
		names[i] = strings.Join([]string{s.KeyID, s.Issuer}, "\x00")
		if s.KeyID == "" { // the name of a key is arbitrary
			names[i] += "\x00" + s.Signer
		}
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
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
