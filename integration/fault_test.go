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

// Where the injector and what it is told lie in a host: in /run, which outlives soft reboots.
const injector, faultSpec = "/run/lab/" + fault.Name, "/run/lab/fault.json"

// injects brings the injector into the host.
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

// settlesAtOnce has new roots judged as soon as they are up: what services do later is not what is asked here.
func (s *site) settlesAtOnce() {
	s.Helper()
	if err := s.host.WriteFile("/etc/updatectl/conf.d/20-quick.toml", "[health]\nsettle = \"10ms\"\n", 0o644); err != nil {
		s.Fatal(err)
	}
}

// faulted runs the agent with a fault, and returns the steps it took.
func (s *site) faulted(spec fault.Spec, args ...string) (lab.Result, []fault.Step) {
	s.Helper()
	s.faults(spec)
	r := s.host.Run(s.Context(), append([]string{injector, faultSpec, "updatectl"}, args...)...)
	return r, s.steps()
}

// faults writes down what the next run under the injector will meet.
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

// steps are those of the last run under the injector.
func (s *site) steps() []fault.Step {
	s.Helper()
	steps, err := fault.ReadLog(s.host.Must(s.T, "cat", faultSpec+".log"))
	if err != nil {
		s.Fatal(err)
	}
	return steps
}

// An act is something the agent does in steps, any of which may fail.
type act struct {
	name string
	args []string
	// code is its exit code when nothing fails.
	code int
	// prepare brings the host to where it begins, the same every time.
	prepare func(s *site)
	// after is called once it has run, before the host is looked at.
	after func(s *site)
	// quiet: nobody reads what it says, and an error shows later.
	quiet bool
}

// inject runs an act with one fault, looks at the host, and has the act done again without.
func (a act) inject(s *site, spec fault.Spec, whole string) {
	s.Helper()
	a.prepare(s)
	r, steps := s.faulted(spec, a.args...)
	if !slices.ContainsFunc(steps, func(step fault.Step) bool { return step.Hit }) {
		s.Errorf("the step did not come: this shows nothing")
	}
	switch {
	case spec.Do == "KILL":
		if r.Code != 128+9 {
			s.Errorf("it was not killed: %s", r)
		}
	case r.Code == a.code: // what failed was not needed
	case spec.Do == "EINTR":
		s.Errorf("an interrupted call is no error: %s", r)
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
		s.Errorf("done again without a fault: %s", r)
	}
	if a.after != nil {
		a.after(s)
	}
	s.sound()
	if got := s.kept(); got != whole {
		s.Errorf("the store is not what it is without a fault:\n%s\nbut\n%s", whole, got)
	}
}

// faultsOf are the faults that a step of a kind can meet. An error that stays is a full or a read-only disk.
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

// table is every fault of an act: a crash at each of its steps, and each error that the step can meet. Of calls that are
// the same step, the first meets the one half of them and the last the other, in turn.
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
		if kind[name] != fault.Read { // a crash there is one at the step before
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

// meets runs an act with the faults of its table that are picked.
func (a act) meets(t *testing.T, s *site, picked func(fault.Spec) bool, least int) {
	t.Run(a.name, func(t *testing.T) {
		all, whole := a.table(s.in(t))
		table := slices.DeleteFunc(slices.Clone(all), func(f fault.Spec) bool { return !picked(f) })
		if len(table) < least {
			t.Fatalf("only %d of %d faults, want %d: this shows nothing", len(table), len(all), least)
		}
		t.Logf("%d of %d faults", len(table), len(all))
		for _, f := range table {
			t.Run(fmt.Sprintf("%s at %d of %s", f.Do, f.Nth, strings.ReplaceAll(f.Step, "/", "|")), func(t *testing.T) {
				a.inject(s.in(t), f, whole)
			})
		}
	})
}

const stateFile = "/var/lib/updatectl/state.json"

// edited is the record with a switch in it as the agent writes it before it asks, and further changes.
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

// setRecord puts a record in place.
func (s *site) setRecord(text string) {
	s.Helper()
	if err := s.host.WriteFile(stateFile, text, 0o600); err != nil {
		s.Fatal(err)
	}
}

// queues has systemd hold a soft reboot in its queue that would do nothing, and a guard that would not act, so that what
// runs at one can run at any time.
// What it returns takes all of that away again.
func (s *site) queues() (gone func()) {
	s.Helper()
	for name, text := range map[string]string{
		"systemd-soft-reboot.service": "[Unit]\nDefaultDependencies=no\nAfter=lab-hold.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
		"lab-hold.service":            "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n",
		guardUnit:                     "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep infinity\n",
	} {
		if err := s.host.WriteFile("/run/systemd/system/"+name, text, 0o644); err != nil {
			s.Fatal(err)
		}
	}
	s.host.Must(s.T, "sh", "-ec", "systemctl daemon-reload; systemctl restart "+guardUnit) // one may be there still
	return func() {
		s.host.Must(s.T, "sh", "-ec", "systemctl stop "+guardUnit+"; cd /run/systemd/system; rm systemd-soft-reboot.service lab-hold.service "+guardUnit+"; systemctl daemon-reload")
	}
}

// arming is the act of arming, with a record.
func (s *site) arming(name, record string, fresh bool) act {
	return act{
		name: name, args: []string{"agent", "arm"}, code: exitDone, quiet: true,
		prepare: func(s *site) {
			if fresh {
				s.host.Must(s.T, "sh", "-ec", "rm -rf /var/lib/updatectl/roots/*/etc*")
			}
			s.setRecord(record)
			s.host.Must(s.T, "sh", "-ec", "rmdir /run/updatectl/next /var/lib/updatectl/host 2>/dev/null || :; rm -f /run/updatectl/armed.json; systemctl start "+armUnit+
				"; systemctl start --no-block lab-hold.service; systemctl start --no-block systemd-soft-reboot.service")
		},
		after: func(s *site) {
			s.host.Must(s.T, "sh", "-ec", "systemctl stop lab-hold.service; systemctl reset-failed 2>/dev/null; "+
				"while systemctl list-jobs | grep -q soft-reboot; do sleep 0.02; done")
		},
	}
}

// acts brings a host from its installation into an image and hands over what the agent does on the way.
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
	must("rm -rf /var/lib/updatectl; updatectl stage --from " + small + " || :; cp -a /var/lib/updatectl/roots/sha256-* /run/lab/stray")
	must("rm -rf /var/lib/updatectl; updatectl stage || :")
	one := s.roots["1"]

	release := s.inhibit()
	staged := h.Must(s.T, "cat", stateFile)
	meet(act{name: "apply", args: []string{"apply"}, code: exitBlocked, prepare: func(s *site) { s.setRecord(staged) }})
	s.updatectl(exitBlocked, "apply") // what it makes, arming needs
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
	meet(act{name: "confirm", args: []string{"confirm"}, code: exitDone, prepare: func(s *site) {
		s.setRecord(tried)
		h.Must(s.T, "sh", "-ec", "cd /var/lib/updatectl/roots; mkdir -p "+one+"/etc.before/x; cp -a /run/lab/stray/. stray-copy; rm -rf "+
			"sha256-"+strings.Repeat("0", 64)+"; mv stray-copy sha256-"+strings.Repeat("0", 64))
	}, after: func(s *site) {
		if s.status().Phase == "trying" || s.status().Phase == "armed" { // what the unit, or the next apply, does
			s.updatectl(exitDone, "confirm")
		}
	}})
	stray := func(s *site) {
		h.Must(s.T, "sh", "-ec", "cd /var/lib/updatectl; cp -a /run/lab/stray roots/sha256-"+strings.Repeat("1", 64)+
			"; mkdir -p objects/aa; echo stray > objects/aa/"+strings.Repeat("b", 62))
	}
	meet(act{name: "gc", args: []string{"gc"}, code: exitDone, prepare: stray})

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

// TestFaultsInShort is a sample of what TestEveryFault goes through: where a crash or a full disk is most dangerous.
func TestFaultsInShort(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "faultcore")
	sample := map[string][]string{
		"stage":        {"ENOSPC write /var/lib/updatectl/staging/root-*/objects/*", "KILL rename /var/lib/updatectl/roots/sha256-*", "EROFS create /var/lib/updatectl/.state.json.*"},
		"apply":        {"KILL rename /var/lib/updatectl/state.json", "EIO sync /var/lib/updatectl/.state.json.*"},
		"arm":          {"ENOSPC write /var/lib/updatectl/roots/sha256-*/etc.merged.new/…", "KILL move_mount /run/nextroot", "ENOMEM fsmount"},
		"arm again":    {"KILL rename /var/lib/updatectl/roots/sha256-*/etc"},
		"confirm":      {"KILL rename /var/lib/updatectl/state.json", "ENOSPC write /var/lib/updatectl/.state.json.*"},
		"gc":           {"KILL unlink /var/lib/updatectl/objects/*/*"},
		"roll back":    {"EROFS rename /var/lib/updatectl/state.json"},
		"arm the host": {"KILL move_mount /run/nextroot"},
	}
	s.acts(func(a act) {
		a.meets(t, s, func(f fault.Spec) bool {
			return slices.Contains(sample[a.name], f.Do+" "+f.Step)
		}, len(sample[a.name]))
	})
}
