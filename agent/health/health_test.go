package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/program"
	"github.com/updatectl/updatectl/agent/systemd"
)

// machine is a simulated host.
type machine struct {
	starting []string
	units    []systemd.Unit
	restarts map[string]int
	// growing services have one more restart each time somebody asks.
	growing []string
	// complete is the result of the job of boot-complete.target; "" when there is no such unit, "hangs" when the job never
	// ends.
	complete string
	requires []string
}

func (m *machine) systemd() systemd.Manager {
	return systemd.Manager{
		Starting: func(context.Context) ([]string, error) { return slices.Clone(m.starting), nil },
		Units:    func(context.Context) ([]systemd.Unit, error) { return slices.Clone(m.units), nil },
		Restarts: func(_ context.Context, services []string) (map[string]int, error) {
			counts := map[string]int{}
			for _, s := range services {
				if slices.Contains(m.growing, s) {
					m.restarts[s]++
				}
				counts[s] = m.restarts[s]
			}
			return counts, nil
		},
		Start: func(ctx context.Context, _ string) (string, error) {
			switch m.complete {
			case "":
				return "", systemd.ErrNoUnit
			case "hangs":
				<-ctx.Done()
				return "", context.Cause(ctx)
			}
			return m.complete, nil
		},
		Requires: func(context.Context, string) ([]string, error) { return m.requires, nil },
		Details:  func(context.Context, string) (systemd.Details, error) { return systemd.Details{}, nil },
	}
}

// gate returns a gate with short deadlines for a host and a directory with check programs.
func gate(t *testing.T, m *machine) Gate {
	t.Helper()
	if m.restarts == nil {
		m.restarts = map[string]int{}
	}
	g := New(DefaultConfig())
	g.Config.Deadline, g.Config.CheckDeadline, g.Config.Settle = 2*time.Second, time.Second, 10*time.Millisecond
	g.Root, g.Systemd, g.Own = t.TempDir(), m.systemd(), []string{"confirm.service"}
	g.Gateways = func() ([]netip.Addr, error) { return nil, nil }
	g.AskGateway = func(context.Context, netip.Addr) error { return errors.New("no such gateway") }
	g.Uplinks, g.Ports = nil, nil
	return g
}

const required, wanted = "/etc/updatectl/health.d/required.d/", "/etc/updatectl/health.d/wanted.d/"

// script writes a check program of the host or the image.
func (g Gate) script(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(g.Root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		text = "#!/bin/sh\n" + text + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// verdicts returns the results in short, in their order.
func verdicts(r Report, kind string) string {
	var list []string
	for _, r := range r.Results {
		if r.Kind == kind {
			list = append(list, r.Name+" "+string(r.Verdict))
		}
	}
	return strings.Join(list, ", ")
}

func service(name, active, sub string) systemd.Unit {
	return systemd.Unit{Name: name + ".service", Load: "loaded", Active: active, Sub: sub, Changed: time.Minute}
}

func TestUnits(t *testing.T) {
	ssh := service("ssh", "active", "running")
	for name, c := range map[string]struct {
		machine machine
		before  Before
		config  Config
		reason  string // "" for a healthy root
	}{
		"all is well":             {machine: machine{units: []systemd.Unit{ssh}, complete: "done"}},
		"no boot-complete.target": {machine: machine{units: []systemd.Unit{ssh}}},
		"a unit failed": {
			machine: machine{units: []systemd.Unit{ssh, service("app", "failed", "failed")}},
			reason:  "failed units: these failed and had not before the switch: app.service",
		},
		"it failed before, too": {
			machine: machine{units: []systemd.Unit{service("app", "failed", "failed")}},
			before:  Before{Failed: []string{"app.service"}},
		},
		"it failed when it was stopped": {
			machine: machine{
				units: []systemd.Unit{{Name: "user@0.service", Load: "loaded", Active: "failed", Changed: time.Second - 1}},
			},
		},
		"what users run failed": {
			machine: machine{units: []systemd.Unit{
				{Name: "user@1000.service", Load: "loaded", Active: "failed", Changed: time.Minute},
				{Name: "run-u7.service", Load: "loaded", Active: "failed", Changed: time.Minute},
			}},
		},
		"what users run, and a disk that is not there, are waited for": {
			machine: machine{starting: []string{"user@1000.service", `dev-disk-by\x2duuid-1234.device`}},
		},
		"it failed as the root began": {
			machine: machine{units: []systemd.Unit{
				{Name: "early.service", Load: "loaded", Active: "failed", Changed: time.Second},
			}},
			reason: "failed units: these failed and had not before the switch: early.service",
		},
		"a root that is gone had it": {
			machine: machine{units: []systemd.Unit{
				{Name: "app.service", Load: "not-found", Active: "failed", Changed: time.Minute},
			}},
		},
		"it may fail": {
			machine: machine{units: []systemd.Unit{service("fwupd-refresh", "failed", "failed")}},
			config:  Config{Ignore: []string{"fwupd*.service"}},
		},
		"the agent's own failed": {machine: machine{units: []systemd.Unit{service("confirm", "failed", "failed")}}},
		"a service waits for restart": {
			machine: machine{units: []systemd.Unit{service("app", "activating", "auto-restart")}},
			reason:  "restarts: these crash and are restarted: app.service",
		},
		"a service is restarted": {
			machine: machine{units: []systemd.Unit{ssh, service("app", "active", "running")}, growing: []string{"app.service"}},
			reason:  "restarts: these crash and are restarted: app.service",
		},
		"so it was before": {
			machine: machine{units: []systemd.Unit{service("app", "active", "running")}, growing: []string{"app.service"}},
			before:  Before{Restarting: []string{"app.service"}},
		},
		"it was restarted once": {
			machine: machine{units: []systemd.Unit{service("app", "active", "running")},
				restarts: map[string]int{"app.service": 1}},
		},
		"what must run runs": {machine: machine{units: []systemd.Unit{ssh}}, config: Config{Active: []string{"ssh.service"}}},
		"what must run is dead": {
			machine: machine{units: []systemd.Unit{service("app", "inactive", "dead")}},
			config:  Config{Active: []string{"app.service"}},
			reason:  "app.service: it must be active and is inactive (dead)",
		},
		"what must run is not there": {
			machine: machine{},
			config:  Config{Active: []string{"app.service"}},
			reason:  "app.service: it must be active and is not loaded",
		},
		"still starting": {
			machine: machine{starting: []string{"slow.service", "confirm.service"}},
			reason:  "start jobs: after 300ms these units are still starting: slow.service",
		},
		"the caller starts": {machine: machine{starting: []string{"confirm.service"}}},
		"boot is not complete": {
			machine: machine{
				complete: "dependency",
				requires: []string{"sysinit.target", "check.service"},
				units: []systemd.Unit{
					{Name: "sysinit.target", Load: "loaded", Active: "active", Sub: "active"},
					service("check", "failed", "failed"),
				},
			},
			before: Before{Failed: []string{"check.service"}},
			reason: "boot-complete.target: it was not reached (dependency): it requires check.service",
		},
		"boot does not end": {
			machine: machine{
				complete: "hangs",
				requires: []string{"check.service"},
				units:    []systemd.Unit{service("check", "activating", "start")},
			},
			reason: "boot-complete.target: it was not reached within 300ms: it requires check.service",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := gate(t, &c.machine)
			g.Since = time.Second
			g.Config.Deadline, g.Config.Active, g.Config.Ignore = 300*time.Millisecond, c.config.Active, c.config.Ignore
			r := g.Run(t.Context(), c.before)
			if r.Healthy() != (c.reason == "") || !strings.HasPrefix(r.Reason(), c.reason) ||
				c.reason == "" && r.Reason() != "" {
				t.Errorf("healthy is %v with %q, want %q", r.Healthy(), r.Reason(), c.reason)
			}
		})
	}
}

// TestFinal: a check that cannot pass any more is not repeated, one that can is.
func TestFinal(t *testing.T) {
	m := &machine{units: []systemd.Unit{service("app", "failed", "failed")}}
	g := gate(t, m)
	g.Config.Deadline = time.Minute
	start := time.Now()
	if r := g.Run(t.Context(), Before{}); r.Healthy() || time.Since(start) > 10*time.Second {
		t.Errorf("a failed unit: %q after %v", r.Reason(), time.Since(start))
	}

	g = gate(t, &machine{})
	g.Config.Deadline = 20 * time.Second
	g.script(t, required+"10-third-time", `echo x >> `+g.Root+`/times; test $(wc -l < `+g.Root+`/times) -ge 3`)
	g.script(t, required+"20-once", `echo x >> `+g.Root+`/once`)
	r := g.Run(t.Context(), Before{})
	if once, _ := os.ReadFile(filepath.Join(g.Root, "once")); !r.Healthy() || string(once) != "x\n" {
		t.Errorf("a slow service's check: %q, the other one ran as often as %q", r.Reason(), once)
	}
}

func TestPrograms(t *testing.T) {
	g := gate(t, &machine{})
	g.Config.Deadline = time.Second
	image := "/usr/lib/updatectl/health.d/"
	g.script(t, image+"required.d/30-masked", "exit 1")
	g.script(t, required+"30-masked", "")
	g.script(t, image+"wanted.d/40-linked", "exit 1")
	g.script(t, image+"required.d/20-replaced", "exit 1")
	g.script(t, required+"20-replaced", "exit 0")
	g.script(t, image+"10-direct", "exit 0")
	g.script(t, image+"README.md", "exit 1")
	g.script(t, wanted+"15-may-fail", `printf 'first\nthe disk is \033[31mfull\n' >&2; exit 3`)
	if err := os.Symlink("/dev/null", filepath.Join(g.Root, wanted+"40-linked")); err != nil {
		t.Fatal(err)
	}
	r := g.Run(t.Context(), Before{})
	want := "10-direct ok, required.d/20-replaced ok, wanted.d/15-may-fail warn"
	if got := verdicts(r, KindCheck); got != want || !r.Healthy() {
		t.Errorf("got %q, want %q", got, want)
	}
	last := r.Results[len(r.Results)-1]
	if last.Output != "first\nthe disk is \\x1b[31mfull" || last.Reason != "exit code 3: the disk is \\x1b[31mfull" {
		t.Errorf("the output is %q, the reason %q", last.Output, last.Reason)
	}

	g.script(t, image+"required.d/05-fails", "exit 7")
	g.script(t, image+"required.d/06-killed", "kill -9 $$")
	g.script(t, image+"required.d/07-no-interpreter", "")
	g.script(t, image+"required.d/08-not-executable", "exit 0")
	for name, change := range map[string]func(string) error{
		"07-no-interpreter": func(f string) error { return os.WriteFile(f, []byte("#!/no/such/shell\n"), 0o755) },
		"08-not-executable": func(f string) error { return os.Chmod(f, 0o644) },
	} {
		if err := change(filepath.Join(g.Root, image, "required.d", name)); err != nil {
			t.Fatal(err)
		}
	}
	r = g.Run(t.Context(), Before{})
	want = "required.d/05-fails: exit code 7; required.d/06-killed: signal: killed; " +
		"required.d/07-no-interpreter: it cannot be run: no such file or directory; and 1 more"
	if r.Healthy() || r.Reason() != want {
		t.Errorf("reason %q, want %q", r.Reason(), want)
	}
	if got := r.Results[len(r.Results)-2].Reason; verdicts(r, KindCheck) == "" ||
		!strings.Contains(verdicts(r, KindCheck), "08-not-executable fail") {
		t.Errorf("what is not executable passes: %q, %q", verdicts(r, KindCheck), got)
	}
	if strings.Contains(verdicts(r, KindCheck), "wanted.d") {
		t.Error("the way back waits for a check that cannot change it")
	}
}

// TestOthersPrograms: a check that others can change is not run as root. That of the operator is named before a switch:
// every root would be unhealthy because of it.
func TestOthersPrograms(t *testing.T) {
	g := gate(t, &machine{})
	g.Config.Deadline = 100 * time.Millisecond
	ran := filepath.Join(t.TempDir(), "ran")
	g.script(t, required+"10-theirs", "touch "+ran)
	g.script(t, wanted+"20-theirs", "touch "+ran)
	g.script(t, "/usr/lib/updatectl/health.d/30-theirs", "touch "+ran)
	g.script(t, required+"40-ours", "exit 0")
	for _, f := range []string{required + "10-theirs", "/usr/lib/updatectl/health.d/30-theirs"} {
		if err := os.Chown(filepath.Join(g.Root, f), 1234, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(g.Root, wanted), 0o777); err != nil {
		t.Fatal(err)
	}
	r := g.Run(t.Context(), Before{})
	reason := "required.d/10-theirs: it is not run as root: others can change it"
	if r.Healthy() || !strings.Contains(r.Reason(), reason) ||
		!strings.Contains(verdicts(r, KindCheck), "required.d/40-ours ok") {
		t.Errorf("%s: %q", verdicts(r, KindCheck), r.Reason())
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was run")
	}
	got := Unusable(g.Root)
	if len(got) != 1 || !strings.Contains(got[0], "10-theirs belongs to user 1234; run: chown root") {
		t.Errorf("unusable: %q", got)
	}
}

// TestLinkedPrograms: a check program may be a link, for example to a check for greenboot.
func TestLinkedPrograms(t *testing.T) {
	g := gate(t, &machine{})
	g.Config.Deadline = 100 * time.Millisecond
	g.script(t, "/etc/greenboot/check/required.d/01_app.sh", "exit 4")
	g.script(t, wanted+"x", "")
	if err := os.Symlink(g.Root+"/etc/greenboot/check/required.d", filepath.Join(g.Root, required)); err != nil {
		t.Fatal(err)
	}
	if r := g.Run(t.Context(), Before{}); r.Reason() != "required.d/01_app.sh: exit code 4" {
		t.Errorf("reason %q", r.Reason())
	}
}

// TestSlowPrograms: neither a check that does not end, nor one that ignores SIGTERM, nor a background process of one
// holds up the report.
func TestSlowPrograms(t *testing.T) {
	for name, c := range map[string]struct {
		script          string
		deadline, check time.Duration
		reason          string
	}{
		"longer than a check may": {
			script:   "echo waiting; sleep 60",
			deadline: 500 * time.Millisecond,
			check:    100 * time.Millisecond,
			reason:   "required.d/slow: it did not end within 100ms: waiting",
		},
		"longer than the gate may": {
			script:   "sleep 60",
			deadline: 200 * time.Millisecond,
			check:    time.Minute,
			reason:   "required.d/slow: it was still running: the health deadline passed",
		},
		"it ignores SIGTERM": {
			script:   "trap '' TERM; while :; do sleep 1; done",
			deadline: 200 * time.Millisecond,
			check:    time.Minute,
			reason:   "required.d/slow: it was still running",
		},
		"it leaves a child behind": {script: "sleep 60 & exit 0", deadline: 20 * time.Second, check: 10 * time.Second},
		"and fails with it waiting": {
			script:   "sleep 60 & exit 5",
			deadline: time.Second,
			check:    10 * time.Second,
			reason:   "required.d/slow: exit code 5",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := gate(t, &machine{})
			g.Config.Deadline, g.Config.CheckDeadline = c.deadline, c.check
			g.script(t, required+"slow", "echo $$ > "+g.Root+"/pid\n"+c.script)
			start := time.Now()
			r := g.Run(t.Context(), Before{})
			if took, most := time.Since(start), c.deadline+3*program.TermGrace; took > most {
				t.Errorf("it took %v, want at most %v", took, most)
			}
			if r.Healthy() != (c.reason == "") || !strings.HasPrefix(r.Reason(), c.reason) {
				t.Errorf("reason %q, want %q", r.Reason(), c.reason)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, open, _ := net.SplitHostPort(l.Addr().String())
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, closed, _ := net.SplitHostPort(dead.Addr().String())
	dead.Close()
	g := gate(t, &machine{})
	g.Config.Deadline = 200 * time.Millisecond
	g.Config.Ports = []string{"tcp:" + open, open, "127.0.0.1:" + open}
	if r := g.Run(t.Context(), Before{}); !r.Healthy() {
		t.Errorf("a port that answers: %s", r.Reason())
	}
	g.Config.Ports = append(g.Config.Ports, "tcp:"+closed)
	r := g.Run(t.Context(), Before{})
	const noAnswer = "port tcp:%s: it does not answer: dial tcp 127.0.0.1:%[1]s: connect: connection refused"
	if want := fmt.Sprintf(noAnswer, closed); r.Reason() != want {
		t.Errorf("reason %q, want %q", r.Reason(), want)
	}
}

func TestReachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := netip.MustParseAddr("192.0.2.9")
	here := netip.MustParseAddr("fe80::1%eth0")
	up := true
	g := gate(t, &machine{})
	g.Config.Deadline = 300 * time.Millisecond
	g.Sources = []string{l.Addr().String(), "127.0.0.1:1"}
	g.Gateways = func() ([]netip.Addr, error) { return []netip.Addr{here, gone}, nil }
	g.AskGateway = func(_ context.Context, a netip.Addr) error {
		if a == here && up {
			return nil
		}
		return errors.New("no answer")
	}
	before := Observe(t.Context(), g)
	if want := []string{"gateway fe80::1%eth0", l.Addr().String()}; !slices.Equal(before.Reachable, want) {
		t.Fatalf("reachable is %q, want %q", before.Reachable, want)
	}
	if r := g.Run(t.Context(), before); !r.Healthy() ||
		verdicts(r, KindNetwork) != "gateway fe80::1%eth0 ok, "+l.Addr().String()+" ok" {
		t.Errorf("nothing changed: %q, %q", verdicts(r, KindNetwork), r.Reason())
	}
	up = false
	if r := g.Run(t.Context(), before); r.Healthy() || r.CutOff() {
		t.Errorf("the registry answers, and the host is said to be cut off: %q", r.Reason())
	}
	l.Close()
	r := g.Run(t.Context(), before)
	late, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if r := (Report{Results: g.network(late, before)}); r.Healthy() || r.CutOff() {
		t.Errorf("there was no time to ask, and the host is said to be cut off: %q", r.Reason())
	}
	if !r.CutOff() {
		t.Errorf("nothing answers, and the host is not said to be cut off: %q", r.Reason())
	}
	want := "gateway fe80::1%eth0: it could be reached before the switch: no answer; " +
		before.Reachable[1] + ": it could be reached before"
	if r.Healthy() || !strings.HasPrefix(r.Reason(), want) {
		t.Errorf("reason %q", r.Reason())
	}
	if r := g.Run(t.Context(), Before{}); !r.Healthy() || r.CutOff() {
		t.Errorf("what could not be reached before is asked for: %s", r.Reason())
	}
	g.Config.Reachable = ReachableOff
	if r := g.Run(t.Context(), before); !r.Healthy() || len(Observe(t.Context(), g).Reachable) > 0 {
		t.Errorf("it is switched off: %s", r.Reason())
	}
}

// TestSlowSystemd: a root on which systemd takes long to answer is not unhealthy for that before the deadline.
func TestSlowSystemd(t *testing.T) {
	t.Parallel()
	g := gate(t, &machine{units: []systemd.Unit{service("ssh", "active", "running")}})
	g.Config.Deadline = time.Minute
	asked := 0
	g.Systemd.Restarts = func(ctx context.Context, _ []string) (map[string]int, error) {
		if asked++; asked == 1 {
			return nil, nil
		}
		if !sleep(ctx, blameTime+200*time.Millisecond) {
			return nil, ctx.Err()
		}
		return nil, nil
	}
	if r := g.Run(t.Context(), Before{}); !r.Healthy() || asked != 2 {
		t.Errorf("after %d questions: %s", asked, r.Reason())
	}
}

// TestSystemdIsExecutedAnew: systemd that re-executes itself drops answers, which says nothing about the root.
func TestSystemdIsExecutedAnew(t *testing.T) {
	m := &machine{complete: "done"}
	g := gate(t, m)
	ask, start, refused := g.Systemd.Starting, g.Systemd.Start, 0
	g.Systemd.Starting = func(ctx context.Context) ([]string, error) {
		if refused++; refused <= 2 {
			return nil, errors.New("connection refused")
		}
		return ask(ctx)
	}
	lost := 0
	g.Systemd.Start = func(ctx context.Context, unit string) (string, error) {
		if lost++; lost == 1 {
			return "", errors.New("unexpected EOF")
		}
		return start(ctx, unit)
	}
	if r := g.Run(t.Context(), Before{}); !r.Healthy() || refused != 3 || lost != 2 {
		t.Errorf("%q after %d and %d questions", r.Reason(), refused, lost)
	}
	g.Config.Deadline = 300 * time.Millisecond
	g.Systemd.Starting = func(context.Context) ([]string, error) { return nil, errors.New("connection refused") }
	if r := g.Run(t.Context(), Before{}); r.Healthy() ||
		!strings.Contains(r.Reason(), "systemd did not answer within 300ms: connection refused") {
		t.Errorf("a systemd that never answers: %q", r.Reason())
	}
	if !g.Busy(t.Context()) {
		t.Error("nobody can tell, and nothing is said to be started")
	}
	m.starting = []string{"confirm.service"}
	g.Systemd.Starting = ask
	if g.Busy(t.Context()) {
		t.Error("the agent's own unit makes the host busy")
	}
	if m.starting = append(m.starting, "app.service"); !g.Busy(t.Context()) {
		t.Error("a service that starts does not make it busy")
	}
}

// TestObserve: what is wrong before the switch is noted.
func TestObserve(t *testing.T) {
	m := &machine{growing: []string{"app.service"}, restarts: map[string]int{"app.service": 4}, units: []systemd.Unit{
		service("old", "failed", "failed"), service("app", "active", "running"), service("ssh", "active", "running"),
	}}
	b := Observe(t.Context(), gate(t, m))
	if !slices.Equal(b.Failed, []string{"old.service"}) || !slices.Equal(b.Restarting, []string{"app.service"}) {
		t.Errorf("before is %+v", b)
	}
	g := gate(t, &machine{units: []systemd.Unit{service("ssh", "active", "running")}})
	g.Config.Settle = time.Minute
	start := time.Now()
	if Observe(t.Context(), g); time.Since(start) > time.Second {
		t.Error("a switch waits for services that were never restarted")
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		`reachable: "yes" is neither`:    func(c *Config) { c.Reachable = "yes" },
		`ports: "udp:53" is not a port`:  func(c *Config) { c.Ports = []string{"udp:53"} },
		`ports: "tcp:0" is not a port`:   func(c *Config) { c.Ports = []string{"tcp:0"} },
		`ports: "ssh" is not a port`:     func(c *Config) { c.Ports = []string{"ssh"} },
		`ignore: "a[": syntax error`:     func(c *Config) { c.Ignore = []string{"a["} },
		`active: "nginx" has no suffix:`: func(c *Config) { c.Active = []string{"nginx"} },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Validate: %v, want %q", err, want)
		}
	}
	for port, want := range map[string]string{
		"tcp:22":               "127.0.0.1:22 [::1]:22",
		"tcp:[2001:db8::1]:80": "[2001:db8::1]:80",
		"db.example.org:5432":  "db.example.org:5432",
	} {
		if got, err := addresses(port); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v; want %q", port, got, err, want)
		}
	}
}

func TestReportAsJSON(t *testing.T) {
	r := Report{Results: []Result{{Name: "restarts", Kind: KindUnits, Verdict: OK, Took: time.Second, final: true}}}
	text, err := json.Marshal(r)
	want := `"results":[{"name":"restarts","kind":"units","verdict":"ok","took_ns":1000000000}]`
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("got %s (%v), want %s in it", text, err, want)
	}
	if (Report{}).Healthy() || (Report{}).Reason() == "" {
		t.Error("a report without checks is a healthy one")
	}
}

// TestStartJobsAreRemembered: PID 1 lists once what is still starting, and does not answer any more when the deadline
// comes.
func TestStartJobsAreRemembered(t *testing.T) {
	g := gate(t, &machine{})
	g.Config.Deadline = 500 * time.Millisecond
	asked := 0
	g.Systemd.Starting = func(ctx context.Context) ([]string, error) {
		if asked++; asked == 1 {
			return []string{"slow.service"}, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if r := g.Run(t.Context(), Before{}); !strings.Contains(r.Reason(), "these units are still starting: slow.service") {
		t.Errorf("the reason is %q", r.Reason())
	}
}
