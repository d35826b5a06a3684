package numbers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// Owned is how many files of an image belong to one uid or gid, with the path of one of them.
type Owned struct {
	Files int
	Path  string
}

// FileOwners are the uids and gids that own files of an image, apart from those in /etc.
type FileOwners struct{ UIDs, GIDs map[uint32]Owned }

// Shown is an owner of files in the image that has another number on this host than in the image.
type Shown struct {
	Kind  string `json:"kind"` // "user" or "group"
	Name  string `json:"name,omitempty"`
	Image uint32 `json:"image"` // its number in the image
	Here  uint32 `json:"here"`  // the number that its files show on this host
	Files int    `json:"files"`
	Path  string `json:"path"` // of one of the files
	// Other is who has the image's number here, when no name of the image does.
	Other string `json:"other,omitempty"`
}

// Correction says which numbers the files of an image show on this host: those of the same names. A number that has no
// name in the image, or whose name is not on this host, keeps its number if nobody here has that. Otherwise its files
// are nobody's here.
type Correction struct {
	IDs     IDs     // of all numbers in use
	Shown   []Shown // by kind and name
	Refused []string
}

// The numbers of files that are nobody's here: those that systemd sets aside for files of other systems
// (systemd.io/UIDS-GIDS, the foreign range).
const (
	firstForeign = 2147352576
	foreignCount = 65536
)

// Correct returns how the files of an image with these databases are shown on a host with those. Two names that differ
// in the image and share a number here cannot be told apart: Refused says so, and the files of the second are nobody's.
func Correct(image, host table.Tables, used FileOwners) Correction {
	var c Correction
	c.IDs.UIDs = c.correct("user", image["passwd"], host["passwd"], used.UIDs)
	c.IDs.GIDs = c.correct("group", image["group"], host["group"], used.GIDs)
	slices.SortFunc(c.Shown, func(a, b Shown) int {
		return cmp.Or(-cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Image, b.Image))
	})
	return c
}

// correct decides the numbers of one kind.
func (c *Correction) correct(kind string, image, host *table.Table, used map[uint32]Owned) map[uint32]uint32 {
	ids, owner := map[uint32]uint32{0: 0}, map[uint32]string{0: "root"} // owner of what is shown already
	here := map[string]uint32{}
	nameHere := map[uint32]string{}
	for _, n := range slices.Backward(host.Numbers()) {
		here[n.Name], nameHere[n.ID] = n.ID, n.Name
	}
	var strangers []Shown
	for _, number := range slices.Sorted(maps.Keys(used)) {
		if number == 0 {
			continue
		}
		s := Shown{Kind: kind, Image: number, Files: used[number].Files, Path: used[number].Path}
		var known bool
		s.Name, s.Here, known = nameOf(image, number, here)
		if by, taken := owner[s.Here]; known && taken {
			c.Refused = append(c.Refused, fmt.Sprintf("%s belongs to the %s %s (%d), which has %d here, like %s",
				s.Path, kind, s.Name, number, s.Here, by))
			known = false
		}
		if !known {
			strangers = append(strangers, s)
			continue
		}
		ids[number], owner[s.Here] = s.Here, s.Name
		if s.Here != number {
			c.Shown = append(c.Shown, s)
		}
	}
	for _, s := range strangers {
		other, named := nameHere[s.Image]
		if _, taken := owner[s.Image]; !taken && !named {
			ids[s.Image], owner[s.Image] = s.Image, s.Name
			continue
		}
		s.Other = other
		for i := range uint32(foreignCount) {
			s.Here = firstForeign + (s.Image+i)%foreignCount
			_, taken := owner[s.Here]
			if _, named := nameHere[s.Here]; !taken && !named {
				break
			}
		}
		ids[s.Image], owner[s.Here] = s.Here, s.Name
		c.Shown = append(c.Shown, s)
	}
	return ids
}

// nameOf returns the first name of a number in the image that the host has, too, and its number here. If the host has
// none of them, known is false.
func nameOf(image *table.Table, number uint32, here map[string]uint32) (name string, id uint32, known bool) {
	for _, n := range image.Numbers() {
		if n.ID != number {
			continue
		}
		if id, known := here[n.Name]; known {
			return n.Name, id, true
		}
		name = cmp.Or(name, n.Name)
	}
	return name, 0, false
}
