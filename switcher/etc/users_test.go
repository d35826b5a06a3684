package etc

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// text returns a database of the outcome.
func (out *outcome) text(file string) string { return string(out.paths[file].content) }

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

const root = "root:x:0:0:root:/root:/bin/bash"

func TestLinkInsteadOfADatabaseIsAWhole(t *testing.T) {
	out := threeWay(t, tree{"passwd": lines(root)}, tree{"passwd": "-> ../var/passwd"}, tree{"passwd": lines(root)})
	if got := out.text("passwd"); got != "" {
		t.Errorf("merged by entry: %q", got)
	}
	want := []string{"passwd: not an ordinary file everywhere; merged as a whole, not by entry"}
	if !slices.Equal(out.report.Notes, want) {
		t.Errorf("notes:\n got %q\nwant %q", out.report.Notes, want)
	}
}

func TestAdoptUsers(t *testing.T) {
	host := tree{
		"passwd": lines("root:x:0:0:boss:/root:/usr/bin/zsh", "www:x:33:33:h::", "hostd:x:105:110:::",
			"alice:x:1000:1000::/home/alice:/usr/bin/fish", "nobody:x:65534:65534:::"),
		"shadow": lines("root:$y$r:150::::::", "www:*:1::::::", "hostd:!:1::::::", "alice:$y$a:160::::::"),
		"group": lines("root:x:0:", "video:x:44:hostd,alice", "www:x:33:", "docker:x:999:alice", "hostd:x:110:",
			"alice:x:1000:"),
		"gshadow": lines("root:*::", "video:*::hostd,alice", "docker:!::alice", "alice:!::"),
		"subuid":  lines("hostd:1:5", "alice:100000:65536", "1001:200000:65536"),
	}
	next := tree{
		"shells": "/bin/sh /usr/bin/zsh",
		"passwd": lines("root:x:0:0:root:/root:/bin/bash", "www:x:30:30:i:/w:", "imaged:x:105:110:::",
			"nobody:x:65534:65534:::"),
		"shadow":  lines("root:*:200:0:::::", "www:*:2::::::", "imaged:!:2::::::"),
		"group":   lines("root:x:0:", "video:x:44:imaged", "www:x:30:", "imaged:x:110:"),
		"gshadow": lines("root:*::", "video:*::imaged", "imaged:!::"),
		"subuid":  lines("imaged:100000:65536"),
	}
	out := mustResolve(t, nil, host.side(), next.side())
	for file, want := range map[string]string{
		"passwd": lines("root:x:0:0:root:/root:/usr/bin/zsh", "www:x:33:33:i:/w:",
			"alice:x:1000:1000::/home/alice:/usr/bin/fish", "nobody:x:65534:65534:::", "imaged:x:998:998:::"),
		"shadow": lines("root:$y$r:150:0:::::", "www:*:2::::::", "alice:$y$a:160::::::", "imaged:!:2::::::"),
		"group": lines("root:x:0:", "video:x:44:alice,imaged", "www:x:33:", "docker:x:999:alice",
			"alice:x:1000:", "imaged:x:998:"),
		"gshadow": lines("root:*::", "video:*::alice,imaged", "docker:!::alice", "alice:!::", "imaged:!::"),
		"subuid":  lines("alice:100000:65536", "1001:200000:65536", "imaged:265536:65536"),
	} {
		if got := out.text(file); got != want {
			t.Errorf("%s:\n got %q\nwant %q", file, got, want)
		}
	}
	want := Report{
		Kept: []string{"group", "gshadow", "passwd", "shadow", "subuid"},
		Conflicts: []Conflict{
			{Path: "group", Reason: "new group imaged is 110 in the image, which another group has or had here; it gets 998"},
			{Path: "passwd", Reason: "new user imaged is 105 in the image, which another user has or had here; it gets 998"},
			{Path: "subuid", Reason: "imaged: the image's range 100000 is in use here; moved to 265536"},
		},
		Notes: []string{
			"group: group docker is not in the image; kept, people here are in it",
			"passwd: the shell /usr/bin/fish of alice is not in the image's /etc/shells",
		},
		Renumbered: []string{
			"group www is 33 here and 30 in the image; files of the image show 33",
			"user www is 33 here and 30 in the image; files of the image show 33",
		},
	}
	want.NotAdopted.Users = []accounts.Account{{Name: "hostd", Number: 105}}
	want.NotAdopted.Groups = []accounts.Account{{Name: "hostd", Number: 110}}
	want.finish()
	if !reflect.DeepEqual(out.report, want) {
		t.Errorf("report:\n got %+v\nwant %+v", out.report, want)
	}
}

// A host without local changes gets the image's users, as long as the image keeps its own numbers.
func TestUntouchedHostGetsTheImagesUsers(t *testing.T) {
	old := tree{
		"passwd": lines("# v1", root, "a:x:100:100:::", "z:x:999:999:::"),
		"group":  lines("root:x:0:", "a:x:100:", "z:x:999:a"),
	}
	next := tree{
		"passwd": strings.TrimSuffix(lines("# v2", "z:x:999:999:new::", root, "b:x:101:101:::"), "\n"),
		"group":  lines("b:x:101:z", "root:x:0:", "z:x:999:"),
	}
	out := threeWay(t, old, old, next)
	for file := range next {
		if out.text(file) != next[file] {
			t.Errorf("%s:\n got %q\nwant %q", file, out.text(file), next[file])
		}
	}
}
