//go:build lab

package integration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/verify/printable"
)

// Exit codes of the contract, as docs/exit-codes.md lists them.
const (
	exitDone         = 0
	exitError        = 1
	exitUsage        = 2
	exitAvailable    = 10
	exitFullReboot   = 11
	exitBlocked      = 12
	exitNotTrusted   = 20
	exitStale        = 21
	exitIncompatible = 22
	exitNoSpace      = 30
	exitUnreachable  = 31
)

// site is what an operator has: a registry, a publisher, and a host with updatectl installed.
type site struct {
	*testing.T
	host      *lab.Host
	registry  *lab.Registry
	publisher *lab.Publisher
	// roots are the identities of the published trees by version.
	roots map[string]string
}

// newSite boots a host with updatectl and a registry with image 1 as os/server:stable.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	return newSiteOf(t, lab.Options{Name: name})
}

// newSiteOf is newSite with a host of another kind, or one that is changed before updatectl is installed on it.
func newSiteOf(t *testing.T, o lab.Options) *site {
	t.Helper()
	s := newPublisher(t)
	s.boot(o, nil)
	s.publish("1", "os/server:stable")
	return s
}

// newPublisher is a site without a host yet, and with nothing published.
func newPublisher(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, registry: lab.NewRegistry(t, lab.RegistryOptions{}), roots: map[string]string{}}
	var err error
	if s.publisher, err = lab.NewPublisher(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// boot boots a host with updatectl. What is done at the end sees its tree as the host will.
func (s *site) boot(o lab.Options, last func(root string) error) {
	s.Helper()
	customise := o.Customise
	o.Customise = func(root string) error {
		if customise != nil {
			if err := customise(root); err != nil {
				return err
			}
		}
		if err := lab.Install(root); err != nil {
			return err
		}
		if err := lab.Follow(root, s.registry, "os/server:stable", s.publisher); err != nil || last == nil {
			return err
		}
		return last(root)
	}
	s.host = lab.Start(s.T, o)
}

// tree is the published tree of a version.
func (s *site) tree(version string) string {
	s.Helper()
	build := map[string]func() (string, error){
		"1": func() (string, error) { return lab.V1(s.Context()) },
		"2": func() (string, error) { return lab.V2(s.Context()) },
		"3": func() (string, error) { return lab.V3(s.Context()) },

		"nokernel": func() (string, error) { return lab.NoKernel(s.Context()) },
	}[version]
	tree, err := build()
	if err != nil {
		s.Fatal(err)
	}
	return tree
}

// publish pushes and signs a version with the tools of others, and remembers its root.
func (s *site) publish(version, repository string) {
	s.Helper()
	digest, err := s.publisher.Release(s.Context(), s.registry, s.tree(version), repository)
	if err != nil {
		s.Fatal(err)
	}
	s.roots[version] = strings.Replace(digest, ":", "-", 1)
}

// updatectl runs the agent in the host and expects an exit code. What it returns is unfolded: a sentence is in one line.
func (s *site) updatectl(code int, args ...string) lab.Result {
	s.Helper()
	r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...)
	if r.Code != code {
		s.Fatalf("updatectl %s ended with %d, want %d\n%s", strings.Join(args, " "), r.Code, code, r)
	}
	r.Stdout, r.Stderr = printable.Unwrap(r.Stdout), printable.Unwrap(r.Stderr)
	return r
}

// refused runs the agent, which must refuse with a code, a sentence and a hint.
func (s *site) refused(code int, sentence, hint string, args ...string) {
	s.Helper()
	r := s.updatectl(code, args...)
	if !strings.Contains(r.Stderr, sentence) {
		s.Errorf("updatectl %s says %q, want %q in it", strings.Join(args, " "), r.Stderr, sentence)
	}
	if hint != "" && !strings.Contains(r.Stderr, "hint: ") || !strings.Contains(r.Stderr, hint) {
		s.Errorf("updatectl %s says %q, want the hint %q", strings.Join(args, " "), r.Stderr, hint)
	}
}

// switches runs a command of the agent that soft-reboots the host, and waits until the host is up again.
func (s *site) switches(args ...string) lab.BootStamp {
	s.Helper()
	before, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	// Whether the command's own end is seen depends on who is faster, it or the shutdown.
	if r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...); r.Code != 0 && r.Code < 128 {
		s.Fatalf("updatectl %s: %s", strings.Join(args, " "), r)
	}
	after, err := s.host.AwaitBoot(s.Context(), before)
	if err != nil {
		s.Fatalf("after updatectl %s: %v\n%s", strings.Join(args, " "), err, s.host.Console())
	}
	if after.BootID != before.BootID {
		s.Fatalf("updatectl %s booted the kernel", strings.Join(args, " "))
	}
	return after
}

// status is what the tests read of `updatectl status --output json`.
type status struct {
	Phase  string
	Booted struct{ Root, Version string }
	Staged *struct{ Root string }
	Good   []struct{ Root string }
	Bad    map[string]struct{ Reason string }
	Kernel struct {
		Release     string
		BootID      string `json:"boot_id"`
		SoftReboots int    `json:"soft_reboots"`
	}
	Armed  string
	Switch *struct {
		Verb, Target, Back string
		Deadline           time.Time
	}
	Last *struct{ Outcome, Reason, Target, Back string }
}

func (s *site) status() status {
	s.Helper()
	var v status
	if err := json.Unmarshal([]byte(s.updatectl(exitDone, "--output", "json", "status").Stdout), &v); err != nil {
		s.Fatal(err)
	}
	return v
}

// history reads the audit trail.
func (s *site) history() []historyEvent {
	s.Helper()
	var all []historyEvent
	for line := range strings.Lines(s.host.Must(s.T, "cat", "/var/lib/updatectl/history.jsonl")) {
		var e historyEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			s.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

type historyEvent struct {
	At                                 time.Time
	Event, Verb, Root, Version, Reason string
	LivePatch                          string `json:"live_patch"`
}

// runs expects the host to run a root, good and healthy, with nothing armed.
func (s *site) runs(root, version string) {
	s.Helper()
	v := s.settled()
	if v.Booted.Root != root || v.Phase != "good" || len(v.Good) == 0 || v.Good[0].Root != root {
		s.Fatalf("want %s booted and good, status is %+v", root, v)
	}
	if v.Armed != "" {
		s.Errorf("%s is left armed", v.Armed)
	}
	if got := s.host.Must(s.T, "cat", "/usr/share/lab/version"); got != version {
		s.Errorf("/usr is that of %s, want %s", got, version)
	}
	if got := s.host.Must(s.T, "cat", "/run/lab-identity"); got != version {
		s.Errorf("the services are those of %s, want %s", got, version)
	}
	if failed, err := s.host.FailedUnits(s.Context()); err != nil || len(failed) != 0 {
		s.Errorf("failed units: %v (%v)", failed, err)
	}
}

// settled waits until the unit that confirms has done its work: it runs when the system is up, not before.
func (s *site) settled() status {
	s.Helper()
	for deadline := time.Now().Add(s.host.Patience()); ; time.Sleep(100 * time.Millisecond) {
		v := s.status()
		if v.Phase != "armed" && v.Phase != "trying" && !s.confirms() || time.Now().After(deadline) {
			return v
		}
	}
}

// confirms tells whether that unit is still at work: with the record written, it collects and loads what waits, and has
// the lock.
func (s *site) confirms() bool {
	r := s.host.Run(s.Context(), "systemctl", "show", "--property", "ActiveState", "--value", "updatectl-confirm.service")
	return strings.TrimSpace(r.Stdout) == "activating"
}
