package accounts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// Owners are the numbers that own the files kept from the host.
type Owners struct{ UIDs, GIDs map[uint32]bool }

// userMerge merges the user databases entry by entry. All three sides already have this host's numbers, so a name has
// the same number on each of them.
type userMerge struct {
	old, cur, next table.Tables
	users, groups  map[string]bool // the names in the result
	adopting       bool            // the host had no image before, so old is invented
	people         People
	rep            *Remarks
}

// Merge returns the databases of the next root. It decides first, from passwd and group, which users and groups exist;
// the other databases follow. A missing table in the result is a missing file.
func (r Renumbered) Merge(used Owners, rep *Remarks) table.Tables {
	m := &userMerge{old: r.Old, cur: r.Current, next: r.Next, adopting: r.Adopting, people: r.People, rep: rep}
	newMember := m.newMembers()
	m.users = m.decideNames("user", "passwd", "shadow", func(r table.Row) (string, bool) {
		id, _ := table.ParseID(r.Fields[2])
		switch {
		case m.people.isUser(id):
			return "people stay", true
		case used.UIDs[id]:
			return "files kept from here belong to it", true
		case newMember[r.Name()]:
			return "it was added to a group here", true
		}
		return "", false
	})
	primary := m.primaryGroups()
	m.groups = m.decideNames("group", "group", "gshadow", func(r table.Row) (string, bool) {
		id, _ := table.ParseID(r.Fields[2])
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

	out := table.Tables{}
	for _, file := range table.Files {
		out[file] = m.table(file)
	}
	for _, file := range []string{"subuid", "subgid"} {
		m.separate(file, out[file])
	}
	return out
}

// newMembers returns the users that were added to a group on this host.
func (m *userMerge) newMembers() map[string]bool {
	added := map[string]bool{}
	for _, c := range m.cur["group"].Rows() {
		if c.Fields == nil {
			continue
		}
		var before []string
		if o, ok := m.old["group"].Get(c.Key); ok {
			before = table.SplitSet(o.Fields[3])
		}
		for _, member := range table.SplitSet(c.Fields[3]) {
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
		r, ok := m.cur["passwd"].Get(name)
		if !ok {
			if r, ok = m.next["passwd"].Get(name); !ok {
				continue
			}
		}
		id, _ := table.ParseID(r.Fields[3])
		gids[id] = true
	}
	return gids
}

// decideNames returns the names of a database that are in the result. stays returns why an unchanged entry is kept that
// the image has dropped.
func (m *userMerge) decideNames(kind, file, companion string, stays func(table.Row) (string, bool)) map[string]bool {
	result := map[string]bool{"root": true}
	for _, key := range table.Keys(m.old[file], m.cur[file], m.next[file]) {
		o, inO := m.old[file].Get(key)
		c, inC := m.cur[file].Get(key)
		x, inX := m.next[file].Get(key)
		if r := slices.IndexFunc([]table.Row{o, c, x}, func(r table.Row) bool { return r.Fields != nil }); r < 0 {
			continue // a comment or the like
		}
		keep := true
		switch {
		case key == "root", inC && inX, inC && !inO, inX && !inO:
		case inX:
			keep = false
			if x.Text != o.Text {
				m.rep.conflict(file, fmt.Sprintf("%s %s: deleted here and changed by the image; stays deleted", kind, key))
			}
		case m.adopting && (c.Text != o.Text || m.companionChanged(companion, key)):
			m.rep.note(fmt.Sprintf("%s: %s %s is not in the image; kept, people here are in it", file, kind, key))
		case c.Text != o.Text || m.companionChanged(companion, key):
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
func (m *userMerge) noteDropped(kind, file string, c table.Row, why string) {
	switch {
	case why != "":
		m.rep.note(fmt.Sprintf("%s: %s %s is not in the image; kept, %s", file, kind, c.Name(), why))
	case m.adopting && file == "passwd":
		m.rep.LeftUsers = append(m.rep.LeftUsers, accountOf(c))
	case m.adopting:
		m.rep.LeftGroups = append(m.rep.LeftGroups, accountOf(c))
	default:
		m.rep.note(fmt.Sprintf("%s: %s %s is not in the image any more; removed, and its number %s is not assigned again",
			file, kind, c.Name(), c.Fields[2]))
	}
}

// companionChanged reports whether a name has a local change in shadow or gshadow. The date of the last password change
// alone does not count: image builds set it.
func (m *userMerge) companionChanged(file, key string) bool {
	c, inC := m.cur[file].Get(key)
	o, inO := m.old[file].Get(key)
	if !inC || !inO {
		return inC
	}
	for i := range c.Fields {
		if c.Fields[i] != o.Fields[i] && (file != "shadow" || i != table.ShadowLastChange) {
			return true
		}
	}
	return false
}

// table returns a merged database, nil when it is not in the result.
func (m *userMerge) table(file string) *table.Table {
	f := table.Formats[file]
	o, c, x := m.old[file], m.cur[file], m.next[file]
	if c == nil && x == nil {
		return nil
	}
	out := table.New()
	for _, key := range mergedOrder(o, c, x) {
		if r, ok := m.row(file, f, key); ok {
			out.Add(r)
		}
	}
	if f.Root != "" && !out.Has("root") {
		rows := out.Rows()
		out = table.New()
		out.Add(table.NewRow("root", strings.Split(f.Root, ":")))
		for _, r := range rows {
			out.Add(r)
		}
		m.rep.note(file + ": no side had a line for root; added")
	}
	removed := x == nil && o != nil || c == nil && o != nil // by one side
	if removed && len(out.Rows()) == 0 {
		return nil
	}
	return out
}

// row returns a merged line, and whether it is in the result.
func (m *userMerge) row(file string, f table.Format, key string) (table.Row, bool) {
	o, inO := m.old[file].Get(key)
	c, inC := m.cur[file].Get(key)
	x, inX := m.next[file].Get(key)
	if !m.rowStays(file, f, key, o, c, x, inO, inC, inX) {
		return table.Row{}, false
	}
	r := o // for root, whose line may be in the old image only
	switch {
	case inC && inX && c.Fields != nil:
		var clashes []string
		r.Fields, clashes = table.MergeFields(file, f, o, c, x)
		if len(clashes) > 0 {
			m.rep.conflict(file, fmt.Sprintf("%s: %s changed here and by the image; the local one is kept",
				c.Name(), strings.Join(clashes, ", ")))
		}
	case inC:
		r = c
	case inX:
		r = x
	}
	if r.Fields == nil {
		m.noteVerbatim(file, r)
		return r, inC || inX
	}
	fields := slices.Clone(r.Fields)
	for _, i := range f.Sets {
		var local string
		if inC {
			local = c.Fields[i]
		}
		fields[i] = m.pruneMembers(fields[i], table.SplitSet(local))
	}
	return table.NewRow(key, fields), true
}

// noteVerbatim reports a line that is kept although it cannot be parsed. It quotes only the name: the rest may be a
// password hash.
func (m *userMerge) noteVerbatim(file string, r table.Row) {
	if strings.TrimSpace(r.Text) == "" || strings.ContainsAny(r.Text[:1], "#+-") {
		return
	}
	name, _, found := strings.Cut(r.Text, ":")
	if !found {
		name = "(no field)"
	}
	m.rep.note(fmt.Sprintf("%s: a line for %.32q is not well formed, or is the second one; kept as it is", file, name))
}

// rowStays reports whether a line is in the result.
func (m *userMerge) rowStays(file string, f table.Format, key string, o, c, x table.Row, inO, inC, inX bool) bool {
	threeWay := inC && (inX || !inO || c.Text != o.Text) || !inC && inX && !inO
	base, result := "passwd", m.users
	if f.Groups {
		base, result = "group", m.groups
	}
	var name string
	for _, r := range []table.Row{o, c, x} {
		if r.Fields != nil {
			name = r.Name()
		}
	}
	inCur, inNext := m.cur[base].Has(name), m.next[base].Has(name)
	switch {
	case name == "":
		return threeWay
	case key == "root":
		return true
	case file == base:
		return result[name]
	case !inCur && !inNext && !m.old[base].Has(name): // a leftover line, or a person in LDAP
		return threeWay
	case !result[name]:
		return false
	case f.Ranges:
		return threeWay || inC && !inNext
	default:
		return inC || inX && (!inO || !inCur)
	}
}

// pruneMembers removes the members whose users this merge removed. A name that no passwd has is a user from elsewhere,
// such as LDAP, and stays.
func (m *userMerge) pruneMembers(field string, local []string) string {
	members := table.SplitSet(field)
	kept := slices.DeleteFunc(slices.Clone(members), func(name string) bool {
		if m.users[name] {
			return false
		}
		return m.cur["passwd"].Has(name) || m.next["passwd"].Has(name) && !slices.Contains(local, name)
	})
	if len(kept) == len(members) {
		return field
	}
	return strings.Join(kept, ",")
}

// mergedOrder returns the keys of a merged database in order: the host's order, or the image's if the host did not
// change the list. New entries follow the last entry, before a closing NIS "+".
func mergedOrder(o, c, x *table.Table) []string {
	base, extra := c, x
	if slices.Equal(c.Keys(), o.Keys()) {
		base, extra = x, c
	}
	end := 0
	for i, r := range base.Rows() {
		if r.Fields != nil {
			end = i + 1
		}
	}
	keys := base.Keys()
	var more, tail []string
	for _, r := range extra.Rows() {
		if base.Has(r.Key) {
			continue
		}
		if r.Fields == nil {
			tail = append(tail, r.Key)
		} else {
			more = append(more, r.Key)
		}
	}
	if r, ok := o.Get("root"); ok && !c.Has(r.Key) && !x.Has(r.Key) {
		more = append(more, r.Key)
	}
	return slices.Concat(keys[:end], more, keys[end:], tail)
}

// firstSubID is the first subordinate id that useradd(8) assigns.
const firstSubID = 100000

// separate moves a range that only the image has, if it overlaps one that another user has here: two users with one
// range could control each other's containers.
func (m *userMerge) separate(file string, t *table.Table) {
	end := uint64(firstSubID)
	for _, side := range []*table.Table{m.old[file], m.cur[file], m.next[file], t} {
		for _, r := range side.Rows() {
			if start, count := span(r); r.Fields != nil && start+count > end {
				end = start + count
			}
		}
	}
	for _, r := range t.Rows() {
		if r.Fields == nil || m.cur[file].Has(r.Key) || !overlaps(m.cur[file], t, r) {
			continue
		}
		start, count := span(r)
		if end+count > 1<<32-1 {
			m.rep.conflict(file, fmt.Sprintf("%s: the image's range %d is in use here and no other is left; dropped",
				r.Name(), start))
			t.Comment(r.Key, "# updatectl: no free range: "+r.Text)
			continue
		}
		m.rep.conflict(file, fmt.Sprintf("%s: the image's range %d is in use here; moved to %d", r.Name(), start, end))
		t.Put(r.Key, []string{r.Name(), strconv.FormatUint(end, 10), r.Fields[2]})
		end += count
	}
}

// span returns a range of subordinate ids, which Parse has checked; 0, 0 for a line without fields.
func span(r table.Row) (start, count uint64) {
	if r.Fields == nil {
		return 0, 0
	}
	s, _ := table.ParseID(r.Fields[1])
	n, _ := table.ParseID(r.Fields[2])
	return uint64(s), uint64(n)
}

// overlaps reports whether a range overlaps one that the host has and keeps.
func overlaps(host, result *table.Table, r table.Row) bool {
	start, count := span(r)
	for _, other := range result.Rows() {
		s, n := span(other)
		if host.Has(other.Key) && start < s+n && s < start+count {
			return true
		}
	}
	return false
}
