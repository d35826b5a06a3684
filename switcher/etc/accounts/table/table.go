// Package table reads and changes the lines of one user database: passwd, group, shadow, gshadow, subuid or subgid. It
// promises that a line which cannot be parsed is kept verbatim. It reads and writes no file.
package table

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Files are the names of the user databases in /etc, in the order in which they are merged.
var Files = []string{"passwd", "group", "shadow", "gshadow", "subuid", "subgid"}

// Max bounds one user database in bytes. Large sites keep their users in LDAP.
const Max = 16 << 20

// Format describes one of the user databases: passwd(5), group(5), shadow(5), gshadow(5), subuid(5), subgid(5).
type Format struct {
	Fields  []string // their names in reports; the first is the key
	Numeric []int    // Fields that must be numbers in a well-formed line
	Sets    []int    // Fields that are comma-separated lists of users
	Groups  bool     // keyed by group, not by user
	Ranges  bool     // a name may have several lines
	Root    string   // the line for root if no side has one
}

var Formats = map[string]Format{
	"passwd": {
		Fields:  []string{"name", "password", "uid", "gid", "gecos", "home", "shell"},
		Numeric: []int{2, 3},
		Root:    "root:x:0:0:root:/root:/bin/sh",
	},
	"group": {
		Fields:  []string{"name", "password", "gid", "members"},
		Numeric: []int{2}, Sets: []int{3}, Groups: true,
		Root: "root:x:0:",
	},
	"shadow": {
		Fields: []string{"name", "password", "last change", "min", "max", "warn", "inactive", "expire", "flag"},
		Root:   "root:*:::::::",
	},
	"gshadow": {
		Fields: []string{"name", "password", "admins", "members"},
		Sets:   []int{2, 3}, Groups: true,
	},
	"subuid": {Fields: []string{"name", "start", "count"}, Numeric: []int{1, 2}, Ranges: true},
	"subgid": {Fields: []string{"name", "start", "count"}, Numeric: []int{1, 2}, Ranges: true},
}

// Row is one line. Comments, NIS lines and lines that are not well formed have no fields; they are kept verbatim, and
// their key is their text.
type Row struct {
	Key    string
	Fields []string
	Text   string
}

func (r Row) Name() string { return r.Fields[0] }

// NewRow returns a line with these fields.
func NewRow(key string, fields []string) Row { return Row{key, fields, strings.Join(fields, ":")} }

// Table is one database in its order. A nil table is a missing file.
type Table struct {
	rows  []Row
	index map[string]int
	named map[string]string // the first name with each number; nil until Named needs it, and after a change
}

// Tables are the user databases of one side, by file name.
type Tables map[string]*Table

func New() *Table { return &Table{index: map[string]int{}} }

// Parse returns the database with this file name; it cannot fail. A second line for a name counts as not well formed,
// because the C library never reads it.
func Parse(file string, content []byte) *Table {
	f := Formats[file]
	t := New()
	seen := map[string]int{}
	for line := range bytes.Lines(content) {
		r := Row{Text: strings.TrimSuffix(string(line), "\n")}
		fields := strings.Split(r.Text, ":")
		if wellFormed(f, fields) {
			r.Key, r.Fields = fields[0], fields
			if f.Ranges {
				seen[fields[0]]++
				r.Key = fmt.Sprintf("%s#%d", fields[0], seen[fields[0]])
			}
		}
		if _, twice := t.index[r.Key]; twice || r.Fields == nil {
			seen["\x00"+r.Text]++
			r.Key, r.Fields = fmt.Sprintf("\x00%d\x00%s", seen["\x00"+r.Text], r.Text), nil
		}
		t.Add(r)
	}
	return t
}

// wellFormed reports whether a line has the fields of its format.
func wellFormed(f Format, fields []string) bool {
	if len(fields) != len(f.Fields) || fields[0] == "" || strings.ContainsAny(fields[0][:1], "#+-\x00") {
		return false
	}
	for _, i := range f.Numeric {
		if _, ok := ParseID(fields[i]); !ok {
			return false
		}
	}
	return true
}

// ParseID reads a uid, a gid or a count. 4294967295 is not an id: to chown(2) it means "unchanged".
func ParseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && uint32(n) != ^uint32(0)
}

func FormatID(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

func (t *Table) Add(r Row) {
	t.index[r.Key] = len(t.rows)
	t.rows, t.named = append(t.rows, r), nil
}

func (t *Table) Rows() []Row {
	if t == nil {
		return nil
	}
	return t.rows
}

func (t *Table) Get(key string) (Row, bool) {
	if t == nil {
		return Row{}, false
	}
	i, ok := t.index[key]
	if !ok {
		return Row{}, false
	}
	return t.rows[i], true
}

// Put replaces the fields of an existing row.
func (t *Table) Put(key string, fields []string) {
	t.rows[t.index[key]], t.named = NewRow(key, fields), nil
}

func (t *Table) Keys() []string {
	var keys []string
	for _, r := range t.Rows() {
		keys = append(keys, r.Key)
	}
	return keys
}

// Filter returns a copy with the rows that pass.
func (t *Table) Filter(pass func(Row) bool) *Table {
	if t == nil {
		return nil
	}
	out := New()
	for _, r := range t.rows {
		if pass(r) {
			out.Add(r)
		}
	}
	return out
}

func (t *Table) Clone() *Table { return t.Filter(func(Row) bool { return true }) }

// Numbered is a name with its uid or gid.
type Numbered struct {
	Name string
	ID   uint32
}

// Numbers returns the names and ids in a passwd or group table, in its order.
func (t *Table) Numbers() []Numbered {
	var out []Numbered
	for _, r := range t.Rows() {
		if r.Fields != nil {
			id, _ := ParseID(r.Fields[2]) // checked by wellFormed
			out = append(out, Numbered{r.Name(), id})
		}
	}
	return out
}

// Named returns the first name with a number, which is written in digits.
func (t *Table) Named(number string) (string, bool) {
	if t == nil {
		return "", false
	}
	if t.named == nil {
		t.named = map[string]string{}
		for _, r := range slices.Backward(t.rows) {
			if r.Fields != nil {
				t.named[r.Fields[2]] = r.Name()
			}
		}
	}
	name, ok := t.named[number]
	return name, ok
}

// Bytes returns the content of the file; every line ends with a newline.
func (t *Table) Bytes() []byte {
	var out bytes.Buffer
	for _, r := range t.Rows() {
		out.WriteString(r.Text + "\n")
	}
	return out.Bytes()
}

// SplitSet returns the members in a list.
func SplitSet(field string) []string {
	return slices.DeleteFunc(strings.Split(field, ","), func(m string) bool { return m == "" })
}

// Without returns a copy in which the given users are members of no group.
func (t *Table) Without(f Format, users map[string]bool) *Table {
	out := t.Clone()
	for _, r := range t.Rows() {
		if r.Fields == nil {
			continue
		}
		for _, i := range f.Sets {
			members := SplitSet(r.Fields[i])
			kept := slices.DeleteFunc(slices.Clone(members), func(m string) bool { return users[m] })
			if len(kept) == len(members) {
				continue
			}
			now, _ := out.Get(r.Key)
			fields := slices.Clone(now.Fields)
			fields[i] = strings.Join(kept, ",")
			out.Put(r.Key, fields)
		}
	}
	return out
}

// Has reports whether the table has a key.
func (t *Table) Has(key string) bool { _, ok := t.Get(key); return ok }

// Insert adds a row after the last entry, before a closing NIS "+".
func (t *Table) Insert(r Row) {
	end := 0
	for i, have := range t.rows {
		if have.Fields != nil {
			end = i + 1
		}
	}
	rows := slices.Insert(slices.Clone(t.rows), end, r)
	t.rows, t.index = nil, map[string]int{}
	for _, r := range rows {
		t.Add(r)
	}
}

// Comment makes a line one that says something instead of its entry.
func (t *Table) Comment(key, text string) { t.rows[t.index[key]].Text = text }

// Keys returns the keys of several tables, each once, in the order of their first appearance.
func Keys(tables ...*Table) []string {
	seen := map[string]bool{}
	var out []string
	for _, t := range tables {
		for _, k := range t.Keys() {
			if !seen[k] {
				seen[k] = true
				out = append(out, k)
			}
		}
	}
	return out
}
