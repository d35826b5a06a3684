// Package accounts merges the user databases of a host: passwd, group, shadow, gshadow, subuid and subgid. It promises
// that a name keeps its number on this host, that no number gets a second owner, and that root is always there.
//
// The databases are merged by entry and field, like the rest of /etc from three sides: the old image's, the host's and
// the new image's. [Sides.Renumber] first gives all sides this host's numbers; [Renumbered.Merge] then decides which
// entries are in the result. A host that runs no image yet has no old side: [HostBase] invents it from what the
// accounts are for ([Access]). Lines that cannot be parsed are kept verbatim.
//
// Nothing here reads or writes a file.
package accounts

import "github.com/updatectl/updatectl/switcher/etc/accounts/table"

// Remarks are what a merge has to say about its decisions.
type Remarks struct {
	Conflicts []Conflict // decided, but an operator should look at them
	Notes     []string   // what else is worth knowing
	// Renumbered are the names of the image that have another number on this host, with both.
	Renumbered []string

	// LeftUsers and LeftGroups are all that a host root has, and its first image gets no entry of.
	LeftUsers, LeftGroups []Account
}

// Account is a user or a group with its number.
type Account struct {
	Name   string `json:"name"`
	Number uint32 `json:"number"`
}

// accountOf returns what a line of passwd or group is about.
func accountOf(r table.Row) Account {
	id, _ := table.ParseID(r.Fields[2]) // checked by wellFormed
	return Account{r.Name(), id}
}

// Conflict is a difference between host and image in one database.
type Conflict struct{ File, Reason string }

func (r *Remarks) conflict(file, reason string) {
	r.Conflicts = append(r.Conflicts, Conflict{file, reason})
}

func (r *Remarks) note(text string) { r.Notes = append(r.Notes, text) }
