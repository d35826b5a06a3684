package accounts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Change is what became of an entry in a user database while roots ran here: the line it had first, and the line it has
// now. An empty line is none.
type Change struct {
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Made means that the entry was added or deleted at some time, not only changed: a root that lacks it gets it.
	Made bool `json:"made,omitempty"`
}

// Journal has what was changed in the user databases of this host, by database and entry. Root after root, the changes
// of each one that is left are added ([Journal.Add]). A root whose databases are older gets them all when it is rolled
// back to ([Journal.Replay]): the newest change wins, and what was deleted stays deleted.
type Journal map[string]map[string]Change

// Add adds what was changed in a root between its arrival and now. Lines that cannot be parsed are left out. It adds
// nothing if one of the databases has lost its line for root: then it is damaged, and nobody deleted all these users or
// their passwords.
func (j Journal) Add(before, now Tables) {
	for _, file := range Files {
		base := file == "passwd" || file == "group"
		lost := now[file] != nil && inTable(before[file], "root")
		if (base || lost) && !inTable(now[file], "root") {
			return
		}
	}
	for _, file := range Files {
		if before[file] == nil || now[file] == nil {
			continue
		}
		for _, key := range union(before[file].keys(), now[file].keys()) {
			o, hadIt := before[file].get(key)
			c, hasIt := now[file].get(key)
			if o.text == c.text || o.fields == nil && c.fields == nil {
				continue
			}
			change, known := j[file][key]
			if !known {
				change.Old = o.text
			}
			change.New, change.Made = c.text, change.Made || hadIt != hasIt
			if j[file] == nil {
				j[file] = map[string]Change{}
			}
			j[file][key] = change
		}
	}
}

// Replay returns databases with all changes in the journal. Notes say what cannot be carried over: a new name whose
// number another one has there.
func (j Journal) Replay(to Tables) (out Tables, notes []string) {
	out = Tables{}
	for file, t := range to {
		out[file] = t.clone()
	}
	refused := map[string]bool{} // users and groups that do not come, by database and name
	for _, file := range Files {
		f, t := formats[file], out[file]
		if t == nil {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(j[file])) { // deletions first: they may free a number
			if j[file][key].New == "" && key != "root" {
				out[file] = out[file].filter(func(r row) bool { return r.key != key })
			}
		}
		for _, key := range slices.Sorted(maps.Keys(j[file])) {
			c := j[file][key]
			base := "passwd"
			if f.groups {
				base = "group"
			}
			name, _, _ := strings.Cut(c.New, ":")
			if c.New == "" || refused[base+":"+name] || !c.Made && !inTable(out[file], key) {
				continue
			}
			if note := out[file].change(file, f, key, c); note != "" {
				refused[base+":"+name] = true
				notes = append(notes, note)
			}
		}
	}
	return out, notes
}

// change gives an entry the fields that were changed, or adds it. A note says why it cannot be.
func (t *Table) change(file string, f format, key string, c Change) (note string) {
	parse := func(line string) row {
		r, _ := Parse(file, []byte(line+"\n")).get(firstKey(f, key))
		return r
	}
	o, now := parse(c.Old), parse(c.New)
	x, there := t.get(key)
	fields := now.fields
	if there && x.fields != nil {
		fields, _ = mergeFields(file, f, o, now, x)
	}
	if fields == nil {
		return ""
	}
	if len(f.numeric) > 0 && !f.ranges {
		if owner, taken := t.named(fields[2]); taken && owner != key && (!there || x.fields[2] != fields[2]) {
			return fmt.Sprintf("%s: %s (%s) is left out, %s has that number there", file, key, fields[2], owner)
		}
	}
	if there {
		t.put(key, fields)
		return ""
	}
	t.insert(row{key, fields, strings.Join(fields, ":")})
	return ""
}

// firstKey returns the key that the line of an entry has if it is the first of its name, see [Parse].
func firstKey(f format, key string) string {
	if !f.ranges {
		return key
	}
	return key[:strings.LastIndexByte(key, '#')] + "#1"
}

// insert adds a row after the last entry, before a closing NIS "+".
func (t *Table) insert(r row) {
	end := 0
	for i, have := range t.rows {
		if have.fields != nil {
			end = i + 1
		}
	}
	rows := slices.Insert(slices.Clone(t.rows), end, r)
	t.rows, t.index = nil, map[string]int{}
	for _, r := range rows {
		t.add(r)
	}
}
