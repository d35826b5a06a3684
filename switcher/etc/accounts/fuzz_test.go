package accounts

import (
	"bytes"
	"maps"
	"strings"
	"testing"
)

// FuzzSudoers: names are words of the text, without the marks of groups.
func FuzzSudoers(f *testing.F) {
	for _, text := range []string{
		"root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL) ALL\n", "#1000 ALL=ALL\n# a comment = no\n@includedir /etc/sudoers.d\n",
		"User_Alias ADMINS = a, b : OPS = %c, !d, +e\nADMINS,\\\n OPS ALL=ALL\n", "Defaults env_reset\n%:ad ALL=ALL\n",
		"\"a b\" ALL=ALL\n=\n,=\n%=\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s := ParseSudoers(text)
		for _, name := range append(s.Users, s.Groups...) {
			if !strings.Contains(strings.ReplaceAll(string(text), "\\\n", " "), name) {
				t.Errorf("%q is not in %q", name, text)
			}
		}
		if len(s.Users)+len(s.Groups) > len(text) {
			t.Errorf("%d names in %q", len(s.Users)+len(s.Groups), text)
		}
	})
}

// FuzzLoginDefs: each number is one of the text, or the default.
func FuzzLoginDefs(f *testing.F) {
	f.Add([]byte("UID_MIN 500\nUID_MAX\t60000 # x\nGID_MIN 0x10\nGID_MAX -1\n#UID_MIN 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p := ParseLoginDefs(text); p.FirstUID == 0 || p.LastUID == 0 || p.FirstGID == 0 || p.LastGID == 0 {
			t.Errorf("%q gives %+v", text, p)
		}
	})
}

// FuzzLedger: a ledger that is accepted is the same when it was written and read.
func FuzzLedger(f *testing.F) {
	for _, text := range []string{`{"schema":"updatectl.ids/v1","users":{"1":"a"},"groups":{"4294967295":"b"}}`, `null`,
		`{"users":null,"groups":{"0":""}}`, `{"users":{"1":"a","01":"b"}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := ParseLedger(text)
		if err != nil {
			return
		}
		again, err := ParseLedger(l.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), l.Bytes()) || !maps.Equal(again.Users, l.Users) ||
			!maps.Equal(again.Groups, l.Groups) {
			t.Errorf("%s was written as %s (%v)", text, l.Bytes(), err)
		}
		l.Users[7], l.Groups[7] = "c", "d"
	})
}
