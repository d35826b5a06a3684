package derived

import (
	"path"
	"strings"
	"testing"
)

// FuzzParse: the rules of a list that is accepted are about paths below /etc, and run programs by their paths.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"[[derived]]\nname = 'a'\nfiles = ['a/*', 'b -> /x']\nsources = ['c']\nrun = ['/usr/bin/a', '-b']\nreason = 'r'\n",
		"[[derived]]\nname = 'a'\nfiles = ['../x']\nreason = 'r'\n", "[[derived]]\nname = 'a'\nfiles = ['[']\nreason = 'r'\n",
		"derived = 1\n", "[[derived]]\nrun = ['']\n", "",
	} {
		f.Add(text, "a/b")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		list, err := Parse(text)
		if err != nil {
			return
		}
		for _, r := range list {
			if r.Name == "" || len(r.Run) > 0 && !path.IsAbs(r.Run[0]) {
				t.Errorf("the rule %+v", r)
			}
			for _, p := range append(r.Sources, r.Bundle...) {
				if path.IsAbs(p) || path.Clean(p) != p || strings.HasPrefix(p, "..") {
					t.Errorf("%q is not below /etc", p)
				}
			}
			if r.Makes(name, "x", true) && !list.Makes(name, "x", true) {
				t.Errorf("%q makes %q, and the list does not", r.Name, name)
			}
			r.Uses(name)
		}
		list.Bundles()
	})
}
