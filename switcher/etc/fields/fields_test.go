package fields

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/listing"
)

func TestJoin(t *testing.T) {
	file := func(sum string, mode uint32, change ...func(*listing.Entry)) listing.Entry {
		e := listing.Entry{Kind: listing.File, Sum: sum, Mode: mode}
		for _, c := range change {
			c(&e)
		}
		return e
	}
	owned := func(uid, gid uint32) func(*listing.Entry) { return func(e *listing.Entry) { e.UID, e.GID = uid, gid } }
	with := func(name, value string) func(*listing.Entry) {
		return func(e *listing.Entry) {
			e.Xattrs = maps.Clone(e.Xattrs)
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name] = value
		}
	}
	protected := func(e *listing.Entry) { e.Flags = 1 }
	const acl = "system.posix_acl_access"
	for _, test := range []struct {
		name      string
		o, c, x   listing.Entry
		fromImage bool
		want      listing.Entry
		conflict  string
	}{
		{"mode here, content there", file("1", 0o644), file("1", 0o600), file("2", 0o644), true, file("2", 0o600), ""},
		{"content here, tighter mode there", file("1", 0o644), file("L", 0o644), file("1", 0o600), false,
			file("L", 0o600), ""},
		{"content here, looser mode there", file("1", 0o600), file("L", 0o600), file("1", 0o644), false,
			file("L", 0o600), "mode"},
		{"content here, other group there", file("1", 0o640), file("L", 0o640), file("1", 0o640, owned(0, 7)), false,
			file("L", 0o640), "group"},
		{"content here, other owner there", file("1", 0o640), file("L", 0o640), file("1", 0o640, owned(7, 0)), false,
			file("L", 0o640), "owner"},
		{"content here, access list there", file("1", 0o640), file("L", 0o640), file("1", 0o640, with(acl, "www")), false,
			file("L", 0o640), "mode"},
		{"owner here, group and content there", file("1", 0o640), file("1", 0o640, owned(5, 0)),
			file("2", 0o640, owned(0, 7)), true, file("2", 0o640, owned(5, 7)), ""},
		{"mode on both", file("1", 0o644), file("1", 0o600), file("2", 0o640), true, file("2", 0o600), "mode"},
		{"the same mode, content there", file("1", 0o644), file("1", 0o600), file("2", 0o600), true, file("2", 0o600), ""},
		{"access list here, mode there", file("1", 0o644), file("1", 0o644, with(acl, "me")), file("1", 0o600), false,
			file("1", 0o644, with(acl, "me")), "mode"},
		{"attribute here, content there", file("1", 0o644), file("1", 0o644, with("user.a", "L")), file("2", 0o644), true,
			file("2", 0o644, with("user.a", "L")), ""},
		{"another attribute on each side", file("1", 0o644), file("1", 0o644, with("user.a", "L")),
			file("1", 0o644, with("user.b", "2")), false,
			file("1", 0o644, with("user.a", "L"), with("user.b", "2")), ""},
		{"one attribute on both sides", file("1", 0o644), file("1", 0o644, with("user.a", "L")),
			file("2", 0o644, with("user.a", "2")), true, file("2", 0o644, with("user.a", "L")), "user.a"},
		{"the label comes with the content", file("1", 0o644, with(listing.Label, "a")),
			file("1", 0o600, with(listing.Label, "b")), file("2", 0o644, with(listing.Label, "c")), true,
			file("2", 0o600, with(listing.Label, "c")), ""},
		{"a capability is for one content", file("1", 0o755), file("L", 0o755),
			file("1", 0o755, with("security.capability", "x")), false, file("L", 0o755), ChangedByBoth},
		{"set-id", file("1", 0o755), file("L", 0o755), file("1", 0o4755), false, file("L", 0o755), ChangedByBoth},
		{"protected here", file("1", 0o644), file("1", 0o600, protected), file("2", 0o644), false,
			file("1", 0o600, protected), ChangedByBoth},
		{"content on both", file("1", 0o644), file("L", 0o644), file("2", 0o600), false, file("L", 0o600), ChangedByBoth},
		{"another kind", file("1", 0o644), listing.Entry{Kind: listing.Link, Target: "a"}, file("2", 0o644), false,
			listing.Entry{Kind: listing.Link, Target: "a"}, ChangedByBoth},
		{"a directory that gives its group", listing.Entry{Kind: listing.Dir, Mode: 0o2755},
			listing.Entry{Kind: listing.Dir, Mode: 0o2755, GID: 7},
			listing.Entry{Kind: listing.Dir, Mode: 0o2775}, false, listing.Entry{Kind: listing.Dir, Mode: 0o2775, GID: 7}, ""},
		{"a directory", listing.Entry{Kind: listing.Dir, Mode: 0o755}, listing.Entry{Kind: listing.Dir, Mode: 0o700},
			listing.Entry{Kind: listing.Dir, Mode: 0o755, GID: 7}, false,
			listing.Entry{Kind: listing.Dir, Mode: 0o700, GID: 7}, ""},
	} {
		got := join(test.o, test.c, test.x, nil)
		if got.FromImage != test.fromImage || !reflect.DeepEqual(got.Entry, test.want) || got.Content != nil {
			t.Errorf("%s: %v %+v, want %v %+v", test.name, got.FromImage, got.Entry, test.fromImage, test.want)
		}
		if before, _, _ := strings.Cut(got.Conflict, ": "); before != test.conflict {
			t.Errorf("%s: conflict %q, want %q", test.name, got.Conflict, test.conflict)
		}
	}
}
