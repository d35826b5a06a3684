package renew

import (
	"path"
	"testing"
)

// FuzzRules: each line of a list that is accepted has a pattern and a known action.
func FuzzRules(f *testing.F) {
	f.Add("a.service renew # why\n*.mount keep\n[.x skip\na renew\nb.c devices x\n# c\n")
	f.Fuzz(func(t *testing.T, text string) {
		rules, _ := parseRules(text)
		for _, r := range rules {
			if _, err := path.Match(r.Pattern, "x"); err != nil || r.Pattern == "" || r.Action == "" {
				t.Errorf("the rule %+v", r)
			}
		}
		rules.find("a.service")
	})
}
