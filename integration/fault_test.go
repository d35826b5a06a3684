//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fault"
)

// Paths of the injector and its instructions in a host: in /run, which survives soft reboots.
const injector, faultSpec = "/run/lab/" + fault.Name, "/run/lab/fault.json"

// injects copies the injector into the host.
func (s *site) injects() {
	s.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		s.Fatal(err)
	}
	if err := s.host.WriteFile(injector, string(self), 0o755); err != nil {
		s.Fatal(err)
	}
}

// settlesAtOnce lets new roots be judged as soon as they are up: what services do later does not matter here.
func (s *site) settlesAtOnce() {
	s.Helper()
	if err := s.host.WriteFile("/etc/updatectl/conf.d/20-quick.toml", "[health]\nsettle = \"10ms\"\n",
		0o644); err != nil {
		s.Fatal(err)
	}
}

// faulted runs the agent with a fault, and returns the result and the steps.
func (s *site) faulted(spec fault.Spec, args ...string) (lab.Result, []fault.Step) {
	s.Helper()
	s.faults(spec)
	r := s.host.Run(s.Context(), append([]string{injector, faultSpec, "updatectl"}, args...)...)
	return r, s.steps()
}

// faults writes the fault for the next run under the injector.
func (s *site) faults(spec fault.Spec) {
	s.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		s.Fatal(err)
	}
	if err := s.host.WriteFile(faultSpec, string(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// steps returns the steps of the last run under the injector.
func (s *site) steps() []fault.Step {
	s.Helper()
	steps, err := fault.ReadLog(s.host.Must(s.T, "cat", faultSpec+".log"))
	if err != nil {
		s.Fatal(err)
	}
	return steps
}

// An act is a command of the agent, any step of which may fail.
type act struct {
	name string
	args []string
	// code is the exit code when nothing fails.
	code int
	// prepare puts the host into the state in which the act starts, the same every time.
	prepare func(s *site)
	// after is called after the act, before the host is examined.
	after func(s *site)
	// quiet acts have no reader of their messages; an error shows later.
	quiet bool
}

// inject runs an act with one fault, examines the host, and runs the act again without the fault.
func (a act) inject(s *site, spec fault.Spec, whole string) {
	s.Helper()
	a.prepare(s)
	r, steps := s.faulted(spec, a.args...)
	if !slices.ContainsFunc(steps, func(step fault.Step) bool { return step.Hit }) {
		s.Errorf("the step did not occur: this shows nothing")
	}
	switch {
	case spec.Do == "KILL":
		if r.Code != 128+9 {
			s.Errorf("it was not killed: %s", r)
		}
	case r.Code == a.code: // the act does not need the step
	case spec.Do == "EINTR":
		s.Errorf("an interrupted call must not be an error: %s", r)
	case a.quiet:
	default:
		s.clear(r.Stderr)
		if want := spec.Do == "ENOSPC"; want != (r.Code == exitNoSpace) {
			s.Errorf("exit code %d for %s\n%s", r.Code, spec.Do, r.Stderr)
		}
	}
	if a.after != nil {
		a.after(s)
	}
	s.sound()
	if spec.Do != "KILL" && r.Code == a.code {
		return
	}
	a.prepare(s)
	if r := s.host.Run(s.Context(), append([]string{"updatectl"}, a.args...)...); r.Code != a.code {
		s.Errorf("again, without a fault: %s", r)
	}
	if a.after != nil {
		a.after(s)
	}
	s.sound()
	if got := s.kept(); got != whole {
		s.Errorf("after a fault the store differs:\n%s\nwithout one it is:\n%s", got, whole)
	}
}

// faultsOf returns the faults that a step of a kind can meet. An error that stays is a full or a read-only disk.
func faultsOf(step string, kind fault.Kind) []fault.Spec {
	switch kind {
	case fault.Read:
		return []fault.Spec{{Do: "EIO"}}
	case fault.Space:
		return []fault.Spec{{Do: "ENOSPC", Stays: true}, {Do: "EROFS", Stays: true}, {Do: "EIO"}, {Do: "EINTR"}}
	case fault.Names:
		return []fault.Spec{{Do: "EROFS", Stays: true}, {Do: "EIO"}}
	case fault.Sync:
		return []fault.Spec{{Do: "EIO"}, {Do: "ENOSPC"}, {Do: "EINTR"}}
	}
	if step == "fsconfig" || step == "fsmount" { // their lock can be interrupted
		return []fault.Spec{{Do: "ENOMEM"}, {Do: "EINTR"}}
	}
	return []fault.Spec{{Do: "ENOMEM"}}
}

// table returns every fault of an act: a crash at each step, and each error that the step can meet. Where a step
// occurs more than once, the faults alternate between its first and its last occurrence. It also returns what the
// store has without a fault.
func (a act) table(s *site) (table []fault.Spec, whole string) {
	s.Helper()
	a.prepare(s)
	r, steps := s.faulted(fault.Spec{}, a.args...)
	if r.Code != a.code {
		s.Fatalf("without a fault: %s", r)
	}
	if a.after != nil {
		a.after(s)
	}
	s.sound()
	count := map[string]int{}
	kind := map[string]fault.Kind{}
	var order []string
	for _, step := range steps {
		if count[step.Name]++; count[step.Name] == 1 {
			order = append(order, step.Name)
			kind[step.Name] = step.Kind
		}
	}
	for n, name := range order {
		faults := faultsOf(name, kind[name])
		if kind[name] != fault.Read { // a crash while reading is the same as one after the step before
			faults = append(faults, fault.Spec{Do: "KILL"})
		}
		for i, f := range faults {
			f.Step, f.Nth = name, 1
			if (n+i)%2 == 1 {
				f.Nth = count[name]
			}
			table = append(table, f)
		}
	}
	return table, s.kept()
}

// meets runs an act with those faults of its table that are picked, of which there must be at least so many.
func (a act) meets(t *testing.T, s *site, picked func(fault.Spec) bool, least int) {
	t.Run(a.name, func(t *testing.T) {
		all, whole := a.table(s.in(t))
		table := slices.DeleteFunc(slices.Clone(all), func(f fault.Spec) bool { return !picked(f) })
		if len(table) < least {
			t.Fatalf("only %d of %d faults, want %d: this shows nothing", len(table), len(all), least)
		}
		t.Logf("%d of %d faults", len(table), len(all))
		for _, f := range table {
			t.Run(fmt.Sprintf("%s at %d of %s", f.Do, f.Nth, strings.ReplaceAll(f.Step, "/", "|")),
				func(t *testing.T) {
					a.inject(s.in(t), f, whole)
				})
		}
	})
}

const stateFile = "/var/lib/updatectl/state.json"

// edited returns the record with a switch, as the agent writes it before it asks for the reboot, and with further
// changes.
func (s *site) edited(verb, target string, change func(record document)) string {
	s.Helper()
	v := s.status()
	var record document
	if err := json.Unmarshal([]byte(s.host.Must(s.T, "cat", stateFile)), &record); err != nil {
		s.Fatal(err)
	}
	record["phase"] = "armed"
	record["switch"] = document{
		"from": v.Booted.Root, "target": target, "boot_id": v.Kernel.BootID, "soft_reboots": v.Kernel.SoftReboots,
		"verb": verb, "at": time.Now().UTC(),
	}
	if change != nil {
		change(record)
	}
	text, err := json.Marshal(record)
	if err != nil {
		s.Fatal(err)
	}
	return string(text)
}

// setRecord replaces the record.
func (s *site) setRecord(text string) {
	s.Helper()
	if err := s.host.WriteFile(stateFile, text, 0o600); err != nil {
		s.Fatal(err)
	}
}

// queues puts a soft reboot that does nothing into systemd's queue, with a guard that does not act, so that the arming
// unit can run at any time. The returned function removes all of it.
func (s *site) queues() (gone func()) {
	s.Helper()
	for name, text := range map[string]string{
		"systemd-soft-reboot.service": "[Unit]\nDefaultDependencies=no\nAfter=lab-hold.service\n[Service]\n" +
			"Type=oneshot\nExecStart=/bin/true\n",
		"lab-hold.service": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n" +
			"ExecStart=/bin/sleep infinity\n",
		guardUnit: "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep infinity\n",
	} {
		if err := s.host.WriteFile("/run/systemd/system/"+name, text, 0o644); err != nil {
			s.Fatal(err)
		}
	}
	// an earlier one may still be active
	s.host.Must(s.T, "sh", "-ec", "systemctl daemon-reload; systemctl restart "+guardUnit)
	return func() {
		s.host.Must(s.T, "sh", "-ec", "systemctl stop "+guardUnit+"; cd /run/systemd/system; "+
			"rm systemd-soft-reboot.service lab-hold.service "+guardUnit+"; systemctl daemon-reload")
	}
}

// arming returns the act of arming, with a record.
func (s *site) arming(name, record string, fresh bool) act {
	return act{
		name: name, args: []string{"agent", "arm"}, code: exitDone, quiet: true,
		prepare: func(s *site) {
			if fresh {
				s.host.Must(s.T, "sh", "-ec", "rm -rf /var/lib/updatectl/roots/*/etc*")
			}
			s.setRecord(record)
			s.host.Must(s.T, "sh", "-ec", "rmdir /run/updatectl/next 2>/dev/null || :; "+
				"rm -f /run/updatectl/armed.json; systemctl start "+armUnit+
				"; systemctl start --no-block lab-hold.service; "+
				"systemctl start --no-block systemd-soft-reboot.service")
		},
		after: func(s *site) {
			s.host.Must(s.T, "sh", "-ec", "systemctl stop lab-hold.service; systemctl reset-failed 2>/dev/null; "+
				"while systemctl list-jobs | grep -q soft-reboot; do sleep 0.02; done")
		},
	}
}

// acts takes a host from its installation to an image and back, and calls meet with every act on the way.
func (s *site) acts(meet func(act)) {
	s.Helper()
	h := s.host
	s.injects()
	small := s.registry.Host + "/" + s.offer("small", smallTree(s.T), s.publisher.Key, "--version", "small")
	must := func(script string) { s.Helper(); h.Must(s.T, "sh", "-ec", script) }
	s.settlesAtOnce()

	meet(act{name: "stage", args: []string{"stage", "--from", small}, code: exitAvailable, prepare: func(s *site) {
		h.Must(s.T, "rm", "-rf", "/var/lib/updatectl", "/run/updatectl")
	}})
	must("rm -rf /var/lib/updatectl; updatectl stage --from " + small +
		" || :; cp -a /var/lib/updatectl/roots/sha256-* /run/lab/stray")
	must("rm -rf /var/lib/updatectl; updatectl stage || :")
	one := s.roots["1"]

	release := s.inhibit()
	staged := h.Must(s.T, "cat", stateFile)
	meet(act{name: "apply", args: []string{"apply"}, code: exitBlocked,
		prepare: func(s *site) { s.setRecord(staged) }})
	s.updatectl(exitBlocked, "apply") // prepares what arming needs
	s.setRecord(staged)
	release()

	gone := s.queues()
	armed := s.edited("apply", one, nil)
	meet(s.arming("arm", armed, true))
	meet(s.arming("arm again", armed, false))
	gone()

	s.setRecord(staged)
	must("rm -rf /var/lib/updatectl/roots/*/etc*")
	s.switches("apply")
	s.runs(one, "1")
	tried := s.edited("apply", one, func(r document) {
		sw := r["switch"].(document)
		sw["soft_reboots"], sw["from"] = s.status().Kernel.SoftReboots-1, "host"
		r["good"], r["staged"] = []string{"host"}, one
	})
	must("systemctl mask --runtime --quiet " + confirmUnit) // otherwise confirm waits for the unit, which meets no fault
	meet(act{name: "confirm", args: []string{"confirm"}, code: exitDone, prepare: func(s *site) {
		s.setRecord(tried)
		h.Must(s.T, "sh", "-ec",
			"cd /var/lib/updatectl/roots; mkdir -p "+one+"/etc.before/x; cp -a /run/lab/stray/. stray-copy; rm -rf "+
				"sha256-"+strings.Repeat("0", 64)+"; mv stray-copy sha256-"+strings.Repeat("0", 64))
	}, after: func(s *site) {
		if s.status().Phase == "trying" || s.status().Phase == "armed" { // as the unit, or the next apply, does
			s.updatectl(exitDone, "confirm")
		}
	}})
	must("systemctl unmask --runtime --quiet " + confirmUnit)
	stray := func(s *site) {
		h.Must(s.T, "sh", "-ec", "cd /var/lib/updatectl; cp -a /run/lab/stray roots/sha256-"+strings.Repeat("1", 64)+
			"; mkdir -p objects/aa; echo stray > objects/aa/"+strings.Repeat("b", 62))
	}
	meet(act{name: "gc", args: []string{"gc", "--all"}, code: exitDone, prepare: stray})

	release = s.inhibit()
	good := h.Must(s.T, "cat", stateFile)
	must("cp /run/updatectl/armed.json /run/lab/armed.json") // asking for a switch removes it
	meet(act{name: "roll back", args: []string{"rollback"}, code: exitBlocked, prepare: func(s *site) {
		s.setRecord(good)
		h.Must(s.T, "cp", "/run/lab/armed.json", "/run/updatectl/armed.json")
	}})
	release()
	gone = s.queues()
	meet(s.arming("arm the host", s.edited("rollback", "host", nil), false))
	gone()
	s.switches("rollback")
	s.runs("host", "host")
}

// TestFaultsInShort is a sample of TestEveryFault: the steps at which a crash or a full disk is most dangerous.
func TestFaultsInShort(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "faultcore")
	sample := map[string][]string{
		"stage":     {"KILL rename /var/lib/updatectl/roots/sha256-*"},
		"arm":       {"ENOSPC write /var/lib/updatectl/roots/sha256-*/etc.prepared.new/…", "KILL move_mount /run/nextroot"},
		"confirm":   {"KILL rename /var/lib/updatectl/state.json"},
		"roll back": {"EROFS rename /var/lib/updatectl/state.json"},
	}
	s.acts(func(a act) {
		if len(sample[a.name]) > 0 {
			a.meets(t, s, func(f fault.Spec) bool {
				return slices.Contains(sample[a.name], f.Do+" "+f.Step)
			}, len(sample[a.name]))
		}
	})
}
