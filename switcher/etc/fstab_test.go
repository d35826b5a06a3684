package etc

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/fstab"
)

// TestMergeMovesSources: the fstab of a host with a swap file and a bind mount of its own root works in an image root,
// the report names both, and the next image changes nothing more.
func TestMergeMovesSources(t *testing.T) {
	const hostLines = "UUID=1 / ext4\n/swap.img none swap sw 0 0\n/opt/data /srv/data none bind\n"
	const lazyLines = "nas:/x /srv/x nfs x-systemd.automount\nnas:/y /mnt/y nfs x-systemd.automount\n"
	const want = "# updatectl: the root is an image: UUID=1 / ext4\n" +
		"# updatectl: the root is read-only and cannot hold a swap file: /swap.img none swap sw 0 0\n" +
		"/.updatectl/host/opt/data /srv/data none bind\n" + lazyLines +
		"/usr/share/x /mnt none bind\n"
	dir := t.TempDir()
	in := Inputs{
		Current: tree{"fstab": hostLines + lazyLines}.onDisk(t, dir+"/host"),
		Next:    tree{"fstab": "/usr/share/x /mnt none bind\n"}.onDisk(t, dir+"/next"),
		Sources: fstab.Sources{Kept: []string{"/var", "/srv"}, Mount: "/.updatectl/host"},
	}
	report, err := Merge(in, dir+"/first")
	if err != nil {
		t.Fatal(err)
	}
	if got := read1(t, dir+"/first/fstab"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, named := range []string{"/swap.img", "/opt/data", "/srv/x is mounted on first use"} {
		if !strings.Contains(strings.Join(report.Notes, "\n"), named) {
			t.Errorf("the report does not name %s: %q", named, report.Notes)
		}
	}
	in.Old, in.Current = in.Next, dir+"/first"
	if report, err = Merge(in, dir+"/second"); err != nil {
		t.Fatal(err)
	}
	if got := read1(t, dir+"/second/fstab"); got != want || len(report.Notes) != 1 { // the automount is named again
		t.Errorf("with the next image: %q\n%s", report.Notes, got)
	}
}
