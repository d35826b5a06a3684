package journal

import (
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// databases returns passwd, group and shadow.
func databases(passwd, group, shadow string) table.Tables {
	const root = "root:x:0:0:root:/root:/bin/bash\n"
	return table.Tables{
		"passwd": table.Parse("passwd", []byte(root+passwd)), "group": table.Parse("group", []byte("root:x:0:\n"+group)),
		"shadow": table.Parse("shadow", []byte("root:*:1::::::\n"+shadow)),
	}
}

// TestJournal: a root that is rolled back to gets what was changed since it was left, and nothing else.
func TestJournal(t *testing.T) {
	const alice, bob, eve = "alice:x:1000:1000::/home/alice:/bin/bash\n", "bob:x:1001:1001::/home/bob:/bin/bash\n",
		"eve:x:1002:1002::/home/eve:/bin/bash\n"
	const mysql = "mysql:x:110:110::/:/bin/false\n"
	for name, c := range map[string]struct {
		stays    [][2]table.Tables // of each root that ran: at its arrival, and when it was left
		to, want table.Tables
		notes    []string
	}{
		"a password, a user who is gone, a new one": {
			[][2]table.Tables{{
				databases(alice+bob, "alice:x:1000:\nbob:x:1001:\nsudo:x:27:bob\n", "alice:old:1::::::\nbob:b:1::::::\n"),
				databases(alice+eve, "alice:x:1000:\neve:x:1002:\nsudo:x:27:alice\n", "alice:new:2::::::\neve:e:2::::::\n"),
			}},
			databases(mysql+alice+bob, "mysql:x:110:\nalice:x:1000:\nbob:x:1001:\nsudo:x:27:bob,host\n",
				"alice:old:1::::::\nbob:b:1::::::\n"),
			databases(mysql+alice+eve, "mysql:x:110:\nalice:x:1000:\nsudo:x:27:alice,host\neve:x:1002:\n",
				"alice:new:2::::::\neve:e:2::::::\n"), nil,
		},
		"what two roots changed, one after the other": {
			[][2]table.Tables{
				{databases(alice, "", "alice:a:1::::::\n"), databases(alice+bob, "", "alice:b:2::::::\nbob:x:1::::::\n")},
				{databases(alice+bob, "", "alice:b:2::::::\nbob:x:1::::::\n"), databases(alice, "", "alice:c:3::::::\n")},
			},
			databases(alice+bob, "", "alice:a:1::::::\nbob:x:1::::::\n"), databases(alice, "", "alice:c:3::::::\n"), nil,
		},
		"a root that has it all already": {
			[][2]table.Tables{{databases(alice, "", "alice:a:1::::::\n"), databases(bob, "", "bob:b:2::::::\n")}},
			databases(bob, "", "bob:b:2::::::\n"), databases(bob, "", "bob:b:2::::::\n"), nil,
		},
		"what the root never had is not changed there": {
			[][2]table.Tables{{databases("www:x:33:33::/:/bin/false\n", "", ""), databases("www:x:33:33::/:/bin/sh\n", "", "")}},
			databases(alice, "", ""), databases(alice, "", ""), nil,
		},
		"a field that was not changed stays": {
			[][2]table.Tables{{databases(alice, "", ""), databases("alice:x:1000:1000::/home/alice:/bin/zsh\n", "", "")}},
			databases("alice:x:1000:1000:Alice:/srv/alice:/bin/bash\n", "", ""),
			databases("alice:x:1000:1000:Alice:/srv/alice:/bin/zsh\n", "", ""), nil,
		},
		"a number that somebody has there": {
			[][2]table.Tables{{databases("", "", ""), databases(eve, "eve:x:1002:\n", "eve:e:2::::::\n")}},
			databases("old:x:1002:1002::/:/bin/sh\n", "", ""),
			databases("old:x:1002:1002::/:/bin/sh\n", "eve:x:1002:\n", ""),
			[]string{"passwd: eve (1002) is left out, old has that number there"},
		},
		"databases that are damaged": {
			[][2]table.Tables{{databases(alice, "", ""), {
				"passwd": table.Parse("passwd", nil), "group": table.Parse("group", nil)}}},
			databases(alice, "", ""), databases(alice, "", ""), nil,
		},
		"one database that is damaged": {
			[][2]table.Tables{{databases(alice, "", "alice:a:1::::::\n"), {
				"passwd": databases(alice+bob, "", "")["passwd"], "group": databases("", "", "")["group"],
				"shadow": table.Parse("shadow", nil)}}},
			databases(alice, "", "alice:a:1::::::\n"), databases(alice, "", "alice:a:1::::::\n"), nil,
		},
		"a name with the mark of ranges": {
			[][2]table.Tables{{databases("a#b:x:7:7::/:/bin/sh\n", "", ""), databases("a#b:x:7:7::/:/bin/bash\n", "", "")}},
			databases("a#b:x:7:7::/:/bin/sh\n", "", ""), databases("a#b:x:7:7::/:/bin/bash\n", "", ""), nil,
		},
	} {
		j := Journal{}
		for _, stay := range c.stays {
			j.Add(stay[0], stay[1])
		}
		got, notes := j.Replay(c.to)
		for file, want := range c.want {
			if string(got[file].Bytes()) != string(want.Bytes()) {
				t.Errorf("%s: %s is\n%s\nwant\n%s", name, file, got[file].Bytes(), want.Bytes())
			}
		}
		if !slices.Equal(notes, c.notes) {
			t.Errorf("%s: notes %q, want %q", name, notes, c.notes)
		}
		again, _ := j.Replay(got)
		for file := range got {
			if string(again[file].Bytes()) != string(got[file].Bytes()) {
				t.Errorf("%s: a second time, %s is\n%s", name, file, again[file].Bytes())
			}
		}
	}
}
