package trust

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/verify"
)

var (
	june     = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	december = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
)

// TestUpdate goes from root to root and reads the /etc of each: a restriction is forgotten only where the operator took
// it out of the /etc that had it.
func TestUpdate(t *testing.T) {
	revoked := func(key, root string) Restriction {
		return Restriction{KeyID: key, Name: key, Revoked: true, Reason: "stolen", Root: root}
	}
	person := func(root string) Restriction {
		return Restriction{Name: "p", Identity: &Identity{Issuer: "i", SubjectPattern: ".*"}, Revoked: true, Root: root}
	}
	ends := func(key, root string, at time.Time) Restriction {
		return Restriction{KeyID: key, Name: key, NotAfter: at, Root: root}
	}
	type step struct {
		root string
		etc  []Restriction
		part bool     // of the configuration is known
		want []string // what is remembered, or with part: what holds
	}
	for name, steps := range map[string][]step{
		"rolled back": {
			{root: "old"}, {root: "new"}, {root: "new", etc: []Restriction{revoked("a", "new")}},
			{root: "old", want: []string{"a revoked, new"}}, {root: "old", want: []string{"a revoked, new"}},
			{root: "host", want: []string{"a revoked, new"}},
		},
		"applied again after a rollback": {
			{root: "new", etc: []Restriction{revoked("a", "new")}}, {root: "old", want: []string{"a revoked, new"}},
			{root: "newer", want: []string{"a revoked, new"}}, // its /etc comes from old
		},
		"taken out where it was": {
			{root: "new", etc: []Restriction{revoked("a", "new")}}, {root: "new"}, {root: "old"},
		},
		"taken out of a later root, into whose /etc it was carried": {
			{root: "new", etc: []Restriction{revoked("a", "new")}}, {root: "newer", etc: []Restriction{revoked("a", "newer")}},
			{root: "newer"}, {root: "newest"},
		},
		"an earlier end is kept": {
			{root: "new", etc: []Restriction{ends("a", "new", june)}},
			{root: "old", etc: []Restriction{ends("a", "old", december)}, want: []string{"a until June, new"}},
			{root: "old", etc: []Restriction{ends("a", "old", june)}},
		},
		"a later end is not": {
			{root: "new", etc: []Restriction{ends("a", "new", december)}},
			{root: "old", etc: []Restriction{ends("a", "old", june)}},
		},
		"the end was moved where it was": {
			{root: "new", etc: []Restriction{ends("a", "new", june)}},
			{root: "new", etc: []Restriction{ends("a", "new", december)}},
			{root: "old", want: []string{"a until December, new"}},
		},
		"two keys": {
			{root: "new", etc: []Restriction{revoked("a", "new"), ends("b", "new", june)}},
			{root: "old", etc: []Restriction{revoked("a", "old")}, want: []string{"b until June, new"}},
		},
		"an identity": {
			{root: "new", etc: []Restriction{person("new"), revoked("a", "new")}},
			{root: "old", etc: []Restriction{revoked("a", "old")}, want: []string{"p revoked, new"}},
			{root: "newer", etc: []Restriction{person("newer")}, want: []string{"a revoked, old"}},
		},
		"a part of the configuration takes nothing out": {
			{root: "new", etc: []Restriction{revoked("a", "new")}}, {root: "new", part: true, want: []string{"a revoked, new"}},
			{root: "old", want: []string{"a revoked, new"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var l Ledger
			for i, s := range steps {
				l = l.Update(s.etc, s.root, !s.part)
				text, err := json.Marshal(l)
				if err != nil {
					t.Fatal(err)
				}
				l = Ledger{}
				if err := json.Unmarshal(text, &l); err != nil {
					t.Fatal(err)
				}
				all := l.Remembered
				if s.part {
					all = append(all, l.Configured...)
				}
				var got []string
				for _, r := range all {
					what := " revoked, "
					if !r.Revoked {
						what = " until " + r.NotAfter.Month().String() + ", "
					}
					got = append(got, r.Name+what+r.Root)
				}
				if !slices.Equal(got, s.want) || l.Root != s.root {
					t.Errorf("step %d, %s: remembered %q, want %q", i+1, s.root, got, s.want)
				}
			}
		})
	}
}

// TestKept: people are told of what only the ledger restricts, and not of keys that do not count anyway.
func TestKept(t *testing.T) {
	l := Ledger{Remembered: []Restriction{
		{KeyID: "a", Name: "a.pub", Revoked: true, Reason: "stolen", NotAfter: june, Root: "new"},
		{KeyID: "b", Name: "b.pub", Revoked: true, Root: "new"},
	}}
	kept := l.Kept(verify.Policy{Keys: []verify.Key{{ID: "a"}}})
	if len(kept) != 1 || !strings.HasPrefix(kept[0],
		"the key a.pub is revoked (stolen) and ends at 2026-06-01T00:00:00Z: the configuration of new says so") {
		t.Errorf("%q", kept)
	}
}
