package etc

import (
	"fmt"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/adopted"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

// tree is one side in short form: "a/b": "content", "d/": "", "l": "-> target". A mode other than the usual one is
// written "content|600".
type tree map[string]string

// side returns the snapshot of a tree that is on no disk.
func (t tree) side() snapshot {
	s := snapshot{Directory: listing.Directory{Tree: listing.Tree{".": {Kind: listing.Dir, Mode: 0o755}}},
		tables: table.Tables{}, text: map[string][]byte{}}
	s.access.People = accounts.ParseLoginDefs(nil)
	for name, value := range t {
		for p := path.Dir(name); p != "."; p = path.Dir(p) {
			if _, ok := t[p+"/"]; !ok && strings.TrimSuffix(name, "/") != p {
				s.Tree[p] = listing.Entry{Kind: listing.Dir, Mode: 0o755}
			}
		}
		value, mode, _ := strings.Cut(value, "|")
		e := listing.Entry{Mode: 0o644}
		fmt.Sscanf(mode, "%o", &e.Mode)
		target, link := strings.CutPrefix(value, "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			e.Kind = listing.Dir
			if mode == "" {
				e.Mode = 0o755
			}
		case link:
			e.Kind, e.Target = listing.Link, target
		default:
			e.Kind, e.Sum = listing.File, listing.Sum([]byte(value))
			s.text[name] = []byte(value)
			if slices.Contains(table.Files, name) {
				s.tables[name] = table.Parse(name, []byte(value))
			} else if name == "shells" {
				s.shells = strings.Fields(value)
			}
		}
		s.Tree[strings.TrimSuffix(name, "/")] = e
	}
	return s
}

// result returns an outcome in the same short form: the side of each path, or its text when it was merged.
func (out *outcome) result() tree {
	t := tree{}
	for name, p := range out.paths {
		if name == "." || p.side == nowhere {
			continue
		}
		value := map[side]string{current: "local", image: "image"}[p.side]
		if p.content != nil {
			value = string(p.content)
		}
		if p.entry.Kind == listing.Dir {
			name += "/"
		}
		t[name] = value
	}
	return t
}

func mustResolve(t *testing.T, old *snapshot, cur, next snapshot, adopt ...string) *outcome {
	t.Helper()
	list, err := adopted.Parse(adopt)
	if err != nil {
		t.Fatal(err)
	}
	known, _ := accounts.ParseLedger(nil)
	out, err := resolve(old, cur, next, list, known, derivation{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func threeWay(t *testing.T, old, cur, next tree) *outcome {
	t.Helper()
	o := old.side()
	return mustResolve(t, &o, cur.side(), next.side())
}

func TestThreeWay(t *testing.T) {
	const (
		addedBoth = "added here and by the image, differently; the local one is kept"
		deleted   = "deleted here and changed by the image; stays deleted"
		dropped   = "changed here and dropped by the image; kept"
		both      = "changed here and by the image, differently; the local one is kept"
		dirGone   = "the image has no directory here any more; kept, something in it was changed here"
		below     = "the image changes it, below a directory that was removed or replaced here; left out"
	)
	for _, test := range []struct {
		name           string
		old, cur, next tree
		want           tree
		report         Report
	}{
		{
			name: "unchanged here", old: tree{"f": "1"}, cur: tree{"f": "1"}, next: tree{"f": "2"},
			want: tree{"f": "image"}, report: Report{Taken: []string{"f"}},
		},
		{
			name: "unchanged in the image", old: tree{"f": "1"}, cur: tree{"f": "L"}, next: tree{"f": "1"},
			want: tree{"f": "local"}, report: Report{Kept: []string{"f"}},
		},
		{
			name: "both, differently", old: tree{"f": "1"}, cur: tree{"f": "L"}, next: tree{"f": "2"},
			want: tree{"f": "local", ".f.image.dpkg-new": "image"}, report: Report{Kept: []string{"f"},
				Conflicts: []Conflict{{Path: "f", Reason: both, Beside: ".f.image.dpkg-new"}}},
		},
		{
			name: "both, equally", old: tree{"f": "1"}, cur: tree{"f": "2"}, next: tree{"f": "2"},
			want: tree{"f": "local"}, report: Report{},
		},
		{
			name: "mode only", old: tree{"f": "1"}, cur: tree{"f": "1|600"}, next: tree{"f": "1"},
			want: tree{"f": "local"}, report: Report{Kept: []string{"f"}},
		},
		{
			name: "deleted here", old: tree{"f": "1"}, cur: tree{}, next: tree{"f": "1"}, want: tree{},
			report: Report{Removed: []string{"f"}},
		},
		{
			name: "deleted here, changed there", old: tree{"f": "1"}, cur: tree{}, next: tree{"f": "2"},
			want: tree{}, report: Report{Removed: []string{"f"}, Conflicts: []Conflict{{Path: "f", Reason: deleted}}},
		},
		{name: "deleted by both", old: tree{"f": "1"}, cur: tree{}, next: tree{}, want: tree{}, report: Report{}},
		{
			name: "dropped by the image", old: tree{"f": "1"}, cur: tree{"f": "1"}, next: tree{}, want: tree{},
			report: Report{Taken: []string{"f"}},
		},
		{
			name: "changed here, dropped there", old: tree{"f": "1"}, cur: tree{"f": "L"}, next: tree{},
			want: tree{"f": "local"}, report: Report{Kept: []string{"f"}, Conflicts: []Conflict{{Path: "f", Reason: dropped}}},
		},
		{
			name: "added here", old: tree{}, cur: tree{"f": "L"}, next: tree{}, want: tree{"f": "local"},
			report: Report{Added: []string{"f"}},
		},
		{
			name: "added by the image", old: tree{}, cur: tree{}, next: tree{"f": "1"}, want: tree{"f": "image"},
			report: Report{Taken: []string{"f"}},
		},
		{
			name: "added by both",
			old:  tree{},
			cur:  tree{"f": "L"},
			next: tree{"f": "1"},
			want: tree{"f": "local", ".f.image.dpkg-new": "image"},
			report: Report{Kept: []string{"f"},
				Conflicts: []Conflict{{Path: "f", Reason: addedBoth, Beside: ".f.image.dpkg-new"}}},
		},
		{
			name: "a new directory is one line", old: tree{}, cur: tree{"d/a": "1", "d/b": "2"}, next: tree{},
			want: tree{"d/": "local", "d/a": "local", "d/b": "local"}, report: Report{Added: []string{"d/"}},
		},
		{
			name:   "a dropped directory is one line",
			old:    tree{"d/a": "1", "d/e/b": "1"},
			cur:    tree{"d/a": "1", "d/e/b": "1"},
			next:   tree{},
			want:   tree{},
			report: Report{Taken: []string{"d/"}},
		},
		{
			name: "link retargeted here", old: tree{"l": "-> a"}, cur: tree{"l": "-> b"}, next: tree{"l": "-> a"},
			want: tree{"l": "local"}, report: Report{Kept: []string{"l"}},
		},
		{
			name: "file became a link in the image", old: tree{"f": "1"}, cur: tree{"f": "1"},
			next: tree{"f": "-> a"}, want: tree{"f": "image"}, report: Report{Taken: []string{"f"}},
		},
		{
			name:   "dropped directory with a local file",
			old:    tree{"d/a": "1"},
			cur:    tree{"d/a": "1", "d/mine": "L"},
			next:   tree{},
			want:   tree{"d/": "local", "d/mine": "local"},
			report: Report{Added: []string{"d/mine"}, Taken: []string{"d/a"}},
		},
		{
			name: "directory became a file, local file in it",
			old:  tree{"d/a": "1"},
			cur:  tree{"d/a": "1", "d/e/mine": "L"},
			next: tree{"d": "1"},
			want: tree{"d/": "local", "d/e/": "local", "d/e/mine": "local"},
			report: Report{
				Added:     []string{"d/e/"},
				Kept:      []string{"d"},
				Taken:     []string{"d/a"},
				Conflicts: []Conflict{{Path: "d", Reason: dirGone}},
			},
		},
		{
			name: "directory became a file, nothing local", old: tree{"d/a": "1"}, cur: tree{"d/a": "1"},
			next: tree{"d": "1"}, want: tree{"d": "image"}, report: Report{Taken: []string{"d", "d/a"}},
		},
		{
			name:   "directory replaced here, image adds to it",
			old:    tree{"d/a": "1"},
			cur:    tree{"d": "-> /srv/d"},
			next:   tree{"d/a": "1", "d/new": "2"},
			want:   tree{"d": "local"},
			report: Report{Kept: []string{"d"}, Removed: []string{"d/a"}, Conflicts: []Conflict{{Path: "d/new", Reason: below}}},
		},
		{
			name:   "directory removed here, image adds to it",
			old:    tree{"d/a": "1"},
			cur:    tree{},
			next:   tree{"d/a": "1", "d/new": "2"},
			want:   tree{},
			report: Report{Removed: []string{"d/"}, Conflicts: []Conflict{{Path: "d/new", Reason: below}}},
		},
		{
			name:   "identity stays",
			old:    tree{"machine-id": "a", "ssh/ssh_host_rsa_key": "1"},
			cur:    tree{"machine-id": "a", "ssh/ssh_host_rsa_key": "1"},
			next:   tree{"machine-id": "b", "ssh/ssh_host_rsa_key": "2"},
			want:   tree{"machine-id": "local", "ssh/": "image", "ssh/ssh_host_rsa_key": "local"},
			report: Report{Kept: []string{"machine-id", "ssh/ssh_host_rsa_key"}},
		},
		{
			name:   "the image's own",
			old:    tree{"os-release": "1", "ld.so.cache": "1"},
			cur:    tree{"os-release": "L", "ld.so.cache": "L", ".updated": "L"},
			next:   tree{"os-release": "2", "ld.so.cache": "2"},
			want:   tree{"os-release": "image", "ld.so.cache": "image"},
			report: Report{Taken: []string{".updated", "ld.so.cache", "os-release"}},
		},
		{
			name: "backups are nobody's conflict", old: tree{"passwd-": "1"}, cur: tree{"passwd-": "L"},
			next: tree{"passwd-": "2"}, want: tree{"passwd-": "local"}, report: Report{Kept: []string{"passwd-"}},
		},
		{
			name:   "fstab from here, filtered",
			old:    tree{"fstab": ""},
			cur:    tree{"fstab": "/dev/a / ext4\n/dev/b /srv ext4\n"},
			next:   tree{"fstab": ""},
			want:   tree{"fstab": "# updatectl: the root is an image: /dev/a / ext4\n/dev/b /srv ext4\n"},
			report: Report{Kept: []string{"fstab"}, Notes: []string{"fstab: lines that mount over the image are commented out"}},
		},
		{
			name: "fstab filtered earlier is no local change",
			old:  tree{"fstab": "/dev/a / ext4\n"},
			cur:  tree{"fstab": "# updatectl: the root is an image: /dev/a / ext4\n"},
			next: tree{"fstab": "/dev/c / xfs\n"},
			want: tree{"fstab": "# updatectl: the root is an image: /dev/c / xfs\n"},
			report: Report{
				Taken: []string{"fstab"},
				Notes: []string{"fstab: lines that mount over the image are commented out"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := threeWay(t, test.old, test.cur, test.next)
			if got := out.result(); !reflect.DeepEqual(got, test.want) {
				t.Errorf("result:\n got %q\nwant %q", got, test.want)
			}
			test.report.finish()
			if !reflect.DeepEqual(out.report, test.report) {
				t.Errorf("report:\n got %+v\nwant %+v", out.report, test.report)
			}
		})
	}
}

func TestWhatAMountHidesIsUnchanged(t *testing.T) {
	old, cur, next := tree{"d/a": "1", "resolv.conf": "1"}.side(), tree{}.side(),
		tree{"d/a": "2", "resolv.conf": "1"}.side()
	cur.Mounts = []string{"d", "resolv.conf"}
	out := mustResolve(t, &old, cur, next)
	want := tree{"d/": "image", "d/a": "image", "resolv.conf": "image"}
	if got := out.result(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(out.report.Notes) != 2 || len(out.report.Conflicts) != 0 {
		t.Errorf("report: %+v", out.report)
	}
}

func TestOwnerOfOneSideIsComparedByName(t *testing.T) {
	old := tree{"passwd": "root:x:0:0:::\nredis:x:100:0:::\n", "redis.conf": "1"}.side()
	cur := tree{"passwd": "root:x:0:0:::\nredis:x:105:0:::\n", "redis.conf": "1"}.side()
	next := tree{"passwd": "root:x:0:0:::\nredis:x:101:0:::\n", "redis.conf": "2"}.side()
	for s, uid := range map[*snapshot]uint32{&old: 100, &cur: 105, &next: 101} {
		e := s.Tree["redis.conf"]
		e.UID = uid
		s.Tree["redis.conf"] = e
	}
	out := mustResolve(t, &old, cur, next)
	if p := out.paths["redis.conf"]; p.side != image || p.entry.UID != 105 {
		t.Errorf("redis.conf from %d with uid %d, want the image's with the host's uid 105", p.side, p.entry.UID)
	}
}

func TestLabelsDoNotCount(t *testing.T) {
	a := listing.Entry{Kind: listing.File, Xattrs: map[string]string{listing.Label: "old_t", "user.a": "1"}}
	b := listing.Entry{Kind: listing.File, Xattrs: map[string]string{listing.Label: "new_t", "user.a": "1"}}
	if !listing.Same(a, b, true, true) {
		t.Error("a label alone makes a difference")
	}
	b.Xattrs["user.a"] = "2"
	if listing.Same(a, b, true, true) {
		t.Error("an attribute makes no difference")
	}
}

func TestAdopt(t *testing.T) {
	host := tree{
		"machine-id": "H", "hostname": "H", "ssh/ssh_host_rsa_key": "H|600", "ssh/sshd_config": "H",
		"network/interfaces": "H", "app/conf": "H", "app/more": "H", "motd": "H", "passwd-": "H",
		"ld.so.cache": "H", "os-release": "H", "same": "1",
		"fstab": "/dev/a / ext4\n/dev/b /srv ext4\n",
	}
	next := tree{
		"hostname": "I", "ssh/sshd_config": "I", "motd": "I", "passwd-": "I", "ld.so.cache": "I",
		"os-release": "I", "same": "1", "new": "I",
		"fstab": "/dev/x /srv xfs\ntmpfs /tmp tmpfs\n",
	}
	out := mustResolve(t, nil, host.side(), next.side(), adopted.Default...)
	want := tree{
		"machine-id": "local", "hostname": "local", "network/": "local", "network/interfaces": "local",
		"ssh/": "image", "ssh/ssh_host_rsa_key": "local", "ssh/sshd_config": "local",
		"motd": "image", "passwd-": "image", "ld.so.cache": "image", "os-release": "image", "same": "image", "new": "image",
		"fstab": "# updatectl: the root is an image: /dev/a / ext4\n/dev/b /srv ext4\ntmpfs /tmp tmpfs\n",
	}
	if got := out.result(); !reflect.DeepEqual(got, want) {
		t.Errorf("result:\n got %q\nwant %q", got, want)
	}
	report := Report{
		Kept:       []string{"fstab", "hostname", "ssh/sshd_config"},
		Added:      []string{"machine-id", "network/", "ssh/ssh_host_rsa_key"},
		Notes:      []string{"fstab: lines that mount over the image are commented out"},
		NotAdopted: NotAdopted{Samples: []string{"app/", "motd"}},
	}
	report.finish()
	if !reflect.DeepEqual(out.report, report) {
		t.Errorf("report:\n got %+v\nwant %+v", out.report, report)
	}
	if out.report.NotAdopted.Count != 2 {
		t.Errorf("%d not adopted, want 2", out.report.NotAdopted.Count)
	}
}

// TestAdoptAccess: who may log in, from where, and what a host mounts is its identity.
func TestAdoptAccess(t *testing.T) {
	host := tree{
		"ssh/sshd_config": "H", "ssh/sshd_config.d/10-port.conf": "H", "pam.d/sshd": "H", "security/access.conf": "H",
		"nsswitch.conf": "H", "krb5.keytab": "H|600", "nftables.conf": "H", "ufw/user.rules": "H", "cloud/cloud.cfg": "H",
		"hosts.allow": "H", "wireguard/wg0.conf": "H|600", "ssl/private/www.key": "H|640", "sudoers": "H|440",
		"lvm/devices/system.devices": "H", "multipath/bindings": "H", "mdadm/mdadm.conf": "H",
		"systemd/system/srv-data.mount":                            "H",
		"systemd/system/local-fs.target.wants/srv-data.mount":      "-> ../srv-data.mount",
		"systemd/system/home.automount":                            "H",
		"systemd/system/snap-core-1.mount":                         "H",
		"systemd/system/multi-user.target.wants/snap-core-1.mount": "-> ../snap-core-1.mount",
		"systemd/system/site.service":                              "H", "cron.d/site": "H", "nginx/nginx.conf": "H",
	}
	next := tree{
		"ssh/sshd_config": "I", "ssh/sshd_config.d/50-cloud.conf": "I", "pam.d/sshd": "I", "pam.d/new": "I",
		"nsswitch.conf": "I", "nftables.conf": "I", "cloud/cloud.cfg": "I",
		"cloud/cloud.cfg.d/x.cfg": "I", "sudoers": "I|440",
	}
	out := mustResolve(t, nil, host.side(), next.side(), adopted.Default...)
	got := out.result()
	for name := range host {
		want := "local"
		switch name {
		case "systemd/system/snap-core-1.mount", "systemd/system/multi-user.target.wants/snap-core-1.mount",
			"systemd/system/site.service", "cron.d/site", "nginx/nginx.conf":
			want = ""
		}
		if got[name] != want {
			t.Errorf("%s comes from %q, want %q", name, got[name], want)
		}
	}
	if got["ssh/sshd_config.d/50-cloud.conf"] != "" || got["pam.d/new"] != "image" {
		t.Errorf("sshd_config.d is not the host's alone, or pam.d is: %q", got)
	}
	if want := []string{"cloud/cloud.cfg.d/", "ssh/sshd_config.d/50-cloud.conf"}; !slices.Equal(out.report.Removed, want) {
		t.Errorf("removed: %q, want %q", out.report.Removed, want)
	}
}

// TestNetworkOfTheHostIsTakenWhole: of two configurations for one interface, the name of the file decides.
func TestNetworkOfTheHostIsTakenWhole(t *testing.T) {
	image := tree{"systemd/network/10-dhcp.network": "I", "netplan/50-cloud-init.yaml": "I", "network/interfaces": "I"}
	const loopback = "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n"
	for _, test := range []struct {
		name string
		host tree
		want []string // files of the image that come
	}{
		{"networkd", tree{"systemd/network/50-static.network": "H"}, nil},
		{"netplan", tree{"netplan/01.yaml": "H"}, nil},
		{"NetworkManager", tree{"NetworkManager/system-connections/a.nmconnection": "H|600"}, nil},
		{"ifupdown", tree{"network/interfaces": loopback + "iface eth0 inet dhcp\n"}, nil},
		{"ifupdown, in a directory", tree{"network/interfaces": loopback, "network/interfaces.d/eth0": "H"}, nil},
		{"ifupdown without an interface", tree{"network/interfaces": loopback},
			[]string{"systemd/network/10-dhcp.network", "netplan/50-cloud-init.yaml"}},
		{"an empty directory", tree{"systemd/network/": ""},
			[]string{"systemd/network/10-dhcp.network", "netplan/50-cloud-init.yaml", "network/interfaces"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := mustResolve(t, nil, test.host.side(), image.side(), adopted.Default...).result()
			for name := range image {
				if comes := got[name] == "image"; comes != slices.Contains(test.want, name) {
					t.Errorf("%s of the image comes: %v", name, comes)
				}
			}
			for name := range test.host {
				if got[name] != "local" {
					t.Errorf("%s of the host is %q", name, got[name])
				}
			}
		})
	}
}

// TestLaterImagesDoNotMixNetworks: network files of a later image do not mix with the host's either.
func TestLaterImagesDoNotMixNetworks(t *testing.T) {
	image1, image2 := tree{"systemd/network/10-a.network": "1"}, tree{
		"systemd/network/10-a.network": "2", "systemd/network/05-b.network": "2", "netplan/c.yaml": "2", "d": "2",
	}
	host := tree{"systemd/network/10-a.network": "1", "systemd/network/50-static.network": "H"}
	out := threeWay(t, image1, host, image2)
	want := tree{"systemd/": "image", "systemd/network/": "image", "systemd/network/10-a.network": "image",
		"systemd/network/50-static.network": "local", "netplan/": "image", "d": "image"}
	if got := out.result(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	const reason = "added by the image; left out, the network of this host is configured here"
	if want := []Conflict{
		{Path: "netplan/c.yaml", Reason: reason}, {Path: "systemd/network/05-b.network", Reason: reason},
	}; !slices.Equal(out.report.Conflicts, want) {
		t.Errorf("conflicts: %q, want %q", out.report.Conflicts, want)
	}
	if got := threeWay(t, image1, image1, image2).result(); got["systemd/network/05-b.network"] != "image" {
		t.Errorf("a host without a network of its own does not get the image's: %q", got)
	}
}

// randomTree returns small trees that often collide in names and types.
func randomTree(r *rand.Rand) tree {
	t := tree{}
	for range r.IntN(12) {
		name := string(rune('a' + r.IntN(3)))
		for range r.IntN(3) {
			name += "/" + string(rune('a'+r.IntN(3)))
		}
		if t.blocked(name) {
			continue
		}
		switch r.IntN(5) {
		case 0:
			t[name+"/"] = ""
		case 1:
			t[name] = fmt.Sprintf("-> %d", r.IntN(3))
		default:
			t[name] = fmt.Sprintf("%d|%o", r.IntN(3), 0o600+r.IntN(2)*0o44)
		}
	}
	return t
}

// blocked reports whether a name cannot be used because it, a parent or a child of it is used.
func (t tree) blocked(name string) bool {
	for have := range t {
		dir := strings.HasSuffix(have, "/")
		have = strings.TrimSuffix(have, "/")
		if paths.IsUnder(have, name) || paths.IsUnder(name, have) && (!dir || name == have) {
			return true
		}
	}
	return false
}

func (out *outcome) listing() listing.Tree {
	l := listing.Tree{}
	for name, p := range out.paths {
		if p.side != nowhere && !reserved.Notes.Has(name) {
			l[name] = p.entry
		}
	}
	return l
}

func sameListing(a, b listing.Tree) bool {
	for name := range listing.EveryPath(a, b) {
		if !listing.Same(a[name], b[name], a.Has(name), b.Has(name)) {
			return false
		}
	}
	return true
}

func TestMergeLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(2, uint64(time.Now().UnixNano())))
	for range 4000 {
		old, cur, next := randomTree(r), randomTree(r), randomTree(r)
		describe := fmt.Sprintf("old %q\ncur %q\nnext %q", old, cur, next)

		if out := threeWay(t, old, old, next); !sameListing(out.listing(), next.side().Tree) ||
			len(out.report.Conflicts) > 0 {
			t.Fatalf("an untouched host does not get the image's /etc: %q\n%s", out.result(), describe)
		}
		if out := threeWay(t, old, cur, old); !sameListing(out.listing(), cur.side().Tree) || len(out.report.Conflicts) > 0 {
			t.Fatalf("an unchanged image changes the host: %q\n%s", out.result(), describe)
		}
		out := threeWay(t, old, cur, next)
		o, c, got := old.side().Tree, cur.side().Tree, out.listing()
		for name, e := range c {
			if _, inOld := o[name]; !inOld && e.Kind != listing.Dir &&
				!listing.Same(got[name], e, got.Has(name), true) {
				t.Fatalf("%s was added here and is lost\n%s", name, describe)
			}
			was, now := o[name], got[name]
			lost := e.Kind != listing.Dir && !got.Has(name) || e.Kind != was.Kind && e.Kind != now.Kind ||
				e.Content() != was.Content() && e.Content() != now.Content() ||
				e.Kind == listing.File && e.Mode != was.Mode && e.Mode != now.Mode
			if e.Kind != listing.Dir && !listing.Same(was, e, o.Has(name), true) && lost {
				t.Fatalf("%s was changed here and is lost\n%s", name, describe)
			}
			if x := next.side().Tree[name]; e.Kind != listing.Dir && !listing.Same(now, e, true, true) &&
				now.Kind == listing.File &&
				now.Mode&^e.Mode != 0 && (now.Sum != x.Sum || was.Kind == listing.File && e.Mode != was.Mode) {
				t.Fatalf("%s of this host was opened\n%s", name, describe)
			}
		}
		for name := range got {
			if name != "." && got[path.Dir(name)].Kind != listing.Dir {
				t.Fatalf("%s has no directory\n%s", name, describe)
			}
		}
		again := threeWay(t, old, cur, next)
		if !reflect.DeepEqual(again.paths, out.paths) || !reflect.DeepEqual(again.report, out.report) {
			t.Fatalf("two runs differ\n%s", describe)
		}
		// Merged again as the running /etc of the same image, the result does not change.
		n := next.side()
		settled := n
		settled.Tree = got
		if twice := mustResolve(t, &n, settled, n); !sameListing(twice.listing(), got) {
			t.Fatalf("the result does not stay\n%s", describe)
		}
	}
}

func TestReportOrder(t *testing.T) {
	r := Report{Notes: []string{"b", "a", "b"}}
	r.conflict("b", "x")
	r.conflict("a", "y")
	r.conflict("a", "x")
	for i := range 25 {
		r.NotAdopted.Samples = append(r.NotAdopted.Samples, fmt.Sprintf("f%02d", 24-i))
	}
	r.NotAdopted.Samples = append(r.NotAdopted.Samples, "alt/a", "alt/b", "alt/c/", "alt/d", "app/a", "app/b")
	r.finish()
	if !slices.Equal(r.Notes, []string{"a", "b"}) || r.Conflicts[0].Reason != "x" || r.Kept == nil {
		t.Errorf("%+v", r)
	}
	if r.NotAdopted.Count != 31 || len(r.NotAdopted.Samples) != maxSamples ||
		!slices.Equal(r.NotAdopted.Samples[:4], []string{"alt/", "app/a", "app/b", "f00"}) {
		t.Errorf("%+v", r.NotAdopted)
	}
}
