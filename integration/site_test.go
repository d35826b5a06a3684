//go:build lab

package integration

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/verify/printable"
)

// Exit codes, as docs/exit-codes.md lists them.
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
	// roots are the names of the published roots by version.
	roots map[string]string
}

// newSite boots a host with updatectl and a registry with image 1 as os/server:stable.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	return newSiteOf(t, lab.Options{Name: name})
}

// newSiteOf is like newSite, with a host of another kind, or one that is changed before updatectl is installed on it.
func newSiteOf(t *testing.T, o lab.Options) *site {
	t.Helper()
	s := newPublisher(t)
	s.boot(o, nil)
	s.publish("1", "os/server:stable")
	return s
}

// newPublisher returns a site without a host, and with nothing published.
func newPublisher(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, registry: lab.NewRegistry(t, lab.RegistryOptions{}), roots: map[string]string{}}
	var err error
	if s.publisher, err = lab.NewPublisher(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// boot boots a host with updatectl. last is called right before, with the finished tree.
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

// tree returns the tree of a version.
func (s *site) tree(version string) string {
	s.Helper()
	build := map[string]func() (string, error){
		"1": func() (string, error) { return lab.V1(s.Context()) },
		"2": func() (string, error) { return lab.V2(s.Context()) },
		"3": func() (string, error) { return lab.V3(s.Context()) },
		"4": func() (string, error) { return lab.V4(s.Context()) },

		"volumes":   func() (string, error) { return lab.Volumes(s.Context()) },
		"objects":   func() (string, error) { return lab.Objects(s.Context()) },
		"multipath": func() (string, error) { return lab.Multipath(s.Context()) },
		"engines":   func() (string, error) { return lab.Engines(s.Context()) },
		"nokernel":  func() (string, error) { return lab.NoKernel(s.Context()) },
	}[version]
	tree, err := build()
	if err != nil {
		s.Fatal(err)
	}
	return tree
}

// publish pushes and signs a version with other people's tools, and remembers its root.
func (s *site) publish(version, repository string) {
	s.Helper()
	digest, err := s.publisher.Release(s.Context(), s.registry, s.tree(version), repository)
	if err != nil {
		s.Fatal(err)
	}
	s.roots[version] = strings.Replace(digest, ":", "-", 1)
}

// updatectl runs the agent in the host, expects an exit code and returns the result.
func (s *site) updatectl(code int, args ...string) lab.Result {
	s.Helper()
	r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...)
	if r.Code != code {
		s.Fatalf("updatectl %s ended with %d, want %d\n%s", strings.Join(args, " "), r.Code, code, r)
	}
	r.Stdout, r.Stderr = printable.Unwrap(r.Stdout), printable.Unwrap(r.Stderr)
	return r
}

var fullDigest = regexp.MustCompile(`sha256([:-][0-9a-f]{12})[0-9a-f]{52}`)

// short shortens the digests in a text as the agent does for people.
func short(text string) string { return fullDigest.ReplaceAllString(text, "sha256$1") }

// mentions reports whether an answer for people has a text in it that may be from JSON, wherever its lines end.
func mentions(answer, text string) bool {
	words := func(s string) string { return strings.Join(strings.Fields(short(s)), " ") }
	return strings.Contains(words(answer), words(text))
}

// refused runs the agent, which must refuse with a code, a sentence and a hint.
func (s *site) refused(code int, sentence, hint string, args ...string) {
	s.Helper()
	r := s.updatectl(code, args...)
	if !mentions(r.Stderr, sentence) {
		s.Errorf("updatectl %s prints %q, want %q in it", strings.Join(args, " "), r.Stderr, sentence)
	}
	if hint != "" && !strings.Contains(r.Stderr, "hint: ") || !mentions(r.Stderr, hint) {
		s.Errorf("updatectl %s prints %q, want the hint %q", strings.Join(args, " "), r.Stderr, hint)
	}
}

// switches runs a command of the agent that soft-reboots the host, waits until the host is up again and returns its
// stamp.
func (s *site) switches(args ...string) lab.BootStamp {
	s.Helper()
	before, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	// The command may end on its own, or be killed by the shutdown.
	if r := s.host.Run(s.Context(), append([]string{"updatectl"}, args...)...); r.Code != 0 && r.Code < 128 {
		s.Fatalf("updatectl %s: %s", strings.Join(args, " "), r)
	}
	after, err := s.host.AwaitBoot(s.Context(), before)
	if err != nil {
		s.Fatalf("after updatectl %s: %v\n%s", strings.Join(args, " "), err, s.host.Console())
	}
	if after.BootID != before.BootID {
		s.Fatalf("updatectl %s made a full reboot", strings.Join(args, " "))
	}
	return after
}

// status is the part of `updatectl status --output json` that the tests read.
type status struct {
	Phase  string
	Booted struct{ Root, Version string }
	Staged *struct{ Root string }
	Good   []struct{ Root string }
	Bad    map[string]struct {
		Reason     string
		RolledBack bool `json:"rolled_back"`
	}
	Kernel struct {
		Release     string
		BootID      string    `json:"boot_id"`
		SoftReboots int       `json:"soft_reboots"`
		RebootBy    time.Time `json:"reboot_by"`
	}
	Armed    string
	Failed   []string `json:"failed_units"`
	Starting []string `json:"starting_units"`
	Switch   *struct {
		Verb, Target, Back string
		Deadline           time.Time
	}
	Last       *struct{ Outcome, Reason, Target, Back string }
	NotReached map[string]struct {
		Times  int
		Reason string
	} `json:"failed_switches"`
	Resume *struct {
		Root     string
		Attempts int
	}
}

func (s *site) status() status {
	s.Helper()
	var v status
	s.answer(&v, exitDone, "status")
	return v
}

// answer runs the agent in the host, expects an exit code and parses its JSON output.
func (s *site) answer(v any, code int, args ...string) {
	s.Helper()
	r := s.updatectl(code, append([]string{"--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(r.Stdout), v); err != nil {
		s.Fatalf("updatectl %s printed %v: %s", strings.Join(args, " "), err, r)
	}
}

// applied is the part of `updatectl apply --output json` that the tests read.
type applied struct {
	Switching              bool
	Level                  string
	Root, Version, Skipped string
	Loaded                 []string `json:"loaded_live_patches"`
}

// stays runs an apply that must not switch, and returns its answer.
func (s *site) stays(args ...string) applied {
	s.Helper()
	var a applied
	s.answer(&a, exitDone, append([]string{"apply"}, args...)...)
	if a.Switching {
		s.Fatalf("updatectl apply %s switches: %+v", strings.Join(args, " "), a)
	}
	return a
}

// skipped runs an unattended apply that must leave an image alone, and returns why.
func (s *site) skipped(args ...string) string {
	s.Helper()
	a := s.stays(append([]string{"--unattended"}, args...)...)
	if a.Skipped == "" {
		s.Errorf("updatectl apply --unattended %s skips nothing: %+v", strings.Join(args, " "), a)
	}
	return a.Skipped
}

// decided is the part of `updatectl plan --output json` that the tests read.
type decided struct {
	Decision struct {
		Level  string
		Checks []struct{ Name, Verdict, Reason string }
	}
	Kernel   string
	Carried  []string
	Etc      *struct{}
	Live     bool
	Vouchers []struct{ Signer, Form string }
	Blockers []struct{ Unit string }
	Outage   *struct {
		From   int
		Outage time.Duration `json:"outage_ns"`
	}
	Packages *struct{ Added, Removed, Upgraded, Downgraded, Changed []plannedPackage }
	Files    *struct{ Added, Removed, Changed int }
	Unknown  []string
}

// plannedPackage is a package that a plan lists: with a version if it is added or removed, with two if it changes.
type plannedPackage struct{ Name, Architecture, Version, From, To string }

// check returns the reason of a check, "" if the plan has no such check.
func (d decided) check(name string) string {
	for _, c := range d.Decision.Checks {
		if c.Name == name {
			return c.Reason
		}
	}
	return ""
}

// plans runs plan, expects an exit code and returns its answer.
func (s *site) plans(code int, args ...string) decided {
	s.Helper()
	var d decided
	s.answer(&d, code, append([]string{"plan"}, args...)...)
	return d
}

// refusedAsBad runs a command that must refuse a bad root for the recorded reason, and must name --retry.
func (s *site) refusedAsBad(root string, args ...string) {
	s.Helper()
	bad, isBad := s.status().Bad[root]
	if !isBad || bad.Reason == "" {
		s.Fatalf("%s is not bad", root)
	}
	s.refused(exitBlocked, bad.Reason, "--retry", args...)
}

// rolledBackFrom expects the operator to have rolled back from a root on trial, and returns the recorded reason.
func (s *site) rolledBackFrom(root, back string) (reason string) {
	s.Helper()
	v := s.status()
	if bad := v.Bad[root]; !bad.RolledBack || v.Booted.Root != back {
		s.Errorf("want %s rolled back to %s, bad are %+v, %s is booted", root, back, v.Bad, v.Booted.Root)
	}
	if all := s.history(); !slices.ContainsFunc(all, func(e historyEvent) bool {
		return e.Event == "rolled back" && e.Root == root ||
			e.Event == "switching" && e.Verb == "rollback" && e.From == root && e.Root == back
	}) {
		s.Errorf("the history does not show it: %+v", all)
	}
	return v.Bad[root].Reason
}

// removedNothing runs gc and expects it to remove nothing.
func (s *site) removedNothing() {
	s.Helper()
	var removed struct {
		Roots   []string
		Objects int
	}
	s.answer(&removed, exitDone, "gc", "--all")
	if len(removed.Roots) > 0 || removed.Objects > 0 {
		s.Errorf("gc removed %+v", removed)
	}
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
	At                                       time.Time
	Event, Verb, Root, From, Version, Reason string
	LivePatch                                string `json:"live_patch"`
}

// runs expects a root to be booted, good and healthy, with nothing armed.
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
		s.Errorf("/usr is of version %s, want %s", got, version)
	}
	if got := s.host.Must(s.T, "cat", "/run/lab-identity"); got != version {
		s.Errorf("the services are of version %s, want %s", got, version)
	}
	if failed, err := s.host.FailedUnits(s.Context()); err != nil || len(failed) != 0 {
		s.Errorf("failed units: %v (%v)", failed, err)
	}
}

// settled waits until the confirming unit, which runs when the system is up, has ended, and returns the status.
func (s *site) settled() status {
	s.Helper()
	var v status
	s.host.Await(s.T, s.host.Patience(), func() bool {
		v = s.status()
		return v.Phase != "armed" && v.Phase != "trying" && !s.confirms()
	})
	return v
}

// confirms reports whether that unit is active: after it has written the record, it still removes old roots and loads
// live patches, and holds the lock.
func (s *site) confirms() bool {
	r := s.host.Run(s.Context(), "systemctl", "show", "--property", "ActiveState", "--value",
		"updatectl-confirm.service")
	return strings.TrimSpace(r.Stdout) == "activating"
}

// writeTexts writes files into the tree of a host.
func writeTexts(root string, texts map[string]string) error {
	for name, text := range texts {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755),
			os.WriteFile(filepath.Join(root, name), []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}
