package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// root is a root with hooks, which write what they do into a file.
type root struct {
	*testing.T
	dir string
}

const image, operator = "/usr/lib/updatectl/hooks.d/", "/etc/updatectl/hooks.d/"

func newRoot(t *testing.T) root { return root{t, t.TempDir()} }

// hook adds a hook, a shell script. $log is the file.
func (r root) hook(name, script string) {
	r.Helper()
	file := filepath.Join(r.dir, name)
	text := fmt.Sprintf("#!/bin/sh\nlog=%s/log\n%s\n", r.dir, script)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		r.Fatal(err)
	}
}

// log returns what the hooks wrote, and forgets it.
func (r root) log() string {
	r.Helper()
	name := filepath.Join(r.dir, "log")
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	os.Remove(name)
	return strings.TrimSpace(string(text))
}

// run runs an event with half a minute, which nothing here needs.
func (r root) run(event Event) ([]string, error) {
	return Run(r.Context(), DirsOf(r.dir), event, About{}, 30*time.Second)
}

func TestNoHooks(t *testing.T) {
	if warnings, err := newRoot(t).run(BeforeSwitch); warnings != nil || err != nil {
		t.Errorf("%q, %v", warnings, err)
	}
}

// TestOrder: all hooks run by name, the operator's replace the image's, and what is no hook does not run.
func TestOrder(t *testing.T) {
	r := newRoot(t)
	r.hook(image+"20-replaced", `echo image >>$log`)
	r.hook(operator+"20-replaced", `echo operator >>$log`)
	r.hook(image+"30-last", `echo last >>$log`)
	r.hook(operator+"10-first", `echo first >>$log`)
	r.hook(image+"15-masked", `echo masked >>$log`)
	r.hook(operator+".hidden", `echo hidden >>$log`)
	r.hook(operator+"README", `echo README >>$log`)
	if err := os.Symlink("/dev/null", filepath.Join(r.dir, operator, "15-masked")); err != nil {
		t.Fatal(err)
	}
	warnings, err := r.run(BeforeFetch)
	if got := r.log(); warnings != nil || err != nil || got != "first\noperator\nlast" {
		t.Errorf("%q, %q, %v", got, warnings, err)
	}
}

// TestWhatItIsTold: the event is the argument, and what the agent knows is in the environment, in one line each.
func TestWhatItIsTold(t *testing.T) {
	r := newRoot(t)
	r.hook(operator+"all", `echo "$#" "$1" >>$log; env | grep ^UPDATECTL_ | sort >>$log`)
	about := About{From: "root-1", FromVersion: "1.0", To: "root-2", Version: "2.0", Level: "soft",
		Reason: "it says \x1b[31m\x00no"}
	_, err := Run(t.Context(), DirsOf(r.dir), Bad, about, 90*time.Second)
	want := `1 bad
UPDATECTL_DEADLINE=90 or a little less
UPDATECTL_EVENT=bad
UPDATECTL_FROM=root-1
UPDATECTL_FROM_VERSION=1.0
UPDATECTL_LEVEL=soft
UPDATECTL_REASON=it says \x1b[31m\x00no
UPDATECTL_TO=root-2
UPDATECTL_VERSION=2.0`
	got := regexp.MustCompile(`=(8\d|90)\n`).ReplaceAllString(r.log(), "=90 or a little less\n")
	if err != nil || got != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
}

// TestVeto: every way to fail is a veto before something, and a warning after it.
func TestVeto(t *testing.T) {
	for name, c := range map[string]struct {
		make   func(r root)
		reason string
	}{
		"exit code": {func(r root) { r.hook(operator+"20-it", "echo why; echo 'not \033[1mnow' >&2; exit 3") },
			`exit code 3: not \x1b[1mnow`},
		"silent":     {func(r root) { r.hook(operator+"20-it", "exit 1") }, "exit code 1"},
		"a signal":   {func(r root) { r.hook(operator+"20-it", "echo late; kill -9 $$") }, "signal: killed: late"},
		"many words": {func(r root) { r.hook(operator+"20-it", "seq -s ' ' 9999; exit 1") }, "exit code 1: "},
		"no program": {func(r root) { r.hook(operator+"20-it", ""); r.write("20-it", "#!/missing\n") },
			"it cannot be run: "},
		"not for root": {func(r root) { r.hook(operator+"20-it", ""); r.mode("20-it", 0o777) }, "it is not run as root: "},
		"no x":         {func(r root) { r.hook(operator+"20-it", ""); r.mode("20-it", 0o644) }, "it is not executable"},
		"broken link":  {func(r root) { r.link("20-it", "missing") }, "it cannot be read: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t)
			r.hook(operator+"10-before", `echo before >>$log`)
			r.hook(operator+"30-after", `echo after >>$log`)
			c.make(r)
			for _, event := range []Event{BeforeFetch, BeforeSwitch} {
				warnings, err := r.run(event)
				var veto *Veto
				if !errors.Is(err, ErrVeto) || !errors.As(err, &veto) || warnings != nil {
					t.Fatalf("%s: %q, %v", event, warnings, err)
				}
				if veto.Hook != filepath.Join(r.dir, operator, "20-it") || veto.Event != event ||
					!strings.HasPrefix(veto.Reason, c.reason) || len(veto.Reason) > 700 {
					t.Errorf("%s: %+v", event, veto)
				}
				if got := r.log(); got != "before" {
					t.Errorf("%s: %q ran", event, got)
				}
			}
			for _, event := range []Event{CalledOff, Good, Bad, RolledBack} {
				warnings, err := r.run(event)
				if err != nil || len(warnings) != 1 ||
					!strings.Contains(warnings[0], "20-it failed at "+string(event)+": "+c.reason) {
					t.Errorf("%s: %q, %v", event, warnings, err)
				}
				if got := r.log(); got != "before\nafter" {
					t.Errorf("%s: %q ran", event, got)
				}
			}
		})
	}
}

func (r root) write(name, text string) {
	if err := os.WriteFile(filepath.Join(r.dir, operator, name), []byte(text), 0o755); err != nil {
		r.Fatal(err)
	}
}

func (r root) mode(name string, mode os.FileMode) {
	if err := os.Chmod(filepath.Join(r.dir, operator, name), mode); err != nil {
		r.Fatal(err)
	}
}

func (r root) link(name, to string) {
	if err := os.Symlink(to, filepath.Join(r.dir, operator, name)); err != nil {
		r.Fatal(err)
	}
}

// TestDeadline is one for all hooks of an event, and ends a hook with its children.
func TestDeadline(t *testing.T) {
	r := newRoot(t)
	r.hook(operator+"10-slow", `echo slow >>$log; echo waiting for sessions; sleep 60 & wait`)
	r.hook(operator+"20-next", `echo next >>$log`)
	const deadline = 100 * time.Millisecond
	start := time.Now()
	_, err := Run(t.Context(), DirsOf(r.dir), BeforeSwitch, About{}, deadline)
	if !errors.Is(err, ErrVeto) || !strings.Contains(err.Error(), "did not end within their deadline") {
		t.Errorf("before: %v", err)
	}
	warnings, err := Run(t.Context(), DirsOf(r.dir), Good, About{}, deadline)
	if err != nil || len(warnings) != 2 ||
		!strings.Contains(warnings[0], "10-slow failed at good: the hooks did not end") ||
		!strings.Contains(warnings[1], "20-next failed at good: it was not run: the hooks did not end") {
		t.Errorf("after: %q, %v", warnings, err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := r.log(); strings.Contains(got, "next") {
		t.Errorf("%q ran", got)
	}
}

// TestCanceled: whoever ends the agent does not veto, and gets no warning but an error.
func TestCanceled(t *testing.T) {
	r := newRoot(t)
	r.hook(operator+"10-slow", `sleep 60`)
	r.hook(operator+"20-next", `echo next >>$log`)
	stop := errors.New("SIGTERM")
	for _, event := range []Event{BeforeSwitch, Good} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
		warnings, err := Run(ctx, DirsOf(r.dir), event, About{}, time.Minute)
		if !errors.Is(err, stop) || errors.Is(err, ErrVeto) || warnings != nil {
			t.Errorf("%s: %q, %v", event, warnings, err)
		}
	}
	if got := r.log(); got != "" {
		t.Errorf("%q ran", got)
	}
}
