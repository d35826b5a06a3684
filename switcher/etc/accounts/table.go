package accounts

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxTable bounds one user database in bytes. Large sites keep their users in LDAP.
const MaxTable = 16 << 20

// format describes one of the user databases: passwd(5), group(5), shadow(5), gshadow(5), subuid(5), subgid(5).
type format struct {
	fields  []string // their names in reports; the first is the key
	numeric []int    // fields that must be numbers in a well-formed line
	sets    []int    // fields that are comma-separated lists of users
	groups  bool     // keyed by group, not by user
	ranges  bool     // a name may have several lines
	root    string   // the line for root if no side has one
}

var formats = map[string]format{
	"passwd": {
		fields:  []string{"name", "password", "uid", "gid", "gecos", "home", "shell"},
		numeric: []int{2, 3},
		root:    "root:x:0:0:root:/root:/bin/sh",
	},
	"group": {
		fields:  []string{"name", "password", "gid", "members"},
		numeric: []int{2}, sets: []int{3}, groups: true,
		root: "root:x:0:",
	},
	"shadow": {
		fields: []string{"name", "password", "last change", "min", "max", "warn", "inactive", "expire", "flag"},
		root:   "root:*:::::::",
	},
	"gshadow": {
		fields: []string{"name", "password", "admins", "members"},
		sets:   []int{2, 3}, groups: true,
	},
	"subuid": {fields: []string{"name", "start", "count"}, numeric: []int{1, 2}, ranges: true},
	"subgid": {fields: []string{"name", "start", "count"}, numeric: []int{1, 2}, ranges: true},
}

// row is one line. Comments, NIS lines and lines that are not well formed have no fields; they are kept verbatim, and
// their key is their text.
type row struct {
	key    string
	fields []string
	text   string
}

func (r row) name() string { return r.fields[0] }

// Table is one database in its order. A nil table is a missing file.
type Table struct {
	rows  []row
	index map[string]int
}

// Tables are the user databases of one side, by file name.
type Tables map[string]*Table

func newTable() *Table { return &Table{index: map[string]int{}} }

// Parse returns the database with this file name; it cannot fail. A second line for a name counts as not well formed,
// because the C library never reads it.
func Parse(file string, content []byte) *Table {
	f := formats[file]
	t := newTable()
	seen := map[string]int{}
	for line := range bytes.Lines(content) {
		r := row{text: strings.TrimSuffix(string(line), "\n")}
		fields := strings.Split(r.text, ":")
		if wellFormed(f, fields) {
			r.key, r.fields = fields[0], fields
			if f.ranges {
				seen[fields[0]]++
				r.key = fmt.Sprintf("%s#%d", fields[0], seen[fields[0]])
			}
		}
		if _, twice := t.index[r.key]; twice || r.fields == nil {
			seen["\x00"+r.text]++
			r.key, r.fields = fmt.Sprintf("\x00%d\x00%s", seen["\x00"+r.text], r.text), nil
		}
		t.add(r)
	}
	return t
}

// wellFormed reports whether a line has the fields of its format.
func wellFormed(f format, fields []string) bool {
	if len(fields) != len(f.fields) || fields[0] == "" || strings.ContainsAny(fields[0][:1], "#+-\x00") {
		return false
	}
	for _, i := range f.numeric {
		if _, ok := parseID(fields[i]); !ok {
			return false
		}
	}
	return true
}

// parseID reads a uid, a gid or a count. 4294967295 is not an id: to chown(2) it means "unchanged".
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && uint32(n) != ^uint32(0)
}

func formatID(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

func (t *Table) add(r row) {
	t.index[r.key] = len(t.rows)
	t.rows = append(t.rows, r)
}

func (t *Table) all() []row {
	if t == nil {
		return nil
	}
	return t.rows
}

func (t *Table) get(key string) (row, bool) {
	if t == nil {
		return row{}, false
	}
	i, ok := t.index[key]
	if !ok {
		return row{}, false
	}
	return t.rows[i], true
}

// put replaces the fields of an existing row.
func (t *Table) put(key string, fields []string) {
	t.rows[t.index[key]] = row{key, fields, strings.Join(fields, ":")}
}

func (t *Table) keys() []string {
	var keys []string
	for _, r := range t.all() {
		keys = append(keys, r.key)
	}
	return keys
}

// filter returns a copy with the rows that pass.
func (t *Table) filter(pass func(row) bool) *Table {
	if t == nil {
		return nil
	}
	out := newTable()
	for _, r := range t.rows {
		if pass(r) {
			out.add(r)
		}
	}
	return out
}

func (t *Table) clone() *Table { return t.filter(func(row) bool { return true }) }

// numbered is a name with its uid or gid.
type numbered struct {
	name string
	id   uint32
}

// numbers returns the names and ids in a passwd or group table, in its order.
func (t *Table) numbers() []numbered {
	var out []numbered
	for _, r := range t.all() {
		if r.fields != nil {
			id, _ := parseID(r.fields[2]) // checked by wellFormed
			out = append(out, numbered{r.name(), id})
		}
	}
	return out
}

// named returns the first name with a number, which is written in digits.
func (t *Table) named(number string) (string, bool) {
	for _, r := range t.all() {
		if r.fields != nil && r.fields[2] == number {
			return r.name(), true
		}
	}
	return "", false
}

// Bytes returns the content of the file; every line ends with a newline.
func (t *Table) Bytes() []byte {
	var out bytes.Buffer
	for _, r := range t.all() {
		out.WriteString(r.text + "\n")
	}
	return out.Bytes()
}

// splitSet returns the members in a list.
func splitSet(field string) []string {
	return slices.DeleteFunc(strings.Split(field, ","), func(m string) bool { return m == "" })
}

// without returns a copy in which the given users are members of no group.
func (t *Table) without(f format, users map[string]bool) *Table {
	out := t.clone()
	for _, r := range t.all() {
		if r.fields == nil {
			continue
		}
		for _, i := range f.sets {
			members := splitSet(r.fields[i])
			kept := slices.DeleteFunc(slices.Clone(members), func(m string) bool { return users[m] })
			if len(kept) == len(members) {
				continue
			}
			now, _ := out.get(r.key)
			fields := slices.Clone(now.fields)
			fields[i] = strings.Join(kept, ",")
			out.put(r.key, fields)
		}
	}
	return out
}
