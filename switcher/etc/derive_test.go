package etc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/etc/derived"
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

// authority returns a new certificate authority as PEM.
func authority(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestDerivedFilesComeFromTheImage: one local authority made the bundle of this host local: authorities that the image
// does not trust any more stayed, and new ones were missing.
func TestDerivedFilesComeFromTheImage(t *testing.T) {
	rules := shippedRules(t)
	gone, stays, fresh, site := authority(t, "gone"), authority(t, "stays"), authority(t, "fresh"), authority(t, "site")
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
	if stamp := read1(t, dir+"/etc/"+toDerive); stamp != "ca-certificates of Debian\nca-certificates of Fedora\n"+
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
	if _, err := os.Stat(dir + "/etc/" + toDerive); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an untouched host makes files anew: %v", err)
	}
}

// TestLocalAuthoritiesAreAdopted: /usr/local of the host root does not come along, and its authorities must.
func TestLocalAuthoritiesAreAdopted(t *testing.T) {
	site, image := authority(t, "site"), authority(t, "image")
	const bundle, file = "ssl/certs/ca-certificates.crt", "updatectl/ca-certificates/corp_site.crt"
	for name, test := range map[string]struct {
		kept   string
		copied bool
	}{"left behind": {"/var", true}, "kept as state": {"/usr/local", false}} {
		dir := t.TempDir()
		cur := tree{bundle: site}.onDisk(t, dir+"/host/etc")
		next := tree{bundle: image}.onDisk(t, dir+"/2/etc")
		tree{"corp/site.crt": site, "README": "x", "key.crt": "no certificate"}.onDisk(t, dir+"/host"+localShare)
		in := Inputs{Current: cur, Next: next, Host: dir + "/host", Derived: shippedRules(t),
			Sources: HostSources{Kept: []string{test.kept}}}
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

func TestMergeAuthorities(t *testing.T) {
	for _, test := range []struct{ name, old, cur, next, want string }{
		{"switched off here", "a\nb\n", "!a\nb\n", "# c\na\nb\nc\n", "# c\n!a\nb\nc\n"},
		{"switched on here", "!a\n", "a\n", "!a\nb\n", "a\nb\n"},
		{"switched off by the image", "a\n", "a\n", "!a\n", "!a\n"},
		{"switched off before the first image", "", "!a\nb\n", "a\n!b\n", "!a\n!b\n"},
		{"not in the image any more", "a\nb\n", "!a\nb\n", "b\n", "b\n"},
		{"switched off as the last line", "a", "!a", "a", "!a\n"},
		{"nothing", "", "", "", ""},
	} {
		if got := mergeAuthorities([]byte(test.old), []byte(test.cur), []byte(test.next)); string(got) != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
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

// TestDerive: programs that the merge has listed run, their failures stop nothing, and authorities are in the bundle.
func TestDerive(t *testing.T) {
	rules, err := derived.Parse(`
[[derived]]
name = "certs"
files = ["ssl/certs/*.pem -> /"]
run = ["/bin/true", "certs"]
bundle = ["ssl/certs/ca-certificates.crt"]
reason = "r"
[[derived]]
name = "missing"
files = ["a"]
run = ["/bin/no-such-program"]
reason = "r"
[[derived]]
name = "unlisted"
files = ["b"]
run = ["/bin/true", "unlisted"]
reason = "r"
`)
	if err != nil {
		t.Fatal(err)
	}
	image, site := authority(t, "image"), authority(t, "site")
	dir := tree{"ssl/certs/ca-certificates.crt": image, "updatectl/ca-certificates/site.crt": site,
		toDerive: "certs\nmissing\n"}.onDisk(t, t.TempDir())
	failure := errors.New("it failed")
	done, err := Derive(dir, rules, func([]string) error { return failure })
	if _, serr := os.Stat(dir + "/" + toDerive); !errors.Is(err, failure) || len(done) > 0 || serr != nil {
		t.Errorf("after a failure: %v, %q, %v", err, done, serr)
	}
	if got := read1(t, dir+"/ssl/certs/ca-certificates.crt"); got != image+site {
		t.Error("after a failure, the host's authority is not in the bundle")
	}
	var ran []string
	done, err = Derive(dir, rules, func(argv []string) error { ran = append(ran, argv[1]); return nil })
	if _, serr := os.Stat(dir + "/" + toDerive); err != nil || !slices.Equal(ran, []string{"certs"}) || serr == nil {
		t.Errorf("%v, ran %q, of %q", err, ran, done)
	}
	if done, err = Derive(dir, rules, func([]string) error { return nil }); err != nil || len(done) != 2 {
		t.Errorf("without a list: %q, %v", done, err)
	}
	if got := read1(t, dir+"/ssl/certs/ca-certificates.crt"); got != image+site {
		t.Error("after more runs, the bundle is another one")
	}
	if link, err := os.Readlink(dir + "/ssl/certs/site.pem"); link != "/etc/updatectl/ca-certificates/site.crt" {
		t.Errorf("site.pem: %q, %v", link, err)
	}
}

// TestDebiansProgram runs the real program: it makes what the shipped list says that it makes.
func TestDebiansProgram(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/update-ca-certificates"); err != nil {
		t.Fatal("`make setup` installs what this test needs: ", err)
	}
	rules := shippedRules(t)[:1]
	dir, share := t.TempDir(), t.TempDir()
	image, site := authority(t, "image"), authority(t, "site")
	etc := tree{"ca-certificates.conf": "image.crt\n!off.crt\n", "ssl/certs/": "",
		"updatectl/ca-certificates/site.crt": site}.onDisk(t, dir)
	tree{"image.crt": image, "off.crt": authority(t, "off")}.onDisk(t, share)
	_, err := Derive(etc, rules, func(argv []string) error {
		args := append(argv[1:], "--certsconf", etc+"/ca-certificates.conf", "--certsdir", share, "--etccertsdir",
			etc+"/ssl/certs", "--hooksdir", "/nonexistent", "--localcertsdir", "/nonexistent")
		out, err := exec.Command(argv[0], args...).CombinedOutput()
		t.Logf("%s", bytes.TrimSpace(out))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := read1(t, etc+"/ssl/certs/ca-certificates.crt"); got != image+site {
		t.Errorf("the bundle is %q", got)
	}
	names, err := os.ReadDir(etc + "/ssl/certs")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		target, err := os.Readlink(filepath.Join(etc, "ssl/certs", n.Name()))
		target = strings.Replace(target, share, "/usr/share/ca-certificates", 1)
		if !rules.Makes("ssl/certs/"+n.Name(), target, err == nil) {
			t.Errorf("the list does not know that the program makes %s -> %q", n.Name(), target)
		}
	}
	if len(names) < 3 { // a certificate, its hash, the bundle
		t.Errorf("only %d files were made", len(names))
	}
}
