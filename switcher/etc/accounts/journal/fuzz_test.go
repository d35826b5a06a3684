package journal

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
	"unicode/utf8"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// FuzzReplay: a rollback replays a journal from the disk, whatever is in it, into databases that may be damaged.
func FuzzReplay(f *testing.F) {
	for _, s := range []struct{ journal, passwd, shadow, subuid string }{
		{`{"passwd":{"a":{"new":"a:x:1:1::/:/bin/sh","made":true}}}`, "b:x:2:2::/:/bin/sh\n", "", ""},
		{`{"passwd":{"a":{"new":"a:x:1:1::/:/bin/sh","made":true}}}`, "b:x:1:2::/:/bin/sh\na\n", "", ""},
		{`{"subuid":{"a":{"new":"a:1:2","made":true}}}`, "", "", "a:1:2\n"},
		{`{"subuid":{"a#1":{"new":"a:1:3","old":"a:1:2"},"a#2":{"new":"a:4:5","made":true}}}`, "", "", "a:1:2\n"},
		{`{"shadow":{"a":{"new":"a"}}}`, "", "a:*:1::::::\n", ""},
		{`{"shadow":{"a":{"old":"a:*:1::::::","new":"a:x:2::::::"}}}`, "", "a:*:1::::::\n", ""},
		{`{"passwd":{"root":{"new":""}},"group":null,"other":{"a":{}}}`, "root:x:0:0::/:/bin/sh\n+\n", "", ""},
	} {
		f.Add([]byte(s.journal), []byte(s.passwd), []byte(s.shadow), []byte(s.subuid))
	}
	f.Fuzz(func(t *testing.T, text, passwd, shadow, subuid []byte) {
		var j Journal
		if json.Unmarshal(text, &j) != nil {
			return
		}
		to := table.Tables{"passwd": table.Parse("passwd", passwd), "shadow": table.Parse("shadow", shadow),
			"subuid": table.Parse("subuid", subuid), "group": nil}
		out, _ := j.Replay(to)
		for file := range maps.Keys(to) {
			if to[file].Has("root") && !out[file].Has("root") {
				t.Errorf("%s has lost root:\n%s", file, out[file].Bytes())
			}
		}
	})
}

// FuzzJournal: the changes of a root give an older one the same entries, and a second time nothing more.
func FuzzJournal(f *testing.F) {
	f.Add([]byte("a:x:1:1::/:/bin/sh\n"), []byte("a:x:1:1::/:/bin/bash\nb:x:2:2::/:/bin/sh\n"))
	f.Add([]byte("a:x:1:1::/:/bin/sh\nb:x:2:2::/:/bin/sh\n+\n"), []byte("b:x:1:2::/:/bin/sh\na\n#\n"))
	f.Fuzz(func(t *testing.T, before, now []byte) {
		tables := func(text []byte) table.Tables {
			return table.Tables{"passwd": table.Parse("passwd", append([]byte("root:x:0:0::/:/bin/sh\n"), text...)),
				"group": table.Parse("group", []byte("root:x:0:\n"))}
		}
		j := Journal{}
		j.Add(tables(before), tables(now))
		text, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		j = nil
		if err := json.Unmarshal(text, &j); err != nil {
			t.Fatal(err)
		}
		once, notes := j.Replay(tables(before))
		if len(notes) > 0 { // a number that was taken when its turn came may be free the second time
			return
		}
		twice, _ := j.Replay(once)
		if !bytes.Equal(once["passwd"].Bytes(), twice["passwd"].Bytes()) {
			t.Errorf("a second time, passwd is\n%s\nafter\n%s", twice["passwd"].Bytes(), once["passwd"].Bytes())
		}
		for _, r := range tables(now)["passwd"].Rows() {
			got, ok := once["passwd"].Get(r.Key)
			if r.Fields != nil && utf8.ValidString(r.Key) && (!ok || got.Text != r.Text) {
				t.Errorf("%q is %q", r.Text, got.Text)
			}
		}
	})
}
