// Package numbers says which number a file of an image has on this host: that of the same name. It promises that no
// file is shown as another name's.
package numbers

import "github.com/updatectl/updatectl/switcher/etc/accounts/table"

// ByName is the number that each user, or each group, has on this host from now on.
type ByName map[string]uint32

// Translate returns the map from the numbers in a table to this host's, by name.
func (n ByName) Translate(t *table.Table) map[uint32]uint32 {
	m := map[uint32]uint32{}
	for _, e := range t.Numbers() {
		if _, ok := m[e.ID]; ok {
			continue // of several names with one number, the first counts
		}
		if id, ok := n[e.Name]; ok {
			m[e.ID] = id
		}
	}
	return m
}

// IDs maps the numbers of one side to this host's. What is not in it stays as it is.
type IDs struct{ UIDs, GIDs map[uint32]uint32 }

// Map returns the numbers of an owner on this host.
func (i IDs) Map(uid, gid uint32) (uint32, uint32) { return mapped(i.UIDs, uid), mapped(i.GIDs, gid) }

// Of returns the map for one side.
func Of(t table.Tables, users, groups ByName) IDs {
	return IDs{users.Translate(t["passwd"]), groups.Translate(t["group"])}
}

// Translate maps the uids and gids in the databases of an image to those of the same names in the host's. Names that
// the host does not have are left out.
func Translate(image, host table.Tables) IDs {
	names := func(t *table.Table) ByName {
		n := ByName{}
		for _, e := range t.Numbers() {
			n[e.Name] = e.ID
		}
		return n
	}
	return Of(image, names(host["passwd"]), names(host["group"]))
}

func mapped(m map[uint32]uint32, id uint32) uint32 {
	if to, ok := m[id]; ok {
		return to
	}
	return id
}
