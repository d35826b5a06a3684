//go:build lab

package integration

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestEtcIsMergedAndDerived: on an image root, a file that only had its mode changed gets the image's content, two
// changes of a text are joined, a conflict leaves the image's version beside the file, and the bundle of certificate
// authorities is the image's with the host's own. `etc diff` shows all of it, and `etc take` settles the conflict.
func TestEtcIsMergedAndDerived(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "etcmerge")
	s.settlesAtOnce()
	h := s.host
	const lines = "a\nb\nc\nd\ne\n"
	const bundle = "/etc/ssl/certs/ca-certificates.crt"
	pemOf := func(name string) string {
		return h.Must(t, "sh", "-ec", "openssl req -x509 -newkey ed25519 -nodes -keyout /dev/null -subj /CN="+name+
			" 2>/dev/null") + "\n"
	}
	pems := map[string]string{}
	for _, name := range []string{"gone", "stays", "fresh", "site"} {
		pems[name] = pemOf(name)
	}
	h.Must(t, "mkdir", "-p", "/usr/local/share/ca-certificates")
	if err := h.WriteFile("/usr/local/share/ca-certificates/site.crt", pems["site"], 0o644); err != nil {
		t.Fatal(err)
	}
	trusts := func(names ...string) (entries []layerEntry) {
		var conf, all string
		for _, name := range names {
			conf += "lab/" + name + ".crt\n"
			all += pems[name]
			entries = append(entries, aFile("usr/share/ca-certificates/lab/"+name+".crt", pems[name]))
		}
		return append(entries, aFile("etc/ca-certificates.conf", conf), aFile(bundle[1:], all))
	}
	trusted := func() (names []string) {
		all := h.Must(t, "cat", bundle) + "\n"
		for _, name := range []string{"gone", "stays", "fresh", "site"} {
			if strings.Contains(all, pems[name]) {
				names = append(names, name)
			}
		}
		return names
	}
	one, root1 := s.variant("one", "1", append(trusts("gone", "stays"), aFile("etc/mode.conf", "1\n"),
		aFile("etc/text.conf", lines),
		aFile("etc/both.conf", "1\n"))...)
	two, root2 := s.variant("two", "2", append(trusts("fresh", "stays"), aFile("etc/mode.conf", "2\n"),
		aFile("etc/text.conf", "a\nb\nc\nd\nE\n"),
		aFile("etc/both.conf", "2\n"))...)
	s.switches("apply", "--from", one)
	s.runs(root1, "1")
	if got := trusted(); !slices.Equal(got, []string{"gone", "stays", "site"}) {
		t.Errorf("on the first image, %q are trusted", got)
	}
	h.Must(t, "sh", "-ec", `chmod 600 /etc/mode.conf; sed -i s/a/A/ /etc/text.conf; echo L > /etc/both.conf
		echo '/opt/lib' > /etc/ld.so.conf.d/site.conf`)
	s.updatectl(exitAvailable, "stage", "--from", two)
	plan := s.updatectl(exitAvailable, "plan", "--full", "--from", two).Stdout
	for _, want := range []string{"merged", "/etc/mode.conf", "/etc/text.conf", "/etc/.both.conf.image.dpkg-new"} {
		if !strings.Contains(plan, want) {
			t.Errorf("plan does not name %s:\n%s", want, plan)
		}
	}
	s.switches("apply", "--from", two)
	s.runs(root2, "2")
	got := h.Must(t, "sh", "-ec", `stat -c %a /etc/mode.conf; cat /etc/mode.conf /etc/text.conf /etc/both.conf \
		/etc/.both.conf.image.dpkg-new`)
	if want := "600\n2\nA\nb\nc\nd\nE\nL\n2"; got != want {
		t.Errorf("/etc has %q, want %q", got, want)
	}
	if got := trusted(); !slices.Equal(got, []string{"stays", "fresh", "site"}) {
		t.Errorf("on the second image, %q are trusted", got)
	}
	h.Must(t, "sh", "-ec", "test -L /etc/ssl/certs/fresh.pem; test ! -e /etc/ssl/certs/gone.pem; "+
		"test -L /etc/ssl/certs/site.pem; openssl verify -CApath /etc/ssl/certs /etc/ssl/certs/site.pem")
	// The loader's cache was made anew in the new root, since its configuration was changed here.
	if r := h.Run(t.Context(), "sh", "-ec", `test ! -e /etc/.updatectl-derive
		systemctl show -P ConditionResult updatectl-derive.service`); r.Code != 0 || strings.TrimSpace(r.Stdout) != "yes" {
		t.Errorf("updatectl-derive.service: %s%s\n%s", r.Stdout, r.Stderr,
			h.Must(t, "journalctl", "-u", "updatectl-derive.service", "--no-pager"))
	}

	var diff struct {
		Differences []struct{ Path, Change, Diff string }
	}
	if err := json.Unmarshal([]byte(s.updatectl(exitDone, "etc", "diff", "--output", "json").Stdout), &diff); err != nil {
		t.Fatal(err)
	}
	changes := map[string]string{}
	for _, d := range diff.Differences {
		changes[d.Path] = d.Change
		if strings.Contains(d.Diff, "PRIVATE KEY") || d.Path == "text.conf" && !strings.Contains(d.Diff, "\n+A\n") {
			t.Errorf("the text of %s is shown as %q", d.Path, d.Diff)
		}
	}
	for path, want := range map[string]string{
		"mode.conf": "merged", "text.conf": "merged", "both.conf": "conflict", bundle[5:]: "derived",
		"ld.so.conf.d/site.conf": "added",
	} {
		if changes[path] != want {
			t.Errorf("%s is %q, want %q", path, changes[path], want)
		}
	}
	taken := s.updatectl(exitDone, "etc", "take", "/etc/both.conf").Stdout
	if got := h.Must(t, "cat", "/etc/both.conf"); got != "2" {
		t.Errorf("the image's version was not taken: %q", got)
	}
	_, undo, _ := strings.Cut(taken, "Undo  ")
	h.Must(t, "sh", "-ec", undo+"\ntest ! -e /etc/.both.conf.image.dpkg-new")
	if got := h.Must(t, "cat", "/etc/both.conf"); got != "L" {
		t.Errorf("%q did not bring the former version back: %q", undo, got)
	}
	if failed, err := h.FailedUnits(t.Context()); err != nil || slices.Contains(failed, "updatectl-derive.service") {
		t.Errorf("failed units %v, %v", failed, err)
	}
}
