//go:build lab

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vbatts/go-mtree"

	"github.com/updatectl/updatectl/integration/lab"
)

// listing is everything about the state of a host but access times, as the disk has it: directories of the host by
// name. What the agent keeps for itself is left out.
type listing map[string]*mtree.DirectoryHierarchy

// state lists the state on the host's disk, from outside, apart from some directories and files.
func (s *site) state(apart ...string) listing {
	s.Helper()
	keywords := []mtree.Keyword{"type", "size", "mode", "uid", "gid", "nlink", "link", "time", "sha256digest", "xattr"}
	isApart := func(path string, _ os.FileInfo) bool {
		return slices.ContainsFunc(append(apart, "var/lib/updatectl"), func(p string) bool {
			return strings.HasPrefix(path+"/", filepath.Join(s.host.Disk(), p)+"/")
		})
	}
	all := listing{}
	for _, dir := range []string{"var", "home", "root", "srv"} {
		listed, err := mtree.Walk(filepath.Join(s.host.Disk(), dir), []mtree.ExcludeFunc{isApart}, keywords, nil)
		if err != nil {
			s.Fatal(err)
		}
		all[dir] = listed
	}
	return all
}

// sameState expects the state to be as it was.
func (s *site) sameState(before listing, when string, apart ...string) {
	s.Helper()
	after := s.state(apart...)
	for dir := range before {
		changed, err := mtree.Compare(before[dir], after[dir], nil)
		if err != nil {
			s.Fatal(err)
		}
		for _, c := range changed {
			s.Errorf("%s, %s of /%s is %s: %v", when, c.Path(), dir, c.Type(), c.Diff())
		}
	}
}

// written is what the services of a running host write themselves.
var written = []string{"var/.updated", "var/log", "var/lib/systemd", "var/lib/redis", "var/tmp", "var/cache"}

// prepared is the data of an application, and migrate what a migration does to them.
const (
	prepared = `mkdir -p /var/lib/app/old /var/lib/app/empty; cd /var/lib/app
echo 1 > schema; echo row > table; ln table linked; ln -s schema current; echo gone > removed; echo x > old/file
chown 33:34 table; chmod 4750 removed; chown redis:redis old; chmod 2770 old
python3 -c 'import os; os.setxattr("table", "user.lab", b"one"); os.setxattr("removed", "trusted.lab", b"t")'
dd if=/dev/urandom of=big bs=1M count=8 status=none; touch -d 2001-01-01 schema table old .
echo kept > /srv/file; echo kept > /home/file; redis-cli set story kept; redis-cli save`
	migrate = `cd /var/lib/app
echo 2 > schema; echo more >> linked; rm removed; mv old new; chown -R 35:36 .; chmod 600 table; rmdir empty
python3 -c 'import os; os.setxattr("table", "user.lab", b"two")'
dd if=/dev/urandom of=big bs=1M count=1 seek=2 conv=notrunc status=none; ln -sf table current; echo new > added
rm -r /srv/*; echo changed > /home/file; echo changed > /root/file; redis-cli set story migrated; redis-cli save
useradd --create-home carol; echo "mine = yes" >> /etc/lab/constant.conf; rm /etc/lab/changing.conf
mkdir -p /var/lib/new/deep; echo disk > /var/lib/disk/file; [ "$(cat table)" = "row
more" ]`
)

// volatileStatus is the part of status that is about a copy of the state.
type volatileStatus struct{ Volatile, Healthy bool }

// runsOnCopy expects a version to run on a copy, healthy, with a good root to return to.
func (s *site) runsOnCopy(version, good string) {
	s.Helper()
	v := s.settled()
	var c volatileStatus
	s.answer(&c, exitDone, "status")
	if v.Booted.Root != s.roots[version] || v.Good[0].Root != good || !c.Volatile || !c.Healthy || v.Armed != "" {
		s.Fatalf("want %s on a copy, status is %+v, %+v\n%s", version, v, c, s.host.Journal(s.Context()))
	}
	if failed, err := s.host.FailedUnits(s.Context()); err != nil || len(failed) != 0 {
		s.Errorf("failed units: %v (%v)", failed, err)
	}
	s.unguarded()
}

// newTrial returns a site whose host runs image 1, with the data of an application and a disk below /var.
func newTrial(t *testing.T, name string) *site {
	t.Helper()
	s := newSite(t, name)
	s.settlesAtOnce()
	s.host.Must(t, "sh", "-ec", "mkdir -p /var/lib/disk; echo tmpfs /var/lib/disk tmpfs size=1m 0 0 >> /etc/fstab\n"+
		"systemctl daemon-reload; systemctl start var-lib-disk.mount\n"+prepared)
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.unguarded()
	s.host.Must(t, "sh", "-ec", "echo kept > /var/lib/disk/file")
	s.publish("2", "os/server:stable")
	return s
}

// intact expects the data to be as they were prepared, and nothing of a trial to be left.
func (s *site) intact() {
	s.Helper()
	for command, want := range map[string]string{
		"cat /var/lib/app/schema /var/lib/app/table": "1\nrow",
		"cat /srv/file /home/file":                   "kept\nkept",
		"redis-cli get story":                        "kept",
		"id carol 2>/dev/null; :":                    "",
		"ls /var/lib/new /root/file 2>/dev/null; :":  "",
		"grep -c updatectl-volatile /proc/mounts; :": "0",
	} {
		if got := s.host.Must(s.T, "sh", "-c", command); got != want {
			s.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// onDisk returns what is in the file on the disk below /var.
func (s *site) onDisk() string {
	s.Helper()
	return s.host.Must(s.T, "cat", "/var/lib/disk/file")
}

// TestVolatile: a migration in a root on a copy of the state leaves the state of the host bit for bit as it was, and a
// rollback brings the host back to it.
func TestVolatile(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newTrial(t, "volatile")
	h := s.host
	s.switches("apply", "--volatile")
	s.runsOnCopy("2", s.roots["1"])
	before, most := s.state(), s.state(written...)
	if text := s.updatectl(exitDone, "status").Stdout; !mentions(text, "volatile: it runs on a throw-away copy") {
		t.Errorf("status does not say that the root is volatile:\n%s", text)
	}
	h.Must(t, "sh", "-ec", migrate)
	s.sameState(before, "after the migration")
	const roll = "`updatectl rollback` returns to the last good root"
	for _, command := range []string{"apply", "apply --volatile", "apply --unattended", "switch " + s.roots["1"], "plan"} {
		s.refused(exitBlocked, "this root is volatile", roll, strings.Fields(command)...)
	}
	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	s.unguarded()
	s.intact()
	if got := s.onDisk(); got != "kept" {
		t.Errorf("on a disk of its own is %q", got)
	}
	s.sameState(most, "after the rollback", written...)
	if v := s.status(); len(v.Bad) > 0 {
		t.Errorf("bad are %+v", v.Bad)
	}
	if got := h.Must(t, "sh", "-c", "cat /etc/lab/changing.conf; grep -c mine /etc/lab/constant.conf; :"); !strings.
		HasSuffix(got, "\n0") {
		t.Errorf("/etc is %q", got)
	}
	if all := s.history(); !slices.ContainsFunc(all, func(e historyEvent) bool {
		return e.Event == "healthy" && e.Root == s.roots["2"]
	}) {
		t.Errorf("the history does not show that the root was healthy: %+v", all)
	}
}

// TestVolatileRefused: what no copy can be made of keeps the host in its root, before any service stops.
func TestVolatileRefused(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "novolatile")
	h := s.host
	for name, c := range map[string]struct{ do, undo, why string }{
		"a mount that the root makes itself": {
			"mkdir -p /srv/late; echo tmpfs /srv/late tmpfs nofail 0 0 >> /etc/fstab", "sed -i /late/d /etc/fstab",
			"the root would mount /srv/late itself",
		},
		"the same files twice": {
			"mkdir -p /srv/one /srv/twice; echo /srv/one /srv/twice none bind 0 0 >> /etc/fstab; mount /srv/twice",
			"umount /srv/twice; sed -i /twice/d /etc/fstab", "show the same files",
		},
		"a service that goes on": {
			"systemd-run --unit=goes-on --property=SurviveFinalKillSignal=yes --property=DefaultDependencies=no " +
				"--property=IgnoreOnIsolate=yes sleep infinity", "systemctl stop goes-on",
			"goes-on.service would go on",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			h.Must(t, "sh", "-ec", c.do+"; systemctl daemon-reload")
			s.refused(exitBlocked, c.why, "docs/volatile.md", "apply", "--volatile")
			h.Must(t, "sh", "-ec", c.undo+"; systemctl daemon-reload")
		})
	}
	s.refused(exitUsage, "does not go with --level full", "", "apply", "--volatile", "--level", "full")
	if v := s.status(); v.Booted.Root != "host" || v.Phase != "staged" {
		t.Errorf("status is %+v", v)
	}
}
