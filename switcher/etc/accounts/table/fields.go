package table

import (
	"slices"
	"strings"
)

// The fields of shadow(5) with rules of their own.
const (
	ShadowPassword   = 1
	ShadowLastChange = 2
)

// MergeFields merges an entry that both sides have. clashes names the fields that both changed differently.
func MergeFields(file string, f Format, o, c, x Row) (fields, clashes []string) {
	if f.Ranges {
		if o.Text == c.Text {
			return x.Fields, nil
		}
		if c.Text != x.Text && o.Text != x.Text {
			clashes = []string{"range"}
		}
		return c.Fields, clashes
	}
	fields = slices.Clone(c.Fields)
	for i := range fields {
		base, hasBase := "", o.Fields != nil
		if hasBase {
			base = o.Fields[i]
		}
		switch {
		case slices.Contains(f.Sets, i):
			fields[i] = mergeSet(base, c.Fields[i], x.Fields[i])
		case hasBase && c.Fields[i] == base:
			fields[i] = x.Fields[i]
		case c.Fields[i] == x.Fields[i], hasBase && x.Fields[i] == base:
		case file == "shadow" && i == ShadowLastChange: // decided below
		default:
			clashes = append(clashes, f.Fields[i])
		}
	}
	if file == "shadow" && fields[ShadowPassword] != x.Fields[ShadowPassword] {
		fields[ShadowLastChange] = c.Fields[ShadowLastChange] // a date goes with its password
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
	o, x := SplitSet(old), SplitSet(next)
	var out []string
	for _, m := range SplitSet(cur) {
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
