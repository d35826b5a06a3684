package keep

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// treeOf returns a root with files, by their paths below /usr/lib/systemd/system.
func treeOf(t *testing.T, files map[string]string) Tree {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if !strings.HasPrefix(name, "/") {
			name = "/usr/lib/systemd/system/" + name
		}
		testtree.File(t, root, name, text)
	}
	return Tree{Image: rootfs.Dir(root), Systemd: 257}
}

// TestJudge: each refusal names its reason.
func TestJudge(t *testing.T) {
	const store, web = "[Service]\nFileDescriptorStoreMax=2\n", "[Socket]\nListenStream=80\n"
	active := Now{Active: true, Runs: true}
	stored := Now{Active: true, Runs: true, Room: 2, Stored: 2}
	open := Now{Active: true, Service: "web.service"}
	same := map[string]string{"db.service": store, "web.socket": web, "web.service": "[Service]\n"}
	for name, c := range map[string]struct {
		unit        string
		now         Now
		here, there map[string]string
		way         Way
		want        string // "" for kept
	}{
		"store":   {unit: "db.service", now: stored, way: Descriptors},
		"socket":  {unit: "web.socket", now: open, way: Socket},
		"process": {unit: "web.service", now: active, way: Process},
		"store that claims": {unit: "db.service", now: stored, way: Process,
			here: map[string]string{"db.service": "[Unit]\nSurviveFinalKillSignal=yes\n" + store}},
		"not active": {unit: "web.socket", now: Now{}, way: Socket, want: "it is not active"},
		"gone": {unit: "db.service", now: stored, way: Descriptors, there: map[string]string{"a.service": "[Unit]\n"},
			want: "the new root has no unit of this name"},
		"masked": {unit: "db.service", now: stored, way: Descriptors,
			there: map[string]string{"db.service": store, "/etc/systemd/system/db.service": ""},
			want:  "the new root has no unit of this name"},
		"no store there": {unit: "db.service", now: stored, way: Descriptors,
			there: map[string]string{"db.service": "[Service]\nType=simple\n"}, want: "it has no store of file descriptors"},
		"store of the default there": {unit: "db.service", now: stored, way: Descriptors,
			there: map[string]string{"db.service": store + "[Service]\nFileDescriptorStoreMax=\n"}, want: "it has no store"},
		"smaller store there": {unit: "db.service", now: stored, way: Descriptors,
			there: map[string]string{"db.service": store,
				"/etc/systemd/system/db.service.d/a.conf": "[Service]\nFileDescriptorStoreMax=1\n"},
			want: "it keeps 2 file descriptors, and its store in the new root takes 1"},
		"accepts": {unit: "web.socket", now: open, way: Socket,
			there: map[string]string{"web.socket": web + "Accept=yes\n", "web.service": "[Service]\n"}, want: "(Accept=yes)"},
		"another port": {unit: "web.socket", now: open, way: Socket,
			there: map[string]string{"web.socket": "[Socket]\nListenStream=8080\n", "web.service": "[Service]\n"},
			want:  `ListenStream= is "80" here and "8080" in the new root`},
		"no service": {unit: "web.socket", now: open, way: Socket, there: map[string]string{"web.socket": web},
			want: "the new root has no web.service"},
		"conflict": {unit: "web.socket", now: open, way: Socket,
			there: map[string]string{"web.socket": "[Unit]\nConflicts=shutdown.target\n" + web, "web.service": "[Service]\n"},
			want:  "Conflicts=shutdown.target, which no drop-in takes back"},
		"needs what stops": {unit: "web.service", way: Process,
			now:  Now{Active: true, Runs: true, Ends: []string{"var.mount"}},
			want: "it needs var.mount, which a soft reboot stops"},
		"holds": {unit: "web.service", way: Process,
			now:  Now{Active: true, Runs: true, Holds: []string{"the program /usr/bin/web"}},
			want: "it would hold the root that is left: the program /usr/bin/web"},
		"no process": {unit: "web.service", now: Now{Active: true}, way: Process, want: "there is nothing to keep"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.here == nil {
				c.here = same
			}
			if c.there == nil {
				c.there = same
			}
			got := Judge(c.unit, c.now, treeOf(t, c.here), treeOf(t, c.there))
			if got.Way != c.way || c.want == "" && got.Refusal != "" || !strings.Contains(got.Refusal, c.want) {
				t.Errorf("Judge = %+v, want %q, refused with %q", got, c.way, c.want)
			}
		})
	}
}

// TestOldSystemd: one that knows no surviving processes keeps none, on either side of the switch.
func TestOldSystemd(t *testing.T) {
	files := map[string]string{"a.service": "[Service]\n"}
	here, there, now := treeOf(t, files), treeOf(t, files), Now{Active: true, Runs: true}
	there.Systemd = 254
	for _, c := range []struct{ here, there Tree }{{here, there}, {there, here}} {
		if k := Judge("a.service", now, c.here, c.there); !strings.Contains(k.Refusal, "systemd 254 ends") {
			t.Errorf("Judge = %+v", k)
		}
	}
}

// TestMergedEtc: of /etc, the version counts that the new root gets.
func TestMergedEtc(t *testing.T) {
	image := treeOf(t, map[string]string{
		"web.socket": "[Socket]\nListenStream=80\n",
		"/etc/systemd/system/web.socket.d/a.conf": "[Socket]\nBacklog=1\n",
		"/etc/systemd/system/web.socket.d/b.conf": "[Socket]\nMark=1\n",
	})
	host := treeOf(t, map[string]string{
		"/etc/systemd/system/web.socket.d/a.conf": "[Socket]\nListenStream=\nListenStream=81\n"})
	tree := Tree{Image: image.Image, Host: host.Image,
		Gets:    func(name string) bool { return name == "systemd/system/web.socket.d/a.conf" },
		Removed: func(name string) bool { return name == "systemd/system/web.socket.d/b.conf" }}
	s, found := tree.Unit("web.socket")
	if !found || s.last("Socket.ListenStream") != "81" || len(s["Socket.ListenStream"]) != 1 ||
		s.last("Socket.Backlog") != "" || s.last("Socket.Mark") != "" {
		t.Errorf("the unit is %v", s)
	}
}

// TestStarted: a boot starts what is linked or wanted, and instances of templates.
func TestStarted(t *testing.T) {
	tree := treeOf(t, map[string]string{
		"default.target": "[Unit]\nRequires=multi-user.target\n", "graphical.target": "[Unit]\nRequires=multi-user.target\n",
		"multi-user.target": "[Unit]\nRequires=basic.target\n", "basic.target": "[Unit]\nWants=sockets.target\n",
		"sockets.target": "[Unit]\n", "web.service": "[Service]\n", "db@.service": "[Service]\n",
		"other.service":  "[Service]\n",
		"masked.service": "[Service]\n", "/etc/systemd/system/masked.service": "",
		"/etc/systemd/system/multi-user.target.wants/web.service":    "[Service]\n",
		"/etc/systemd/system/multi-user.target.wants/db@1.service":   "[Service]\n",
		"/etc/systemd/system/multi-user.target.wants/masked.service": "[Service]\n",
		"/etc/systemd/system/sockets.target.wants/gone.socket":       "[Socket]\n",
	})
	started := tree.Started()
	for _, unit := range []string{"web.service", "db@1.service", "graphical.target"} {
		if !started[unit] {
			t.Errorf("%s is not started: %v", unit, started)
		}
	}
	for _, unit := range []string{"other.service", "masked.service", "gone.socket", "db@.service"} {
		if started[unit] {
			t.Errorf("%s is started", unit)
		}
	}
}

// TestFates: every fate, with its reason.
func TestFates(t *testing.T) {
	wants := func(names ...string) map[string]string {
		files := map[string]string{"default.target": "[Unit]\nWants=" + strings.Join(names, " ") + "\n"}
		for _, name := range names {
			files[name] = "[Unit]\nDescription=x\n"
		}
		return files
	}
	here, there := wants("a.service", "old.service", "dropped.service"), wants("a.service", "new.service")
	for _, name := range []string{"dropped.service", "demand.service", "kept.socket", "standing.service"} {
		there[name] = "[Unit]\nDescription=x\n"
	}
	active := []Active{
		{Name: "a.service", Stops: true, Runs: true}, {Name: "old.service", Stops: true},
		{Name: "dropped.service", Stops: true}, {Name: "demand.service", Stops: true},
		{Name: "run-1.service", Transient: true},
		{Name: "kept.socket", Stops: true}, {Name: "standing.service", Stays: true}, {Name: "made.service", Generated: true},
		{Name: "store.service", Stops: true, Preserves: true, Stored: 1}, {Name: "updatectl.timer"}, {Name: "a.mount"},
	}
	there["store.service"] = "[Unit]\nDescription=x\n"
	want := map[string]UnitFate{
		"a.service":        {Fate: Restarts, Reason: "the new root starts it"},
		"old.service":      {Fate: GoesAway, Reason: "the new root does not have it"},
		"dropped.service":  {Fate: GoesAway, Reason: "the new root does not start it"},
		"demand.service":   {Fate: Restarts, Reason: "when something asks for it"},
		"run-1.service":    {Fate: GoesAway, Reason: "made at run time"},
		"kept.socket":      {Fate: KeepsDescriptors, Reason: "connections wait until kept.service is back"},
		"standing.service": {Fate: Survives, Reason: "it stays active"},
		"made.service":     {Fate: Restarts, Reason: "a generator makes it"},
		"store.service":    {Fate: KeepsDescriptors, Reason: "FileDescriptorStorePreserve=yes"},
		"new.service":      {Fate: IsNew, Reason: "the new root starts it"},
	}
	kept := []Kept{{Unit: "kept.socket", Way: Socket, Service: "kept.service"}}
	fates := Fates(active, kept, treeOf(t, here), treeOf(t, there))
	for _, u := range fates {
		w, expected := want[u.Unit]
		if !expected || u.Fate != w.Fate || !strings.Contains(u.Reason, w.Reason) || u.Named != (u.Unit == "kept.socket") {
			t.Errorf("%+v, want %+v", u, w)
		}
		delete(want, u.Unit)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// TestFault: what claims to survive and does not, or holds the root, is named.
func TestFault(t *testing.T) {
	standing := Active{Survives: true, Runs: true, Stays: true}
	stops, isolated, holds := standing, standing, standing
	stops.Stops, isolated.Stays, holds.Holds = true, false, []string{"the program /usr/bin/a"}
	for want, a := range map[string]Active{
		"DefaultDependencies=no": stops, "IgnoreOnIsolate=yes": isolated,
		"it survives and holds the root that is left: the program /usr/bin/a": holds,
	} {
		if got := fault(a, false); !strings.Contains(got, want) {
			t.Errorf("fault(%+v) = %q, want %q", a, got, want)
		}
	}
	if got := fault(standing, false) + fault(isolated, true) + fault(Active{Stops: true}, true); got != "" {
		t.Errorf("fault = %q", got)
	}
}

// TestIsUnitName: services and sockets, and no templates or patterns.
func TestIsUnitName(t *testing.T) {
	for name, want := range map[string]bool{
		"web.socket": true, "web@a.service": true, "web@.service": false, ".service": false, "a.timer": false,
		"a/b.service": false, "a*.service": false, "web": false,
	} {
		if IsUnitName(name) != want {
			t.Errorf("IsUnitName(%q) is %v", name, !want)
		}
	}
}

// FuzzUnit: no text of a unit file makes the parser fail.
func FuzzUnit(f *testing.F) {
	f.Add("[Service]\nExecStart=a \\\n b\nExecStart=\n#x=y\n[Unit]\nConflicts=\n=\n[\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := Settings{}
		s.parse(text)
		for key, values := range s {
			for _, v := range values {
				if v == "" {
					t.Errorf("%s has an empty value", key)
				}
			}
		}
	})
}
