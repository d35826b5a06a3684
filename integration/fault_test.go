//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

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
	kill := fault.Spec{Do: "KILL"}
	switch kind {
	case fault.Read:
		return []fault.Spec{{Do: "EIO"}}
	case fault.Space:
		return []fault.Spec{{Do: "ENOSPC", Stays: true}, {Do: "EROFS", Stays: true}, {Do: "EIO"}, {Do: "EINTR"}, kill}
	case fault.Names:
		return []fault.Spec{{Do: "EROFS", Stays: true}, {Do: "EIO"}, kill}
	case fault.Sync:
		return []fault.Spec{{Do: "EIO"}, {Do: "ENOSPC"}, {Do: "EINTR"}, kill}
	}
	if step == "fsconfig" || step == "fsmount" { // their lock can be interrupted
		return []fault.Spec{{Do: "ENOMEM"}, {Do: "EINTR"}, kill}
	}
	return []fault.Spec{{Do: "ENOMEM"}, kill}
}

// table is every fault of an act: at the first and at the last of the calls that are the same step.
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
	for _, name := range order {
		for _, f := range faultsOf(name, kind[name]) {
			for _, nth := range slices.Compact([]int{1, count[name]}) {
				f.Step, f.Nth = name, nth
				table = append(table, f)
			}
		}
	}
	return table, s.kept()
}

// every runs an act with every fault of its table.
func (a act) every(t *testing.T, s *site) {
	t.Run(a.name, func(t *testing.T) {
		table, whole := a.table(s.in(t))
		if len(table) < 10 {
			t.Fatalf("only %d faults: this shows nothing", len(table))
		}
		t.Logf("%d faults", len(table))
		for _, f := range table {
			t.Run(fmt.Sprintf("%s at %d of %s", f.Do, f.Nth, strings.ReplaceAll(f.Step, "/", "|")), func(t *testing.T) {
				a.inject(s.in(t), f, whole)
			})
		}
	})
}

const stateFile = "/var/lib/updatectl/state.json"

// TestFaults goes through a table: every step of staging, of preparing a switch, of arming, confirming and collecting that
// touches the disk or the mounts, with the errors it can meet and with a crash. After each the host is whole, and the
// same is done again.
func TestFaults(t *testing.T) {
	s := newSite(t, "faults")
	h := s.host
	s.injects()
	small := s.registry.Host + "/" + s.offer("small", smallTree(t), s.publisher.Key, "--version", "small")

	act{name: "stage", args: []string{"stage", "--from", small}, code: exitAvailable, prepare: func(s *site) {
		h.Must(s.T, "rm", "-rf", "/var/lib/updatectl", "/run/updatectl")
	}}.every(t, s)
}
