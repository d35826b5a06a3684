package remake

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/testtree"
)

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
	image, site := testtree.Authority(t, "image"), testtree.Authority(t, "site")
	dir := testtree.Files{"ssl/certs/ca-certificates.crt": image, "updatectl/ca-certificates/site.crt": site,
		reserved.ToDerive: "certs\nmissing\n"}.OnDisk(t, t.TempDir())
	failure := errors.New("it failed")
	done, err := Derived(dir, rules, func([]string) error { return failure })
	if _, serr := os.Stat(dir + "/" + reserved.ToDerive); !errors.Is(err, failure) || len(done) > 0 || serr != nil {
		t.Errorf("after a failure: %v, %q, %v", err, done, serr)
	}
	if got := readFile(t, dir+"/ssl/certs/ca-certificates.crt"); got != image+site {
		t.Error("after a failure, the host's authority is not in the bundle")
	}
	var ran []string
	done, err = Derived(dir, rules, func(argv []string) error { ran = append(ran, argv[1]); return nil })
	if _, serr := os.Stat(dir + "/" + reserved.ToDerive); err != nil || !slices.Equal(ran, []string{"certs"}) ||
		serr == nil {
		t.Errorf("%v, ran %q, of %q", err, ran, done)
	}
	if done, err = Derived(dir, rules, func([]string) error { return nil }); err != nil || len(done) != 2 {
		t.Errorf("without a list: %q, %v", done, err)
	}
	if got := readFile(t, dir+"/ssl/certs/ca-certificates.crt"); got != image+site {
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
	text, err := os.ReadFile("../../../configs/derived.toml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := derived.Parse(string(text))
	if err != nil || len(rules) == 0 || !strings.Contains(rules[0].Name, "Debian") {
		t.Fatalf("the shipped list begins with another rule: %v, %v", rules, err)
	}
	rules = rules[:1]
	dir, share := t.TempDir(), t.TempDir()
	image, site := testtree.Authority(t, "image"), testtree.Authority(t, "site")
	etc := testtree.Files{"ca-certificates.conf": "image.crt\n!off.crt\n", "ssl/certs/": "",
		"updatectl/ca-certificates/site.crt": site}.OnDisk(t, dir)
	testtree.Files{"image.crt": image, "off.crt": testtree.Authority(t, "off")}.OnDisk(t, share)
	_, err = Derived(etc, rules, func(argv []string) error {
		args := append(argv[1:], "--certsconf", etc+"/ca-certificates.conf", "--certsdir", share, "--etccertsdir",
			etc+"/ssl/certs", "--hooksdir", "/nonexistent", "--localcertsdir", "/nonexistent")
		out, err := exec.Command(argv[0], args...).CombinedOutput()
		t.Logf("%s", bytes.TrimSpace(out))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, etc+"/ssl/certs/ca-certificates.crt"); got != image+site {
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

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
