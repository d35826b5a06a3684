package accounts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Owners are the numbers that own the files kept from the host.
type Owners struct{ UIDs, GIDs map[uint32]bool }

// userMerge merges the user databases entry by entry. All three sides already have this host's numbers, so a name has
// the same number on each of them.
type userMerge struct {
	old, cur, next Tables
	users, groups  map[string]bool // the names in the result
	adopting       bool            // the host had no image before, so old is invented
	people         People
	rep            *Remarks
}

// Merge returns the databases of the next root. It decides first, from passwd and group, which users and groups exist;
// the other databases follow. A missing table in the result is a missing file.
func (r Renumbered) Merge(used Owners, rep *Remarks) Tables {
	m := &userMerge{old: r.Old, cur: r.Current, next: r.Next, adopting: r.Adopting, people: r.People, rep: rep}
	newMember := m.newMembers()
	m.users = m.decideNames("user", "passwd", "shadow", func(r row) (string, bool) {
		id, _ := parseID(r.fields[2])
		switch {
		case m.people.isUser(id):
			return "people stay", true
		case used.UIDs[id]:
			return "files kept from here belong to it", true
		case newMember[r.name()]:
			return "it was added to a group here", true
		}
		return "", false
	})
	primary := m.primaryGroups()
	m.groups = m.decideNames("group", "group", "gshadow", func(r row) (string, bool) {
		id, _ := parseID(r.fields[2])
		switch {
		case m.people.isGroup(id):
			return "people's groups stay", true
		case used.GIDs[id]:
			return "files kept from here belong to it", true
		case primary[id]:
			return "it is the group of a user that stays", true
		}
		return "", false
	})

	out := Tables{}
	for _, file := range Files {
		out[file] = m.table(file)
	}
	for _, file := range []string{"subuid", "subgid"} {
		m.separate(file, out[file])
	}
	return out
}

// Files are the names of the user databases in /etc, in the order in which they are merged.
var Files = []string{"passwd", "group", "shadow", "gshadow", "subuid", "subgid"}

// newMembers returns the users that were added to a group on this host.
func (m *userMerge) newMembers() map[string]bool {
	added := map[string]bool{}
	for _, c := range m.cur["group"].all() {
		if c.fields == nil {
			continue
		}
		var before []string
		if o, ok := m.old["group"].get(c.key); ok {
			before = splitSet(o.fields[3])
		}
		for _, member := range splitSet(c.fields[3]) {
			if !slices.Contains(before, member) {
				added[member] = true
			}
		}
	}
	return added
}

// primaryGroups returns the gids of the users in the result.
func (m *userMerge) primaryGroups() map[uint32]bool {
	gids := map[uint32]bool{}
	for name := range m.users {
		r, ok := m.cur["passwd"].get(name)
		if !ok {
			if r, ok = m.next["passwd"].get(name); !ok {
				continue
			}
		}
		id, _ := parseID(r.fields[3])
		gids[id] = true
	}
	return gids
}

// decideNames returns the names of a database that are in the result. stays returns why an unchanged entry is kept that
// the image has dropped.
func (m *userMerge) decideNames(kind, file, companion string, stays func(row) (string, bool)) map[string]bool {
	result := map[string]bool{"root": true}
	for _, key := range union(m.old[file].keys(), m.cur[file].keys(), m.next[file].keys()) {
		o, inO := m.old[file].get(key)
		c, inC := m.cur[file].get(key)
		x, inX := m.next[file].get(key)
		if r := slices.IndexFunc([]row{o, c, x}, func(r row) bool { return r.fields != nil }); r < 0 {
			continue // a comment or the like
		}
		keep := true
		switch {
		case key == "root", inC && inX, inC && !inO, inX && !inO:
		case inX:
			keep = false
			if x.text != o.text {
				m.rep.conflict(file, fmt.Sprintf("%s %s: deleted here and changed by the image; stays deleted", kind, key))
			}
		case m.adopting && (c.text != o.text || m.companionChanged(companion, key)):
			m.rep.note(fmt.Sprintf("%s: %s %s is not in the image; kept, people here are in it", file, kind, key))
		case c.text != o.text || m.companionChanged(companion, key):
			m.rep.conflict(file, fmt.Sprintf("%s %s: dropped by the image and changed here; kept", kind, key))
		default:
			var why string
			why, keep = stays(c)
			m.noteDropped(kind, file, c, why)
		}
		if keep {
			result[key] = true
		}
	}
	return result
}

// noteDropped reports what happens to an unchanged entry that the image has dropped: kept, with the reason why, or
// removed when why is "". What adopting leaves behind is listed.
func (m *userMerge) noteDropped(kind, file string, c row, why string) {
	switch {
	case why != "":
		m.rep.note(fmt.Sprintf("%s: %s %s is not in the image; kept, %s", file, kind, c.name(), why))
	case m.adopting && file == "passwd":
		m.rep.LeftUsers = append(m.rep.LeftUsers, accountOf(c))
	case m.adopting:
		m.rep.LeftGroups = append(m.rep.LeftGroups, accountOf(c))
	default:
		m.rep.note(fmt.Sprintf("%s: %s %s is not in the image any more; removed, and its number %s is not assigned again",
			file, kind, c.name(), c.fields[2]))
	}
}

// companionChanged reports whether a name has a local change in shadow or gshadow. The date of the last password change
// alone does not count: image builds set it.
func (m *userMerge) companionChanged(file, key string) bool {
	c, inC := m.cur[file].get(key)
	o, inO := m.old[file].get(key)
	if !inC || !inO {
		return inC
	}
	for i := range c.fields {
		if c.fields[i] != o.fields[i] && (file != "shadow" || i != shadowLastChange) {
			return true
		}
	}
	return false
}

// table returns a merged database, nil when it is not in the result.
func (m *userMerge) table(file string) *Table {
	f := formats[file]
	o, c, x := m.old[file], m.cur[file], m.next[file]
	if c == nil && x == nil {
		return nil
	}
	out := newTable()
	for _, key := range mergedOrder(o, c, x) {
		if r, ok := m.row(file, f, key); ok {
			out.add(r)
		}
	}
	if f.root != "" && !inTable(out, "root") {
		rows := out.rows
		out = newTable()
		out.add(row{"root", strings.Split(f.root, ":"), f.root})
		for _, r := range rows {
			out.add(r)
		}
		m.rep.note(file + ": no side had a line for root; added")
	}
	removed := x == nil && o != nil || c == nil && o != nil // by one side
	if removed && len(out.rows) == 0 {
		return nil
	}
	return out
}

// row returns a merged line, and whether it is in the result.
func (m *userMerge) row(file string, f format, key string) (row, bool) {
	o, inO := m.old[file].get(key)
	c, inC := m.cur[file].get(key)
	x, inX := m.next[file].get(key)
	if !m.rowStays(file, f, key, o, c, x, inO, inC, inX) {
		return row{}, false
	}
	r := o // for root, whose line may be in the old image only
	switch {
	case inC && inX && c.fields != nil:
		var clashes []string
		r.fields, clashes = mergeFields(file, f, o, c, x)
		if len(clashes) > 0 {
			m.rep.conflict(file, fmt.Sprintf("%s: %s changed here and by the image; the local one is kept",
				c.name(), strings.Join(clashes, ", ")))
		}
	case inC:
		r = c
	case inX:
		r = x
	}
	if r.fields == nil {
		m.noteVerbatim(file, r)
		return r, inC || inX
	}
	fields := slices.Clone(r.fields)
	for _, i := range f.sets {
		var local string
		if inC {
			local = c.fields[i]
		}
		fields[i] = m.pruneMembers(fields[i], splitSet(local))
	}
	return row{key, fields, strings.Join(fields, ":")}, true
}

// noteVerbatim reports a line that is kept although it cannot be parsed. It quotes only the name: the rest may be a
// password hash.
func (m *userMerge) noteVerbatim(file string, r row) {
	if strings.TrimSpace(r.text) == "" || strings.ContainsAny(r.text[:1], "#+-") {
		return
	}
	name, _, found := strings.Cut(r.text, ":")
	if !found {
		name = "(no field)"
	}
	m.rep.note(fmt.Sprintf("%s: a line for %.32q is not well formed, or is the second one; kept as it is", file, name))
}

// rowStays reports whether a line is in the result.
func (m *userMerge) rowStays(file string, f format, key string, o, c, x row, inO, inC, inX bool) bool {
	threeWay := inC && (inX || !inO || c.text != o.text) || !inC && inX && !inO
	base, result := "passwd", m.users
	if f.groups {
		base, result = "group", m.groups
	}
	var name string
	for _, r := range []row{o, c, x} {
		if r.fields != nil {
			name = r.name()
		}
	}
	inCur, inNext := inTable(m.cur[base], name), inTable(m.next[base], name)
	switch {
	case name == "":
		return threeWay
	case key == "root":
		return true
	case file == base:
		return result[name]
	case !inCur && !inNext && !inTable(m.old[base], name): // a leftover line, or a person in LDAP
		return threeWay
	case !result[name]:
		return false
	case f.ranges:
		return threeWay || inC && !inNext
	default:
		return inC || inX && (!inO || !inCur)
	}
}

// The fields of shadow(5) with rules of their own.
const (
	shadowPassword   = 1
	shadowLastChange = 2
)

// mergeFields merges an entry that both sides have. clashes names the fields that both changed differently.
func mergeFields(file string, f format, o, c, x row) (fields, clashes []string) {
	if f.ranges {
		if o.text == c.text {
			return x.fields, nil
		}
		if c.text != x.text && o.text != x.text {
			clashes = []string{"range"}
		}
		return c.fields, clashes
	}
	fields = slices.Clone(c.fields)
	for i := range fields {
		base, hasBase := "", o.fields != nil
		if hasBase {
			base = o.fields[i]
		}
		switch {
		case slices.Contains(f.sets, i):
			fields[i] = mergeSet(base, c.fields[i], x.fields[i])
		case hasBase && c.fields[i] == base:
			fields[i] = x.fields[i]
		case c.fields[i] == x.fields[i], hasBase && x.fields[i] == base:
		case file == "shadow" && i == shadowLastChange: // decided below
		default:
			clashes = append(clashes, f.fields[i])
		}
	}
	if file == "shadow" && fields[shadowPassword] != x.fields[shadowPassword] {
		fields[shadowLastChange] = c.fields[shadowLastChange] // a date goes with its password
	}
	return fields, clashes
}

// mergeSet merges lists of members: a member that either side added is in, one that either side removed is out.
func mergeSet(old, cur, next string) string {
	if cur == old {
		return next
	}
	if next == old {
		return cur
	}
	o, x := splitSet(old), splitSet(next)
	var out []string
	for _, m := range splitSet(cur) {
		if slices.Contains(x, m) || !slices.Contains(o, m) {
			out = append(out, m)
		}
	}
	for _, m := range x {
		if !slices.Contains(o, m) && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return strings.Join(out, ",")
}

// pruneMembers removes the members whose users this merge removed. A name that no passwd has is a user from elsewhere,
// such as LDAP, and stays.
func (m *userMerge) pruneMembers(field string, local []string) string {
	members := splitSet(field)
	kept := slices.DeleteFunc(slices.Clone(members), func(name string) bool {
		if m.users[name] {
			return false
		}
		return inTable(m.cur["passwd"], name) || inTable(m.next["passwd"], name) && !slices.Contains(local, name)
	})
	if len(kept) == len(members) {
		return field
	}
	return strings.Join(kept, ",")
}

// mergedOrder returns the keys of a merged database in order: the host's order, or the image's if the host did not
// change the list. New entries follow the last entry, before a closing NIS "+".
func mergedOrder(o, c, x *Table) []string {
	base, extra := c, x
	if slices.Equal(c.keys(), o.keys()) {
		base, extra = x, c
	}
	end := 0
	for i, r := range base.all() {
		if r.fields != nil {
			end = i + 1
		}
	}
	keys := base.keys()
	var more, tail []string
	for _, r := range extra.all() {
		if inTable(base, r.key) {
			continue
		}
		if r.fields == nil {
			tail = append(tail, r.key)
		} else {
			more = append(more, r.key)
		}
	}
	if r, ok := o.get("root"); ok && !inTable(c, r.key) && !inTable(x, r.key) {
		more = append(more, r.key)
	}
	return slices.Concat(keys[:end], more, keys[end:], tail)
}

// union returns the keys of several lists, each once, in the order of their first appearance.
func union(lists ...[]string) []string {
	seen := map[string]bool{}
	var out []string
	for _, list := range lists {
		for _, k := range list {
			if !seen[k] {
				seen[k] = true
				out = append(out, k)
			}
		}
	}
	return out
}

// firstSubID is the first subordinate id that useradd(8) assigns.
const firstSubID = 100000

// separate moves a range that only the image has, if it overlaps one that another user has here: two users with one
// range could control each other's containers.
func (m *userMerge) separate(file string, t *Table) {
	end := uint64(firstSubID)
	for _, side := range []*Table{m.old[file], m.cur[file], m.next[file], t} {
		for _, r := range side.all() {
			if start, count := span(r); r.fields != nil && start+count > end {
				end = start + count
			}
		}
	}
	for _, r := range t.all() {
		if r.fields == nil || inTable(m.cur[file], r.key) || !overlaps(m.cur[file], t, r) {
			continue
		}
		start, count := span(r)
		if end+count > 1<<32-1 {
			m.rep.conflict(file, fmt.Sprintf("%s: the image's range %d is in use here and no other is left; dropped",
				r.name(), start))
			t.rows[t.index[r.key]].text = "# updatectl: no free range: " + r.text
			continue
		}
		m.rep.conflict(file, fmt.Sprintf("%s: the image's range %d is in use here; moved to %d", r.name(), start, end))
		t.put(r.key, []string{r.name(), strconv.FormatUint(end, 10), r.fields[2]})
		end += count
	}
}

// span returns a range of subordinate ids, which Parse has checked; 0, 0 for a line without fields.
func span(r row) (start, count uint64) {
	if r.fields == nil {
		return 0, 0
	}
	s, _ := parseID(r.fields[1])
	n, _ := parseID(r.fields[2])
	return uint64(s), uint64(n)
}

// overlaps reports whether a range overlaps one that the host has and keeps.
func overlaps(host, result *Table, r row) bool {
	start, count := span(r)
	for _, other := range result.rows {
		s, n := span(other)
		if inTable(host, other.key) && start < s+n && s < start+count {
			return true
		}
	}
	return false
}
