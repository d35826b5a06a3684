// Package journal has what was changed in the user databases of a host, root after root, and brings those of an older
// root up to date.
package journal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// Change is what became of an entry in a user database while roots ran here: the line it had first, and the line it has
// now. An empty line is none.
type Change struct {
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Made means that the entry was added or deleted at some time, not only changed: a root that lacks it gets it.
	Made bool `json:"made,omitempty"`
}

// plainChange is a Change without methods.
type plainChange Change

// storedChange is a Change in JSON, in which a line is text. One that is not UTF-8, such as a name of a person in
// Latin-1, is there as bytes, too.
type storedChange struct {
	plainChange
	OldBytes []byte `json:"old_bytes,omitempty"`
	NewBytes []byte `json:"new_bytes,omitempty"`
}

// MarshalJSON returns the change as JSON.
func (c Change) MarshalJSON() ([]byte, error) {
	s := storedChange{plainChange: plainChange(c)}
	if !utf8.ValidString(c.Old) {
		s.OldBytes = []byte(c.Old)
	}
	if !utf8.ValidString(c.New) {
		s.NewBytes = []byte(c.New)
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads a change from JSON.
func (c *Change) UnmarshalJSON(text []byte) error {
	var s storedChange
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	*c = Change(s.plainChange)
	c.Old, c.New = cmp.Or(string(s.OldBytes), c.Old), cmp.Or(string(s.NewBytes), c.New)
	return nil
}

// Journal has what was changed in the user databases of this host, by database and entry. Root after root, the changes
// of each one that is left are added ([Journal.Add]). A root whose databases are older gets them all when it is rolled
// back to ([Journal.Replay]): the newest change wins, and what was deleted stays deleted.
type Journal map[string]map[string]Change

// Add adds what was changed in a root between its arrival and now. Lines that cannot be parsed are left out. It adds
// nothing if one of the databases has lost its line for root: then it is damaged, and nobody deleted all these users or
// their passwords.
func (j Journal) Add(before, now table.Tables) {
	for _, file := range table.Files {
		base := file == "passwd" || file == "group"
		lost := now[file] != nil && before[file].Has("root")
		if (base || lost) && !now[file].Has("root") {
			return
		}
	}
	for _, file := range table.Files {
		if before[file] == nil || now[file] == nil {
			continue
		}
		for _, key := range table.Keys(before[file], now[file]) {
			o, hadIt := before[file].Get(key)
			c, hasIt := now[file].Get(key)
			if o.Text == c.Text || o.Fields == nil && c.Fields == nil {
				continue
			}
			change, known := j[file][key]
			if !known {
				change.Old = o.Text
			}
			change.New, change.Made = c.Text, change.Made || hadIt != hasIt
			if j[file] == nil {
				j[file] = map[string]Change{}
			}
			j[file][key] = change
		}
	}
}

// Replay returns databases with all changes in the journal. Notes say what cannot be carried over: a new name whose
// number another one has there.
func (j Journal) Replay(to table.Tables) (out table.Tables, notes []string) {
	out = table.Tables{}
	for file, t := range to {
		out[file] = t.Clone()
	}
	refused := map[string]bool{} // users and groups that do not come, by database and name
	for _, file := range table.Files {
		f, t := table.Formats[file], out[file]
		if t == nil {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(j[file])) { // deletions first: they may free a number
			if j[file][key].New == "" && key != "root" {
				out[file] = out[file].Filter(func(r table.Row) bool { return r.Key != key })
			}
		}
		for _, key := range slices.Sorted(maps.Keys(j[file])) {
			c := j[file][key]
			base := "passwd"
			if f.Groups {
				base = "group"
			}
			name, _, _ := strings.Cut(c.New, ":")
			if c.New == "" || refused[base+":"+name] || !c.Made && !out[file].Has(key) {
				continue
			}
			if note := change(out[file], file, f, key, c); note != "" {
				refused[base+":"+name] = true
				notes = append(notes, note)
			}
		}
	}
	return out, notes
}

// change gives an entry the fields that were changed, or adds it. A note says why it cannot be.
func change(t *table.Table, file string, f table.Format, key string, c Change) (note string) {
	parse := func(line string) table.Row {
		r, _ := table.Parse(file, []byte(line+"\n")).Get(firstKey(f, key))
		return r
	}
	o, now := parse(c.Old), parse(c.New)
	if now.Fields == nil { // a journal that is damaged
		return ""
	}
	x, there := t.Get(key)
	fields, number := now.Fields, ""
	if there && x.Fields != nil { // else it is a line with nothing but the name, which is damaged
		fields, _ = table.MergeFields(file, f, o, now, x)
		number = x.Fields[2]
	}
	if len(f.Numeric) > 0 && !f.Ranges {
		if owner, taken := t.Named(fields[2]); taken && owner != key && number != fields[2] {
			return fmt.Sprintf("%s: %s (%s) is left out, %s has that number there", file, key, fields[2], owner)
		}
	}
	if there {
		t.Put(key, fields)
		return ""
	}
	t.Insert(table.NewRow(key, fields))
	return ""
}

// firstKey returns the key that the line of an entry has if it is the first of its name, see [table.Parse].
func firstKey(f table.Format, key string) string {
	if at := strings.LastIndexByte(key, '#'); f.Ranges && at >= 0 {
		return key[:at] + "#1"
	}
	return key
}
