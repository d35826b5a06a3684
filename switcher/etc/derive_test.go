package etc

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/authorities"
	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// shippedRules returns the list that is shipped.
func shippedRules(t *testing.T) derived.List {
	t.Helper()
	text, err := os.ReadFile("../../configs/derived.toml")
	if err != nil {
		t.Fatal(err)
	}
	list, err := derived.Parse(string(text))
	if err != nil || len(list) < 6 {
		t.Fatalf("the shipped list has %d rules, %v", len(list), err)
	}
	return list
}

// TestDerivedFilesComeFromTheImage: one local authority made the bundle of this host local: authorities that the image
// does not trust any more stayed, and new ones were missing.
func TestDerivedFilesComeFromTheImage(t *testing.T) {
	rules := shippedRules(t)
	gone, stays := testtree.Authority(t, "gone"), testtree.Authority(t, "stays")
	fresh, site := testtree.Authority(t, "fresh"), testtree.Authority(t, "site")
	const bundle = "ssl/certs/ca-certificates.crt"
	dir := t.TempDir()
	old := tree{bundle: gone + stays, "ssl/certs/gone.pem": "-> /usr/share/ca-certificates/gone.crt",
		"ld.so.cache": "1", "ca-certificates.conf": "gone.crt\nstays.crt\n"}.onDisk(t, dir+"/1/etc")
	cur := tree{bundle: gone + stays + site, "ssl/certs/gone.pem": "-> /usr/share/ca-certificates/gone.crt",
		"ssl/certs/site.pem": "-> /usr/local/share/ca-certificates/site.crt", "ssl/certs/0123abcd.0": "-> site.pem",
		"ssl/certs/mine.pem": "mine", "updatectl/ca-certificates/site.crt": site,
		"ld.so.cache": "L", "ca-certificates.conf": "gone.crt\n!stays.crt\n"}.onDisk(t, dir+"/host/etc")
	next := tree{bundle: stays + fresh, "ssl/certs/fresh.pem": "-> /usr/share/ca-certificates/fresh.crt",
		"ld.so.cache": "2", "ca-certificates.conf": "fresh.crt\nstays.crt\n"}.onDisk(t, dir+"/2/etc")
	rep, err := Merge(Inputs{Old: old, Current: cur, Next: next, Host: dir + "/host", Derived: rules}, dir+"/etc")
	if err != nil {
		t.Fatal(err)
	}
	got := read1(t, dir+"/etc/"+bundle)
	if want := stays + fresh + site; got != want {
		t.Errorf("the bundle trusts gone: %v, fresh: %v, site: %v",
			strings.Contains(got, gone), strings.Contains(got, fresh), strings.Contains(got, site))
	}
	links, _ := filepath.Glob(dir + "/etc/ssl/certs/*")
	for i := range links {
		links[i] = filepath.Base(links[i])
	}
	if want := []string{"ca-certificates.crt", "fresh.pem", "mine.pem"}; !slices.Equal(links, want) {
		t.Errorf("ssl/certs has %q, want %q", links, want)
	}
	if conf := read1(t, dir+"/etc/ca-certificates.conf"); conf != "fresh.crt\n!stays.crt\n" {
		t.Errorf("ca-certificates.conf is %q", conf)
	}
	if cache := read1(t, dir+"/etc/ld.so.cache"); cache != "2" {
		t.Errorf("ld.so.cache is %q", cache)
	}
	if stamp := read1(t, dir+"/etc/"+reserved.ToDerive); stamp != "ca-certificates of Debian\nca-certificates of Fedora\n"+
		"ca-certificates of Arch Linux\n" {
		t.Errorf("to be made anew: %q", stamp)
	}
	if len(rep.Conflicts) > 0 {
		t.Errorf("conflicts: %v", rep.Conflicts)
	}
	// The next switch, and one of a host that changed nothing, have nothing of this.
	rep, err = Merge(Inputs{Old: old, Current: old, Next: next, Host: dir + "/1", Derived: rules}, dir+"/etc")
	if err != nil || read1(t, dir+"/etc/"+bundle) != stays+fresh {
		t.Errorf("an untouched host: %v, %+v", err, rep)
	}
	if _, err := os.Stat(dir + "/etc/" + reserved.ToDerive); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an untouched host makes files anew: %v", err)
	}
}

// TestLocalAuthoritiesAreAdopted: /usr/local of the host root does not come along, and its authorities must.
func TestLocalAuthoritiesAreAdopted(t *testing.T) {
	site, image := testtree.Authority(t, "site"), testtree.Authority(t, "image")
	const bundle, file = "ssl/certs/ca-certificates.crt", "updatectl/ca-certificates/corp_site.crt"
	for name, test := range map[string]struct {
		kept   string
		copied bool
	}{"left behind": {"/var", true}, "kept as state": {"/usr/local", false}} {
		dir := t.TempDir()
		cur := tree{bundle: site}.onDisk(t, dir+"/host/etc")
		next := tree{bundle: image}.onDisk(t, dir+"/2/etc")
		tree{"corp/site.crt": site, "README": "x", "key.crt": "no certificate"}.onDisk(t, dir+"/host"+authorities.LocalShare)
		in := Inputs{Current: cur, Next: next, Host: dir + "/host", Derived: shippedRules(t),
			Sources: fstab.Sources{Kept: []string{test.kept}}}
		rep, err := Merge(in, dir+"/etc")
		if err != nil {
			t.Fatal(err)
		}
		if got := read1(t, dir+"/etc/"+bundle); got != image+site {
			t.Errorf("%s: the bundle has the image's %v, the host's %v", name, strings.Contains(got, image),
				strings.Contains(got, site))
		}
		if _, err := os.Stat(dir + "/etc/updatectl/ca-certificates/key.crt"); err == nil {
			t.Errorf("%s: what is no certificate is an authority", name)
		}
		if copied := slices.Contains(rep.Added, file); copied != test.copied {
			t.Errorf("%s: added %q", name, rep.Added)
		}
		if text, err := os.ReadFile(dir + "/etc/" + file); test.copied && (err != nil || string(text) != site) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// TestAlternatives: what a person chose stays while the image has it; an old choice must not point nowhere.
func TestAlternatives(t *testing.T) {
	dir := t.TempDir()
	host := tree{"alternatives/editor": "-> /usr/bin/vim", "alternatives/pager": "-> /usr/bin/less",
		"alternatives/vi": "-> /usr/bin/vim", "alternatives/awk": "-> /usr/bin/gawk"}.onDisk(t, dir+"/host/etc")
	next := tree{"alternatives/editor": "-> /usr/bin/nano", "alternatives/pager": "-> /usr/bin/more",
		"alternatives/vi": "-> /usr/bin/nano", "alternatives/awk": "-> /usr/bin/mawk"}.onDisk(t, dir+"/2/etc")
	tree{"editor": "manual\n/usr/bin/editor\nvi\n/usr/bin/vi\n\n/usr/bin/nano\n10\n\n",
		"pager": "auto\n/usr/bin/pager\n\n",
		"awk":   "manual\n/usr/bin/awk\n\n"}.onDisk(t, dir+"/host/var/lib/dpkg/alternatives")
	tree{"vim": "", "less": "", "nano": "", "more": "", "mawk": ""}.onDisk(t, dir+"/2/usr/bin")
	merge := func(old string) map[string]string {
		rep, err := Merge(Inputs{Old: old, Current: host, Next: next, Host: dir + "/host"}, dir+"/etc")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{"note": strings.Join(rep.Notes, "\n")}
		for _, name := range []string{"editor", "pager", "vi", "awk"} {
			got[name], _ = os.Readlink(dir + "/etc/alternatives/" + name)
		}
		return got
	}
	want := map[string]string{
		"editor": "/usr/bin/vim", "vi": "/usr/bin/vim", "pager": "/usr/bin/more", "awk": "/usr/bin/mawk",
		"note": "alternatives/awk: /usr/bin/gawk is not in the image; the image's choice is used",
	}
	if got := merge(""); !reflect.DeepEqual(got, want) {
		t.Errorf("adopted %q, want %q", got, want)
	}
	want["pager"] = "/usr/bin/less" // all are changes of this host
	if got := merge(next); !reflect.DeepEqual(got, want) {
		t.Errorf("merged %q, want %q", got, want)
	}
}
