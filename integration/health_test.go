//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

const checks = "usr/lib/updatectl/health.d/"

// service returns the entries of a unit and of the link that enables it.
func service(name, text string) []layerEntry {
	return []layerEntry{
		aFile("usr/lib/systemd/system/"+name, text),
		aLink("usr/lib/systemd/system/multi-user.target.wants/"+name, "../"+name),
	}
}

// TestHealth shows what makes a root unhealthy, and that the right reason is reported.
func TestHealth(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "health")
	h := s.host
	within := func(deadline string) {
		s.hastens(fmt.Sprintf("[health]\ndeadline = %q\nsettle = \"2s\"\nports = [\"tcp:22\"]\nactive = [\"ssh.service\"]\n",
			deadline))
	}
	within("3m")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	within("30s") // for roots that use it up

	t.Run("what was reachable before must be reachable", func(t *testing.T) {
		s := s.in(t)
		r := s.health()
		for _, want := range []string{"start jobs", "boot-complete.target", "restarts", "failed units", "ssh.service",
			"port tcp:22", s.registry.Host, "network of host0", "ways in"} {
			if r.results[want].Verdict != "ok" {
				t.Errorf("%q is %+v, want it ok; the report is %+v", want, r.results[want], r)
			}
		}
		if !r.Healthy || r.Root != s.roots["1"] {
			t.Errorf("the report is %+v", r)
		}
	})
	for name, c := range map[string]struct {
		image  []layerEntry
		reason string
	}{
		"check": {
			[]layerEntry{aProgram(checks+"required.d/10-app",
				"#!/bin/sh\necho the database does not answer >&2\nexit 3\n")},
			"required.d/10-app: exit code 3: the database does not answer",
		},
		"slow": {
			[]layerEntry{aProgram(checks+"required.d/10-slow", "#!/bin/sh\nsleep 600\n")},
			"required.d/10-slow: it was still running",
		},
		"broken": {
			service("broken.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n"),
			"failed units: these failed and had not before the switch: broken.service",
		},
		"crash": {
			service("crash.service",
				"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1\n"),
			"restarts: these crash and are restarted: crash.service",
		},
		"leftover": { // the address stays in the kernel
			[]layerEntry{aLink("usr/lib/systemd/system/systemd-networkd.service", "/dev/null"),
				aLink("usr/lib/systemd/system/systemd-networkd.socket", "/dev/null")},
			"network of host0: nothing in this root configures it, and systemd-networkd did before",
		},
		"greenboot": {
			append(service("greenboot-like.service", "[Unit]\nAfter=multi-user.target\nBefore=boot-complete.target\n"+
				"[Service]\nType=oneshot\nExecStart=/bin/false\n"),
				aLink("usr/lib/systemd/system/boot-complete.target.requires/greenboot-like.service",
					"../greenboot-like.service")),
			"boot-complete.target: it was not reached (dependency): it requires greenboot-like.service",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			reference, root := s.variant(name, "1", c.image...)
			s.switches("apply", "--from", reference)
			s.unhealthy(root, c.reason, s.roots["1"])
			h.Must(t, "systemctl", "reset-failed") // PID 1 remembers what failed in the root before
			s.runs(s.roots["1"], "1")
		})
	}
	t.Run("a failure in the root before excuses nothing", func(t *testing.T) {
		s := s.in(t)
		reference, root := s.variant("again", "1",
			service("again.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")...)
		for range 2 {
			s.switches("apply", "--from", reference, "--retry")
			s.unhealthy(root, "failed units: these failed and had not before the switch: again.service", s.roots["1"])
		}
		h.Must(t, "systemctl", "reset-failed")
		s.runs(s.roots["1"], "1")
	})
	t.Run("what ran before and is started must run", func(t *testing.T) {
		s := s.in(t)
		if err := h.WriteFile("/etc/systemd/system/app.service", "[Service]\nExecStart=/usr/bin/sleep infinity\n"+
			"[Install]\nWantedBy=multi-user.target\n", 0o644); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "systemctl", "enable", "--quiet", "--now", "app.service")
		reference, root := s.variant("stopped", "1",
			aFile("usr/lib/systemd/system/app.service.d/10-broken.conf", "[Unit]\nRequires=missing.service\n"))
		s.switches("apply", "--from", reference)
		s.unhealthy(root, "services as before: these ran before the switch and do not run now, although this root starts "+
			"them: app.service", s.roots["1"])
		s.runs(s.roots["1"], "1")
		h.Must(t, "systemctl", "disable", "--quiet", "--now", "app.service")
	})
	t.Run("the operator masks it, and what is only wanted may fail", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "sh", "-ec",
			"mkdir -p /etc/updatectl/health.d/required.d; ln -s /dev/null /etc/updatectl/health.d/required.d/10-app")
		reference, root := s.variant("passes", "1",
			aProgram(checks+"required.d/10-app", "#!/bin/sh\nexit 3\n"),
			aProgram(checks+"required.d/20-fine", "#!/bin/sh\nexit 0\n"),
			aProgram(checks+"wanted.d/30-moody", "#!/bin/sh\necho not today; exit 1\n"))
		// A service that fails because the switch stops it has failed in the old root.
		if err := h.WriteFile("/etc/systemd/system/sulks.service", "[Service]\nType=exec\n"+
			"ExecStart=/bin/sh -c 'trap \"exit 9\" TERM; sleep infinity & wait'\n", 0o644); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "sh", "-ec", "systemctl daemon-reload; systemctl start sulks")
		s.switches("apply", "--from", reference)
		if failed, err := h.FailedUnits(t.Context()); err != nil || !slices.Contains(failed, "sulks.service") {
			t.Errorf("failed units are %v (%v): this shows nothing", failed, err)
		}
		h.Must(t, "systemctl", "reset-failed")
		s.runs(root, "1")
		r := s.health()
		if got := r.results["required.d/10-app"].Verdict + r.results["required.d/20-fine"].Verdict +
			r.results["wanted.d/30-moody"].Verdict; got != "okwarn" || !r.Healthy {
			t.Errorf("the verdicts are %q, the report is %+v", got, r)
		}
		text := s.updatectl(exitDone, "status").Stdout
		for _, want := range []string{"healthy, judged ", "ok    required.d/20-fine", "warn  wanted.d/30-moody",
			"exit code 1: not today"} {
			if !mentions(text, want) {
				t.Errorf("status does not say %q:\n%s", want, text)
			}
		}
	})
}

// healthReport is the part of the health gate's report that the tests read.
type healthReport struct {
	Root    string
	Healthy bool
	results map[string]struct{ Name, Verdict, Reason, Output string }
}

// health returns the last report of the health gate from status.
func (s *site) health() healthReport {
	s.Helper()
	return s.reports()["health"]
}

// reports returns the reports in status by name.
func (s *site) reports() map[string]healthReport {
	s.Helper()
	type report struct {
		healthReport
		Report struct {
			Results []struct{ Name, Verdict, Reason, Output string }
		}
	}
	var v struct{ Health, Unhealthy report }
	if err := json.Unmarshal([]byte(s.updatectl(exitDone, "--output", "json", "status").Stdout), &v); err != nil {
		s.Fatal(err)
	}
	reports := map[string]healthReport{}
	for name, r := range map[string]report{"health": v.Health, "unhealthy": v.Unhealthy} {
		r.results = map[string]struct{ Name, Verdict, Reason, Output string }{}
		for _, c := range r.Report.Results {
			r.results[c.Name] = c
		}
		reports[name] = r.healthReport
	}
	return reports
}

// unhealthy waits until the health gate has rejected a root for a reason, and expects every command to report the
// reason and the host to be in the root before.
func (s *site) unhealthy(root, reason, before string) {
	s.Helper()
	if s.condemned(root).Booted.Root == root {
		s.switches("rollback")
	}
	v := s.settled()
	if !strings.HasPrefix(v.Bad[root].Reason, reason) {
		s.Fatalf("want %s bad with %q, status is %+v", root, reason, v)
	}
	for _, g := range v.Good {
		if g.Root == root {
			s.Errorf("%s counts as good: %+v", root, v)
		}
	}
	if v.Booted.Root != before || v.Phase != "good" {
		s.Errorf("want %s booted and good, status is %+v", before, v)
	}
	if r := s.reports(); r["unhealthy"].Healthy || r["unhealthy"].Root != root || !r["health"].Healthy ||
		r["health"].Root != before {
		s.Errorf("the reports are %+v", r)
	}
	check, text, _ := strings.Cut(reason, ": ")
	told := s.host.Must(s.T, "journalctl", "--unit="+confirmUnit, "--output=cat", "--no-pager",
		"UPDATECTL_CHECK="+check, "UPDATECTL_VERDICT=fail")
	if !strings.Contains(told, text) {
		s.Errorf("the journal says %q, want %q", told, text)
	}
	for _, command := range []string{"status", "history"} {
		if out := s.updatectl(exitDone, command).Stdout; !mentions(out, text) {
			s.Errorf("%s does not say %q:\n%s", command, text, out)
		}
	}
}

// condemned waits until the host is up and a root is bad, and returns the status.
func (s *site) condemned(root string) status {
	s.Helper()
	var state string
	var r lab.Result
	var v status
	if !s.host.Await(s.T, s.host.Patience(), func() bool {
		state = s.systemState()
		r = s.host.Run(s.Context(), "updatectl", "--output", "json", "status")
		v = status{}
		if !isUp(state) || r.Code != 0 || json.Unmarshal([]byte(r.Stdout), &v) != nil {
			return false
		}
		_, bad := v.Bad[root]
		return bad && v.Phase != "armed" && v.Phase != "trying"
	}) {
		s.Fatalf("the host is %s and has not given up %s: %s", state, root, r)
	}
	return v
}
