package etc

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/fields"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

// TestOneFieldDoesNotFreezeOthers: who changes the mode of a file still gets its content from the image.
func TestOneFieldDoesNotFreezeOthers(t *testing.T) {
	out := threeWay(t, tree{"crontab": "1"}, tree{"crontab": "1|600"}, tree{"crontab": "2"})
	if p := out.paths["crontab"]; p.side != image || p.entry.Mode != 0o600 || len(out.report.Conflicts) > 0 {
		t.Errorf("crontab from %v with mode %o, conflicts %v", p.side, p.entry.Mode, out.report.Conflicts)
	}
	if want := []string{"crontab"}; !slices.Equal(out.report.Merged, want) || len(out.report.Kept) > 0 {
		t.Errorf("merged %q and kept %q, want %q and nothing", out.report.Merged, out.report.Kept, want)
	}
}

// TestJoinedByLines: changes of a text that do not touch are both in the result.
func TestJoinedByLines(t *testing.T) {
	const base, local, changed = "a\nb\nc\nd\n", "A\nb\nc\nd\n", "a\nb\nc\nD\n"
	out := threeWay(t, tree{"app.conf": base}, tree{"app.conf": local + "|600"}, tree{"app.conf": changed})
	want := tree{"app.conf": "A\nb\nc\nD\n", reserved.MergedList: "app.conf\n"}
	if got := out.result(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if p := out.paths["app.conf"]; p.entry.Mode != 0o600 || p.entry.Sum != listing.Sum(p.content) {
		t.Errorf("the result has mode %o", p.entry.Mode)
	}
	if r := out.report; !slices.Equal(r.Merged, []string{"app.conf"}) || len(r.Conflicts)+len(r.Kept)+len(r.Taken) > 0 {
		t.Errorf("report: %+v", r)
	}
	out = threeWay(t, tree{"a": base}, tree{"a": local}, tree{"a": changed + "|666"})
	if out.paths["a"].entry.Mode != 0o644 || len(out.report.Conflicts) != 1 {
		t.Errorf("joined text has mode %o, conflicts %v", out.paths["a"].entry.Mode, out.report.Conflicts)
	}
	// A change of the image that the host has already made is nothing new.
	out = threeWay(t, tree{"a": base}, tree{"a": "A\nb\nc\nD\n"}, tree{"a": changed})
	if got := out.result(); len(out.report.Merged) > 0 || got["a"] != "local" {
		t.Errorf("got %q, merged %q", got, out.report.Merged)
	}
}

// TestAccessIsNotJoined: half of two versions could let somebody in, or keep everybody out.
func TestAccessIsNotJoined(t *testing.T) {
	const base, local, changed = "a\nb\nc\nd\n", "A\nb\nc\nd\n", "a\nb\nc\nD\n"
	names := []string{
		"sudoers", "sudoers.d/ops", "pam.d/sshd", "ssh/sshd_config", "ssh/sshd_config.d/10.conf", "nsswitch.conf",
		"security/access.conf", "login.defs", "polkit-1/rules.d/10.rules", "nftables.conf", "hosts.deny",
		"netplan/10.yaml", "network/interfaces", "systemd/network/10.network", "updatectl/updatectl.toml", "crypttab",
		"passwd-", "ssl/openssl.cnf",
	}
	for _, name := range names {
		base, local, changed := tree{name: base}, tree{name: local}, tree{name: changed}
		out := threeWay(t, base, local, changed)
		if got := out.result(); got[name] != "local" || name != "passwd-" && len(out.report.Conflicts) != 1 {
			t.Errorf("%s: %q, conflicts %v", name, got, out.report.Conflicts)
		}
	}
	for _, name := range table.Files {
		if fields.MergesByLine(name) {
			t.Errorf("%s is joined by lines", name)
		}
	}
}

// TestBesideIsNotLoaded: the image's version is hidden, has a suffix of dpkg, and cannot be run.
func TestBesideIsNotLoaded(t *testing.T) {
	name := reserved.Beside("some.d/file")
	if name != "some.d/.file.image.dpkg-new" || reserved.Original(name) != "some.d/file" ||
		reserved.Original("some.d/file") != "" {
		t.Errorf("beside is %s", name)
	}
	out := threeWay(t, tree{"cron.daily/x": "1|755"}, tree{"cron.daily/x": "L|755"}, tree{"cron.daily/x": "2|4755"})
	if p := out.paths["cron.daily/.x.image.dpkg-new"]; p.entry.Mode != 0o644 || p.source != "cron.daily/x" {
		t.Errorf("the image's version has mode %o, from %q", p.entry.Mode, p.source)
	}
}

// TestBesideUntilSettled: the image's version stays beside the file until a person has settled the conflict.
func TestBesideUntilSettled(t *testing.T) {
	const beside = ".f.image.dpkg-new"
	image2, image3 := tree{"f": "2"}, tree{"f": "3"}
	for _, test := range []struct {
		name      string
		cur, next tree
		want      tree
		conflict  string
	}{
		{"nothing done, same image", tree{"f": "L", beside: "2"}, image2, tree{"f": "local", beside: "image"},
			"an earlier conflict that is not settled"},
		{"nothing done, next image", tree{"f": "L", beside: "2"}, image3, tree{"f": "local", beside: "image"},
			fields.ChangedByBoth},
		{"settled by hand", tree{"f": "L2"}, image2, tree{"f": "local"}, ""},
		{"the image's taken", tree{"f": "2", beside: "2"}, image3, tree{"f": "image"}, ""},
		{"removed here", tree{beside: "2"}, image2, tree{}, ""},
	} {
		out := threeWay(t, image2, test.cur, test.next)
		if got := out.result(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
		var conflicts []Conflict
		if test.conflict != "" {
			conflicts = []Conflict{{Path: "f", Reason: test.conflict, Beside: beside}}
		}
		if r := out.report; len(r.Added) > 0 || !slices.Equal(r.Conflicts, conflicts) {
			t.Errorf("%s: report %+v", test.name, r)
		}
	}
}

// TestJoinOnDisk: what is decided is what is written, with the sources read from the three directories.
func TestJoinOnDisk(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("line\n", 10)
	old := tree{"a.conf": "1\n" + long + "9\n", "b.conf": "1\n", "crontab": "1"}.onDisk(t, dir+"/old")
	cur := tree{"a.conf": "L\n" + long + "9\n", "b.conf": "L\n", "crontab": "1|600"}.onDisk(t, dir+"/cur")
	next := tree{"a.conf": "1\n" + long + "2\n", "b.conf": "2\n", "crontab": "2"}.onDisk(t, dir+"/next")
	rep, err := Merge(Inputs{Old: old, Current: cur, Next: next}, dir+"/etc")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a.conf": "L\n" + long + "2\n", "b.conf": "L\n", ".b.conf.image.dpkg-new": "2\n", "crontab": "2",
	} {
		if got := read1(t, dir+"/etc/"+name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if st, err := os.Stat(dir + "/etc/crontab"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("crontab: %v, %v", st.Mode(), err)
	}
	if want := []string{"a.conf", "crontab"}; !slices.Equal(rep.Merged, want) {
		t.Errorf("merged %q, want %q", rep.Merged, want)
	}
}
