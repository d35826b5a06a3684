package accounts

import (
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

func TestSudoers(t *testing.T) {
	s := ParseSudoers([]byte(strings.Join([]string{
		"# comment of ann ALL=(ALL) ALL", "#includedir /etc/sudoers.d", "@includedir /x", "Defaults:bob !lecture",
		"User_Alias OPS = carl , dora : DBAS = %dba, emil", "Cmnd_Alias STOP = /sbin/halt", "Runas_Alias R = frank",
		`gus, \`, `  hanna ALL = \`, "  /bin/a, /bin/b", "%sudo ALL=(ALL:ALL) ALL", "%#850 ALL=(ALL) ALL",
		"#1005 ALL = /bin/x", "#1006,ina ALL = /bin/x", "ALL, !jack ALL=(root) /bin/y", "+netgroup ALL=ALL",
		"%:winad ALL=ALL",
		"OPS ALL=(ALL) ALL", "kurt\tALL=(ALL) ALL", "broken line", "",
	}, "\n")))
	if want := []string{"carl", "dora", "emil", "gus", "hanna", "#1005", "#1006", "ina", "ALL", "OPS", "kurt"}; !slices.
		Equal(s.Users, want) {
		t.Errorf("users:\n got %q\nwant %q", s.Users, want)
	}
	if want := []string{"dba", "sudo", "#850"}; !slices.Equal(s.Groups, want) {
		t.Errorf("groups:\n got %q\nwant %q", s.Groups, want)
	}
}

func TestLoginDefs(t *testing.T) {
	for _, test := range []struct {
		text string
		want People
	}{
		{"", People{1000, 60000, 1000, 60000}},
		{"#UID_MIN 5\n UID_MIN\t\t 500 # why\nGID_MAX 70000\nUID_MAX x\nGID_MIN 0\n", People{500, 60000, 1000, 70000}},
	} {
		if got := ParseLoginDefs([]byte(test.text)); got != test.want {
			t.Errorf("%q: %+v, want %+v", test.text, got, test.want)
		}
	}
	if p := (People{1000, 100000, 1000, 100000}); p.isUser(nobody) || p.isGroup(nobody) || !p.isUser(99999) {
		t.Error("nobody is no person, 99999 is one")
	}
}

// TestWhoStays: each row is one reason to stay, or one for which it is not enough.
func TestWhoStays(t *testing.T) {
	const hash = "$y$j9T$x$y"
	shells := []string{"/bin/sh", "/bin/bash", "/usr/sbin/nologin"}
	for _, test := range []struct {
		name, passwd, shadow, group string
		access                      Access
		stays                       bool
	}{
		{name: "a service", passwd: "a:x:101:101::/var/a:/usr/sbin/nologin"},
		{name: "a person", passwd: "a:x:1000:101::/:/bin/false", stays: true},
		{name: "shell and password", passwd: "a:x:101:101::/:/bin/bash", shadow: hash, stays: true},
		{name: "shell and password in passwd", passwd: "a:" + hash + ":101:101::/:/bin/bash", stays: true},
		{name: "no shell is sh", passwd: "a:x:101:101::/:", shadow: hash, stays: true},
		{name: "no password needed", passwd: "a::101:101::/:/bin/sh", stays: true},
		{name: "shell and locked password", passwd: "a:x:101:101::/:/bin/bash", shadow: "!" + hash},
		{name: "shell and no password", passwd: "a:x:101:101::/:/bin/bash", shadow: "*"},
		{name: "shell without a line in shadow", passwd: "a:x:101:101::/:/bin/bash"},
		{name: "password and nologin, a shell on some hosts", passwd: "a:x:101:101::/:/usr/sbin/nologin", shadow: hash},
		{name: "password and no shell", passwd: "a:x:101:101::/:/bin/sync", shadow: hash},
		{name: "shell and home", passwd: "a:x:101:101::/home/a:/bin/bash", shadow: "!", stays: true},
		{name: "home that nobody made", passwd: "a:x:101:101::/home/a:/usr/sbin/nologin"},
		{name: "owner of a home", passwd: "a:x:101:101::/home/a:/bin/false",
			access: Access{Homes: []uint32{101}}, stays: true},
		{name: "keys", passwd: "a:x:101:101::/:/bin/bash", access: Access{Keys: []string{"a"}}, stays: true},
		{name: "spool", passwd: "a:x:101:101::/:/bin/false", access: Access{Spools: []string{"a"}}, stays: true},
		{name: "sudoers", passwd: "a:x:101:101::/:/bin/false",
			access: Access{Sudo: Sudo{Users: []string{"a"}}}, stays: true},
		{name: "sudoers by number", passwd: "a:x:101:101::/:/bin/false",
			access: Access{Sudo: Sudo{Users: []string{"#101"}}},
			stays:  true},
		{name: "group of sudoers", passwd: "a:x:101:101::/:/bin/false", group: "ops:x:7:a",
			access: Access{Sudo: Sudo{Groups: []string{"ops"}}}, stays: true},
		{name: "group of sudoers by number", passwd: "a:x:101:101::/:/bin/false", group: "ops:x:7:a",
			access: Access{Sudo: Sudo{Groups: []string{"#7"}}}, stays: true},
		{name: "any group", passwd: "a:x:101:101::/:/bin/false", group: "video:x:44:a"},
		{name: "docker", passwd: "a:x:101:101::/:/bin/false", group: "docker:x:997:a", stays: true},
		{name: "wheel as first group", passwd: "a:x:101:10::/:/bin/bash", group: "wheel:x:10:", stays: true},
		{name: "a service in adm as first group", passwd: "a:x:101:4::/:/bin/false", group: "adm:x:4:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cur := files{"passwd": lines(root, test.passwd), "group": lines("root:x:0:", "a:x:101:", test.group)}
			if test.shadow != "" {
				cur["shadow"] = lines("root:*:1::::::", "a:"+test.shadow+":1::::::")
			}
			test.access.Shells, test.access.People = shells, defaultPeople
			base := HostBase(cur.tables(), table.Tables{}, test.access, nil)
			if stays := !base["passwd"].Has("a"); stays != test.stays {
				t.Errorf("stays: %v, want %v", stays, test.stays)
			}
		})
	}
}

// TestServiceOfBothKeepsRights: of a service that the image has, too, the image's entry counts, and the host's groups.
func TestServiceOfBothKeepsRights(t *testing.T) {
	cur := files{
		"passwd": lines(root, "web:x:33:33:host:/var/www:/usr/sbin/nologin"),
		"group":  lines("root:x:0:", "web:x:33:", "docker:x:997:web"),
	}
	next := files{"passwd": lines(root, "web:x:33:33:image:/srv/www:/usr/sbin/nologin"),
		"group": lines("root:x:0:", "web:x:33:", "docker:x:996:")}
	out := mustMerge(t, nil, cur, next)
	if want := lines(root, "web:x:33:33:image:/srv/www:/usr/sbin/nologin"); out.text("passwd") != want {
		t.Errorf("got %q, want %q", out.text("passwd"), want)
	}
	if want := lines("root:x:0:", "web:x:33:", "docker:x:997:web"); out.text("group") != want {
		t.Errorf("got %q, want %q", out.text("group"), want)
	}
}
