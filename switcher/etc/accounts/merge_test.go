package accounts

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// files are the user databases of one side, by name.
type files map[string]string

func (f files) tables() table.Tables {
	t := table.Tables{}
	for name, text := range f {
		t[name] = table.Parse(name, []byte(text))
	}
	return t
}

// outcome is a merge, with its remarks in order.
type outcome struct {
	merged  table.Tables
	remarks Remarks
	ledger  Ledger
}

// text returns a database of the outcome, "" when it is not there.
func (out outcome) text(file string) string {
	if out.merged[file] == nil {
		return ""
	}
	return string(out.merged[file].Bytes())
}

// merge does what the merge of /etc does with the databases, for a host whose other files are the image's. A nil old
// is a host that runs no image.
func merge(old, cur, next files, numbers Ledger) (outcome, error) {
	out := outcome{ledger: numbers.Clone()}
	base := old.tables()
	if old == nil {
		base = HostBase(cur.tables(), next.tables(), Access{People: defaultPeople}, nil)
	}
	sides := Sides{base, cur.tables(), next.tables(), old == nil, defaultPeople}
	r, err := sides.Renumber(numbers, &out.remarks)
	if err != nil {
		return out, err
	}
	out.merged = r.Merge(Owners{}, &out.remarks)
	out.ledger.Record(cur.tables())
	out.ledger.Record(out.merged)
	slices.Sort(out.remarks.Notes)
	out.remarks.Notes = slices.Compact(out.remarks.Notes)
	slices.SortFunc(out.remarks.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Reason, b.Reason))
	})
	return out, nil
}

func mustMerge(t *testing.T, old, cur, next files) outcome {
	t.Helper()
	none, _ := ParseLedger(nil)
	out, err := merge(old, cur, next, none)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

const root = "root:x:0:0:root:/root:/bin/bash"

func TestUsersThreeWay(t *testing.T) {
	for _, test := range []struct {
		name           string
		old, cur, next files
		want           files // only the files named are compared; "" is no such file
		conflicts      []Conflict
		notes          []string
		renumbered     []string
	}{
		{
			name:      "field by field",
			old:       files{"passwd": lines(root, "www:x:33:33:www:/var/www:/bin/sh")},
			cur:       files{"passwd": lines(root, "www:x:33:33:www:/var/www:/bin/bash")},
			next:      files{"passwd": lines(root, "www:x:33:33:Web:/srv/www:/bin/dash")},
			want:      files{"passwd": lines(root, "www:x:33:33:Web:/srv/www:/bin/bash")},
			conflicts: []Conflict{{"passwd", "www: shell changed here and by the image; the local one is kept"}},
		},
		{
			name: "a password and its date stay together, quietly",
			old:  files{"passwd": lines(root), "shadow": lines("root:*:100:0:99999:7:::")},
			cur:  files{"passwd": lines(root), "shadow": lines("root:$y$h:150:0:99999:7:::")},
			next: files{"passwd": lines(root), "shadow": lines("root:*:200:0:90:7:::")},
			want: files{"shadow": lines("root:$y$h:150:0:90:7:::")},
		},
		{
			name: "a date alone is the image's",
			old:  files{"passwd": lines(root), "shadow": lines("root:*:100:0:99999:7:::")},
			cur:  files{"passwd": lines(root), "shadow": lines("root:*:150:0:99999:7:::")},
			next: files{"passwd": lines(root), "shadow": lines("root:*:200:0:99999:7:::")},
			want: files{"shadow": lines("root:*:150:0:99999:7:::")},
		},
		{
			name: "a new local user, a new user of the image, free number",
			old:  files{"passwd": lines(root), "group": lines("root:x:0:"), "shadow": lines("root:*:1::::::")},
			cur: files{"passwd": lines(root, "alice:x:1000:1000::/home/alice:/bin/bash"),
				"group":  lines("root:x:0:", "alice:x:1000:"),
				"shadow": lines("root:*:1::::::", "alice:$y$a:1::::::")},
			next: files{"passwd": lines(root, "redis:x:100:101::/:/bin/false"), "group": lines("root:x:0:", "redis:x:101:"),
				"shadow": lines("root:*:1::::::", "redis:!:1::::::")},
			want: files{"passwd": lines(root, "alice:x:1000:1000::/home/alice:/bin/bash", "redis:x:100:101::/:/bin/false"),
				"group":  lines("root:x:0:", "alice:x:1000:", "redis:x:101:"),
				"shadow": lines("root:*:1::::::", "alice:$y$a:1::::::", "redis:!:1::::::")},
		},
		{
			name: "a taken number moves, user and group alike",
			old:  files{"passwd": lines(root), "group": lines("root:x:0:")},
			cur: files{
				"passwd": lines(root, "a:x:100:999:::", "b:x:999:999:::"),
				"group":  lines("root:x:0:", "ga:x:999:", "gb:x:101:"),
			},
			next: files{"passwd": lines(root, "redis:x:100:101:::"), "group": lines("root:x:0:", "redis:x:101:")},
			want: files{"passwd": lines(root, "a:x:100:999:::", "b:x:999:999:::", "redis:x:998:998:::"),
				"group": lines("root:x:0:", "ga:x:999:", "gb:x:101:", "redis:x:998:")},
			conflicts: []Conflict{
				{"group", "new group redis is 101 in the image, which another group has or had here; it gets 998"},
				{"passwd", "new user redis is 100 in the image, which another user has or had here; it gets 998"},
			},
		},
		{
			name: "the host's number stays",
			old:  files{"passwd": lines(root, "r:x:100:100:::"), "group": lines("root:x:0:", "r:x:100:")},
			cur:  files{"passwd": lines(root, "r:x:105:106:::"), "group": lines("root:x:0:", "r:x:106:")},
			next: files{"passwd": lines(root, "r:x:101:102:new::"), "group": lines("root:x:0:", "r:x:102:")},
			want: files{"passwd": lines(root, "r:x:105:106:new::"), "group": lines("root:x:0:", "r:x:106:")},
			renumbered: []string{
				"group r is 106 here and 102 in the image; files of the image show 106",
				"user r is 105 here and 101 in the image; files of the image show 105",
			},
		},
		{
			name: "names the image shares one number between keep sharing it",
			old:  files{"passwd": lines(root)}, cur: files{"passwd": lines(root)},
			next: files{"passwd": lines(root, "toor:x:0:0:::", "a:x:50:50:::", "b:x:50:50:::")},
			want: files{"passwd": lines(root, "toor:x:0:0:::", "a:x:50:50:::", "b:x:50:50:::")},
		},
		{
			name: "dropped system user goes, with shadow, subuid and memberships",
			old: files{
				"passwd": lines(root, "r:x:100:100:::"),
				"shadow": lines("root:*:1::::::", "r:!:1::::::"),
				"group":  lines("root:x:0:", "adm:x:4:r", "r:x:100:"),
				"subuid": lines("r:1:9"),
			},
			cur: files{
				"passwd": lines(root, "r:x:100:100:::"),
				"shadow": lines("root:*:1::::::", "r:!:1::::::"),
				"group":  lines("root:x:0:", "adm:x:4:r", "r:x:100:"),
				"subuid": lines("r:1:9"),
			},
			next: files{"passwd": lines(root), "shadow": lines("root:*:1::::::"), "group": lines("root:x:0:", "adm:x:4:r")},
			want: files{
				"passwd": lines(root),
				"shadow": lines("root:*:1::::::"),
				"group":  lines("root:x:0:", "adm:x:4:"),
				"subuid": "",
			},
			notes: []string{
				"group: group r is not in the image any more; removed, and its number 100 is not assigned again",
				"passwd: user r is not in the image any more; removed, and its number 100 is not assigned again",
			},
		},
		{
			name: "dropped users stay for a reason",
			old: files{
				"passwd": lines(root,
					"p:x:1000:500:::", "c:x:101:1:::", "s:x:102:1:::", "m:x:103:1:::", "gone:x:104:1:::"),
				"shadow": lines("root:*:1::::::", "s:!:1::::::"),
				"group":  lines("root:x:0:", "adm:x:4:", "pg:x:500:", "ng:x:501:"),
			},
			cur: files{
				"passwd": lines(root,
					"p:x:1000:500:::", "c:x:101:1::/c:", "s:x:102:1:::", "m:x:103:1:::", "gone:x:104:1:::"),
				"shadow": lines("root:*:1::::::", "s:$y$s:1::::::"),
				"group":  lines("root:x:0:", "adm:x:4:m", "pg:x:500:", "ng:x:501:"),
			},
			next: files{"passwd": lines(root), "shadow": lines("root:*:1::::::"), "group": lines("root:x:0:", "adm:x:4:")},
			want: files{"passwd": lines(root, "p:x:1000:500:::", "c:x:101:1::/c:", "s:x:102:1:::", "m:x:103:1:::"),
				"shadow": lines("root:*:1::::::", "s:$y$s:1::::::"), "group": lines("root:x:0:", "adm:x:4:m", "pg:x:500:")},
			conflicts: []Conflict{
				{"passwd", "user c: dropped by the image and changed here; kept"},
				{"passwd", "user s: dropped by the image and changed here; kept"},
			},
			notes: []string{
				"group: group ng is not in the image any more; removed, and its number 501 is not assigned again",
				"group: group pg is not in the image; kept, it is the group of a user that stays",
				"passwd: user gone is not in the image any more; removed, and its number 104 is not assigned again",
				"passwd: user m is not in the image; kept, it was added to a group here",
				"passwd: user p is not in the image; kept, people stay",
			},
		},
		{
			name: "deleted here stays deleted everywhere",
			old: files{
				"passwd": lines(root, "g:x:5:60:::"),
				"shadow": lines("root:*:1::::::", "g:*:1::::::"),
				"group":  lines("root:x:0:", "v:x:44:g"),
			},
			cur: files{"passwd": lines(root), "shadow": lines("root:*:1::::::"), "group": lines("root:x:0:", "v:x:44:")},
			next: files{
				"passwd": lines(root, "g:x:5:60:games::"),
				"shadow": lines("root:*:1::::::", "g:*:2::::::"),
				"group":  lines("root:x:0:", "v:x:44:g", "w:x:45:g"),
			},
			want: files{
				"passwd": lines(root),
				"shadow": lines("root:*:1::::::"),
				"group":  lines("root:x:0:", "v:x:44:", "w:x:45:"),
			},
			conflicts: []Conflict{{"passwd", "user g: deleted here and changed by the image; stays deleted"}},
		},
		{
			name: "members merge as sets, strangers stay",
			old:  files{"passwd": lines(root), "group": lines("root:x:0:", "adm:x:4:a,b")},
			cur:  files{"passwd": lines(root), "group": lines("root:x:0:", "adm:x:4:b,ldap")},
			next: files{"passwd": lines(root), "group": lines("root:x:0:", "adm:x:4:a,b,syslog")},
			want: files{"group": lines("root:x:0:", "adm:x:4:b,ldap,syslog")},
		},
		{
			name: "comments, NIS lines and broken lines stay, new entries go before +",
			old:  files{"passwd": lines(root)},
			cur: files{
				"passwd": lines("# mine", root, "", "broken:x:1", "root:x:0:0:second::", "a:x:-1:0:::",
					"+@admins::::::", "+::::::"),
			},
			next: files{"passwd": lines(root, "new:x:100:100:::")},
			want: files{
				"passwd": lines("# mine", root, "new:x:100:100:::", "", "broken:x:1", "root:x:0:0:second::",
					"a:x:-1:0:::", "+@admins::::::", "+::::::"),
			},
			notes: []string{
				`passwd: a line for "a" is not well formed, or is the second one; kept as it is`,
				`passwd: a line for "broken" is not well formed, or is the second one; kept as it is`,
				`passwd: a line for "root" is not well formed, or is the second one; kept as it is`,
			},
		},
		{
			name: "root comes back", old: files{"passwd": lines(root)},
			cur:  files{"passwd": lines("a:x:1:1:::"), "shadow": lines("a:*:1::::::"), "group": ""},
			next: files{"passwd": lines("root:x:0:0:image:/root:/bin/sh"), "shadow": lines("root:!:7::::::")},
			want: files{
				"passwd": lines("a:x:1:1:::", "root:x:0:0:image:/root:/bin/sh"),
				"shadow": lines("a:*:1::::::", "root:!:7::::::"),
				"group":  lines("root:x:0:"),
			},
			notes: []string{"group: no side had a line for root; added"},
		},
		{
			name: "root is 0", old: files{},
			cur: files{"passwd": lines("root:x:7:7:::"), "group": lines("root:x:0:")}, next: files{"passwd": lines(root)},
			want: files{"passwd": lines("root:x:0:7:::")},
			conflicts: []Conflict{{"passwd",
				"root: gid, gecos, home, shell changed here and by the image; the local one is kept"}},
			notes: []string{"passwd: root had the number 7, it is 0 now"},
		},
		{
			name:      "a subordinate range of the image moves off one in use",
			old:       files{"passwd": lines(root)},
			cur:       files{"passwd": lines(root, "alice:x:1000:1000:::"), "subuid": lines("alice:100000:65536")},
			next:      files{"passwd": lines(root, "ci:x:1001:1001:::"), "subuid": lines("ci:100000:65536")},
			want:      files{"subuid": lines("alice:100000:65536", "ci:165536:65536")},
			conflicts: []Conflict{{"subuid", "ci: the image's range 100000 is in use here; moved to 165536"}},
		},
		{
			name: "nobody has a database", old: files{}, cur: files{}, next: files{},
			want: files{"passwd": "", "shadow": "", "group": ""},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := mustMerge(t, test.old, test.cur, test.next)
			for file, want := range test.want {
				if got := out.text(file); got != want {
					t.Errorf("%s:\n got %q\nwant %q", file, got, want)
				}
			}
			if !slices.Equal(out.remarks.Conflicts, test.conflicts) {
				t.Errorf("conflicts:\n got %q\nwant %q", out.remarks.Conflicts, test.conflicts)
			}
			if !slices.Equal(out.remarks.Notes, test.notes) {
				t.Errorf("notes:\n got %q\nwant %q", out.remarks.Notes, test.notes)
			}
			slices.Sort(out.remarks.Renumbered)
			if !slices.Equal(out.remarks.Renumbered, test.renumbered) && test.renumbered != nil {
				t.Errorf("renumbered:\n got %q\nwant %q", out.remarks.Renumbered, test.renumbered)
			}
		})
	}
}

func TestRootOfAnAdoptedHost(t *testing.T) {
	for _, test := range []struct{ name, host, image, want string }{
		{"never set", "root:*:1::::::", "root:$y$i:2::::::", "root:$y$i:2::::::"},
		{"never set, locked twice", "root:!*:1::::::", "root:*:2::::::", "root:*:2::::::"},
		{"set", "root:$y$h:1::::::", "root:*:2::::::", "root:$y$h:1::::::"},
		{"locked after it was set", "root:!$y$h:1::::::", "root:*:2::::::", "root:!$y$h:1::::::"},
		{"empty", "root::1::::::", "root:*:2::::::", "root::1::::::"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := mustMerge(t, nil, files{"passwd": lines(root), "shadow": lines(test.host)},
				files{"passwd": lines(root), "shadow": lines(test.image)})
			if got := out.text("shadow"); got != lines(test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A number never gets a second owner, across any number of images, and a name that returns owns its files again.
func TestLedgerAcrossImages(t *testing.T) {
	known, _ := ParseLedger(nil)
	etc := files{"passwd": lines(root, "redis:x:100:100:::")}
	old := etc
	for i, step := range []struct{ next, want string }{
		{lines(root), lines(root)},
		{lines(root, "nginx:x:100:0:::"), lines(root, "nginx:x:999:0:::")},
		{lines(root, "redis:x:101:0:::"), lines(root, "redis:x:100:0:::")},
		{lines(root, "other:x:999:0:::"), lines(root, "other:x:998:0:::")},
	} {
		next := files{"passwd": step.next}
		out, err := merge(old, etc, next, known)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.text("passwd"); got != step.want {
			t.Errorf("image %d: got %q, want %q", i, got, step.want)
		}
		// The ledger is what survives from one merge to the next.
		if known, err = ParseLedger(out.ledger.Bytes()); err != nil {
			t.Fatal(err)
		}
		etc, old = files{"passwd": out.text("passwd")}, next
	}
}

func TestNoFreeNumber(t *testing.T) {
	cur := []string{root}
	for id := 1; id < 1000; id++ {
		cur = append(cur, fmt.Sprintf("u%d:x:%d:0:::", id, id))
	}
	c, x := files{"passwd": lines(cur...)}, files{"passwd": lines(root, "new:x:500:0:::")}
	known, _ := ParseLedger(nil)
	if _, err := merge(files{}, c, x, known); !errors.Is(err, ErrNoFreeID) {
		t.Errorf("%v, want ErrNoFreeID", err)
	}
	x = files{"passwd": lines(root, "new:x:1000:0:::")}
	if _, err := merge(files{}, c, x, known); err != nil {
		t.Errorf("a person's number: %v", err)
	}
}

// randomUsers returns consistent small databases that collide in names and numbers.
func randomUsers(r *rand.Rand) files {
	passwd, shadow, group := []string{root}, []string{"root:*:1::::::"}, []string{"root:x:0:"}
	used := map[int]bool{}
	var names []string
	for _, name := range []string{"a", "b", "c", "d"} {
		id := 100 + r.IntN(5) + 900*r.IntN(2)
		if r.IntN(3) == 0 || used[id] {
			continue
		}
		used[id] = true
		names = append(names, name)
		passwd = append(passwd, fmt.Sprintf("%s:x:%d:%d::/%d:/bin/sh", name, id, id, r.IntN(3)))
		shadow = append(shadow, fmt.Sprintf("%s:%d:%d::::::", name, r.IntN(3), r.IntN(3)))
		group = append(group, fmt.Sprintf("%s:x:%d:", name, id))
	}
	group = append(group, "adm:x:4:"+strings.Join(names[r.IntN(len(names)+1):], ","))
	return files{"passwd": lines(passwd...), "shadow": lines(shadow...), "group": lines(group...)}
}

func TestUserLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		old, cur, next := randomUsers(r), randomUsers(r), randomUsers(r)
		describe := fmt.Sprintf("old %q\ncur %q\nnext %q", old, cur, next)
		out := mustMerge(t, old, cur, old)
		for file := range cur {
			if out.text(file) != cur[file] {
				t.Fatalf("an unchanged image changes %s: %q\n%s", file, out.text(file), describe)
			}
		}
		out = mustMerge(t, old, cur, next)
		c, got := cur.tables(), table.Parse("passwd", []byte(out.text("passwd")))
		owner := map[uint32]string{}
		for _, n := range c["passwd"].Numbers() {
			owner[n.ID] = n.Name
		}
		if _, ok := got.Get("root"); !ok {
			t.Fatalf("no root\n%s", describe)
		}
		seen := map[uint32]bool{}
		for _, n := range got.Numbers() {
			if had, ok := owner[n.ID]; ok && had != n.Name {
				t.Fatalf("%d was %s's and is %s's\n%s", n.ID, had, n.Name, describe)
			}
			if here, ok := c["passwd"].Get(n.Name); ok && here.Fields[2] != table.FormatID(n.ID) {
				t.Fatalf("%s does not keep its number\n%s", n.Name, describe)
			}
			if seen[n.ID] {
				t.Fatalf("%d is there twice\n%s", n.ID, describe)
			}
			seen[n.ID] = true
			if out.text("shadow") == "" || !strings.Contains("\n"+out.text("shadow"), "\n"+n.Name+":") {
				t.Fatalf("%s has no shadow line: %q\n%s", n.Name, out.text("shadow"), describe)
			}
		}
		o := old.tables()["passwd"]
		for _, n := range c["passwd"].Numbers() {
			if _, inOld := o.Get(n.Name); !inOld && !got.Has(n.Name) {
				t.Fatalf("%s was added here and is lost\n%s", n.Name, describe)
			}
		}
	}
}

var tableSeeds = []string{
	"", "\n", "root:x:0:0:root:/root:/bin/sh\n", "root:x:0:0", "root:x:0:0:a:b:c:d", ":x:0:0:::", "+::::::",
	"-@g::::::", "# c", "a:x:4294967295:0:::", "a:x:99999999999:0:::", "a:x:-1:0:::", "a:x: 1:0:::",
	"a:x:1:1:::\na:x:2:2:::\n", "\x00:x:1:1:::", "a:x:1:1:::\r\n",
	"root:x:5:5:::", "g:x:1:a,,b,a", "\n\n\n", "\x00\x00", "a:1:2\na:1:2\n",
}

func FuzzUsers(f *testing.F) {
	if len(tableSeeds) < 20 {
		f.Fatal("the seeds are gone")
	}
	for i, s := range tableSeeds {
		f.Add(s, tableSeeds[(i+7)%len(tableSeeds)], lines(root, "n:x:1:1:::"))
	}
	f.Fuzz(func(t *testing.T, old, cur, next string) {
		for _, file := range table.Files {
			got := string(table.Parse(file, []byte(cur)).Bytes())
			if strings.TrimSuffix(got, "\n") != strings.TrimSuffix(cur, "\n") {
				t.Fatalf("%s: parsing loses something: %q of %q", file, got, cur)
			}
		}
		known, _ := ParseLedger(nil)
		all := func(s string) files {
			side := files{}
			for _, file := range table.Files {
				side[file] = s
			}
			return side
		}
		for _, side := range []files{all(old), nil} {
			out, err := merge(side, all(cur), all(next), known)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"passwd", "shadow", "group"} {
				merged := table.Parse(file, []byte(out.text(file)))
				if r, ok := merged.Get("root"); !ok ||
					file == "passwd" && r.Fields[2] != "0" && strings.Trim(r.Fields[2], "0") != "" {
					t.Fatalf("%s: no root: %q", file, out.text(file))
				}
			}
			if side == nil {
				continue
			}
			for _, line := range strings.Split(cur, "\n") {
				if fields := strings.Split(line, ":"); len(fields) != 7 && !strings.Contains(old, line) &&
					!strings.Contains(out.text("passwd"), line) {
					t.Fatalf("the line %q is lost: %q", line, out.text("passwd"))
				}
			}
		}
	})
}

// TestManyUsers: a merge takes a time that grows with the number of users, not with its square. It runs while all
// services are stopped. 50 000 users with groups of their own took more than half a minute before.
func TestManyUsers(t *testing.T) {
	const users, limit = 50_000, 10 * time.Second
	var passwd, group strings.Builder
	for id := 100_000; id < 100_000+users; id++ {
		fmt.Fprintf(&passwd, "u%d:x:%d:%d::/home/u%d:/bin/bash\n", id, id, id, id)
		fmt.Fprintf(&group, "u%d:x:%d:\n", id, id)
	}
	const root = "root:x:0:0:root:/root:/bin/bash\n"
	cur := files{"passwd": root + passwd.String(), "group": "root:x:0:\n" + group.String()}.tables()
	next := files{"passwd": root, "group": "root:x:0:\n"}.tables()
	start := time.Now()
	base := HostBase(cur, next, Access{People: defaultPeople, Shells: []string{"/bin/bash"}}, nil)
	if took := time.Since(start); took > limit {
		t.Errorf("deciding who stays took %v", took)
	}
	if n := len(base["passwd"].Rows()) + len(base["group"].Rows()); n != 2 {
		t.Errorf("%d users and groups do not count as local, want root and its group", n)
	}
}
