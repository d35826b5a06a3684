package configs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeSSH answers for all hosts: $FAKE/HOST has what is asked, the exit code, and what is printed, in the order in
// which it must be asked. What ssh itself would say goes to stderr. A command that is not expected ends with 99.
const fakeSSH = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
host=$2; shift 3 # and updatectl
asked=$(echo "$*" | sed 's/ --output json$//')
read -r want code answer <"$FAKE/$host" || { echo "$host: $asked, want nothing" >>"$FAKE/broken"; exit 99; }
sed -i 1d "$FAKE/$host"
[ "$(echo "$want" | tr _ ' ')" = "$asked" ] || { echo "$host: $asked, want $want" >>"$FAKE/broken"; exit 99; }
if [ "$code" = 255 ]; then echo "ssh: $answer" >&2; else echo "$answer"; fi
exit "$code"
`

// What a host answers in the order of the questions. All are offered the same image.
const (
	offered = " 10 {\"newer\":true,\"live\":false,\"root\":\"a\"}\n"
	runsIt  = " 0 {\"newer\":false,\"live\":false,\"root\":\"a\"}\n"
	onTrial = " 0 {\"newer\":false,\"live\":false,\"root\":\"a\",\"trying\":true}\n"
	good    = " 0 {\"phase\":\"good\"}\n"
	last    = "status 0 {\"phase\":\"good\"}\n"

	nothingToDo = "check" + runsIt + last
	updated     = "check" + offered + "apply_--wait 0 {\"switching\":true}\nstatus_--wait 255 refused\n" +
		"status_--wait 255 refused\nstatus_--wait" + good + "check" + runsIt + last
	cut    = "check" + offered + "apply_--wait 255 closed\nstatus_--wait" + good + "check" + runsIt + last
	live   = "check" + offered + "apply_--wait 0 {\"switching\":false}\ncheck" + runsIt + last
	early  = "check" + offered + "apply_--wait 255 closed\nstatus_--wait" + good + "check" + offered + last
	silent = "check 255 connect to host: No route to host\nstatus 255 again\n"
	sick   = "check" + offered + "apply_--wait 143 \nstatus_--wait 40 " +
		"{\"last\":{\"reason\":\"the disk \\u001b[2J\\u009b is slow\"}}\n" + last
	paused  = "check" + offered + "apply_--wait 12 {\"error\":\"updates are paused\",\"reason\":\"paused\"}\n" + last
	givenUp = "check" + offered + "apply_--wait 12 {\"error\":\"marked bad\",\"reason\":\"given-up\"}\n" + last
	full    = "check" + offered + "apply_--wait 11 {\"error\":\"another kernel\"}\n" + last
	// Its timer has switched it a moment ago.
	tried   = "check" + onTrial + "status_--wait" + good + "check" + runsIt + last
	failing = "check" + onTrial + "status_--wait 40 {\"last\":{\"reason\":\"no database\"}}\n" + last
	// It begins to switch when the connection was cut and the old verdict read.
	late = "check" + offered + "apply_--wait 255 closed\nstatus_--wait" + good + "check" + onTrial +
		"status_--wait 40 {\"last\":{\"reason\":\"no database\"}}\n" + last
	another = "check 10 {\"newer\":true,\"live\":false,\"root\":\"b\"}\n" + last
	mute    = "check 0 \nstatus 0 \n"
)

// TestRollout runs the script with an ssh that is made up: who is asked what, and when nobody is asked any more.
func TestRollout(t *testing.T) {
	for name, c := range map[string]struct {
		hosts  []string // what they answer; h0 is the canary
		batch  string
		code   int
		prints []string
	}{
		"all": {hosts: []string{cut, updated, nothingToDo, live}, batch: "2", prints: []string{
			"canary: h0\n", "h0: done: it runs what is published\n", "batch: h1 h2\n", "h2: done: nothing to do\n",
			"batch: h3\n", "all 4 hosts run what is published\n",
		}},
		"a bad canary": {hosts: []string{sick, ""}, code: 1, prints: []string{
			`h0: bad: exit code 40, "the disk \u001b[2J\u009b is slow"`, "stopped at: h0\nnot begun: h1\n",
		}},
		"a bad host": {hosts: []string{nothingToDo, updated, sick, ""}, batch: "2", code: 1, prints: []string{
			"h1: done", "stopped at: h2\nnot begun: h3\n",
		}},
		"a canary that is paused": {hosts: []string{paused, ""}, code: 1, prints: []string{
			`h0: later: exit code 12, "updates are paused"`, "stopped at: h0\n",
		}},
		"a host that is paused": {hosts: []string{cut, paused, live}, batch: "1", code: 12, prints: []string{
			"h2: done", "not done, run it again later: h1\n",
		}},
		"given up": {hosts: []string{live, givenUp, ""}, batch: "1", code: 1, prints: []string{
			`h1: bad: exit code 12, "marked bad"`, "stopped at: h1\nnot begun: h2\n",
		}},
		"a full reboot": {hosts: []string{full}, code: 1, prints: []string{`h0: bad: exit code 11, "another kernel"`}},
		"a host that is down": {hosts: []string{silent}, code: 1, prints: []string{
			"h0: bad: no connection: ssh: connect to host: No route to host\n",
		}},
		"a host on trial": {hosts: []string{tried, nothingToDo}, code: 0, prints: []string{"h0: done: nothing to do\n"}},
		"a trial that fails": {hosts: []string{failing, ""}, code: 1, prints: []string{
			`h0: bad: exit code 40, "no database"`, "not begun: h1\n",
		}},
		"a switch that begins late": {hosts: []string{late}, code: 1, prints: []string{
			`h0: bad: exit code 40, "no database"`,
		}},
		"another image": {hosts: []string{cut, another, ""}, batch: "1", code: 1, prints: []string{
			"h1: bad: another image was published since the canary was updated\n", "not begun: h2\n",
		}},
		"no updatectl": {hosts: []string{mute, ""}, code: 1, prints: []string{
			"h0: bad: exit code 0, and the answer is none of updatectl\n",
		}},
		"cut before the switch": {hosts: []string{early}, code: 1, prints: []string{
			"h0: bad: there is still something to apply: the connection was cut before the switch",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRollout(t, c.hosts...)
			var args []string
			if c.batch != "" {
				args = []string{"-b", c.batch}
			}
			code, out := r.run(args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.prints {
				if !strings.Contains(out, want) {
					t.Errorf("it does not print %q", want)
				}
			}
			r.allAsked()
		})
	}
}

// TestRolloutGoesOn: a second run asks the hosts that are done, and updates the others.
func TestRolloutGoesOn(t *testing.T) {
	r := newRollout(t, cut, sick, "")
	if code, _ := r.run("-b", "1"); code != 1 {
		t.Errorf("with a bad host, the exit code is %d", code)
	}
	if got := r.read("state/h1.outcome"); !strings.HasPrefix(got, "bad: exit code 40") {
		t.Errorf("the outcome of a bad host is %q", got)
	}
	if got := r.read("state/h1.json"); got != "{\"phase\":\"good\"}\n" {
		t.Errorf("the status of a bad host is %q", got)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "state/h2.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a status of a host that was not asked: %v", err)
	}
	for host, answers := range map[string]string{"h0": nothingToDo, "h1": nothingToDo, "h2": cut} {
		r.write(host, answers)
	}
	if code, out := r.run("-b", "1"); code != 0 || !strings.Contains(out, "all 3 hosts run what is published") {
		t.Errorf("the second run ended with %d", code)
	}
	r.allAsked()
}

// TestRolloutRefuses: no host is asked.
func TestRolloutRefuses(t *testing.T) {
	for hosts, want := range map[string]string{
		"-oProxyCommand=touch${IFS}x\n": `the line "-oProxyCommand=touch${IFS}x " is no name of a host`,
		"h0\n../h1\n":                   `the line "../h1 " is no name of a host`,
		"h0 h1\n":                       `the line "h0 h1" is no name of a host`,
		"h0\nh1\nh0\n":                  "h0 is there twice",
		"# none\n\n":                    "there are no hosts",
	} {
		r := newRollout(t, "")
		r.write("hosts", hosts)
		if code, out := r.run(); code != 2 || !strings.Contains(out, want) {
			t.Errorf("%q ended with %d, want 2 and %q", hosts, code, want)
		}
	}
	r := newRollout(t, "")
	if code, out := r.run("-b", "0"); code != 2 || !strings.Contains(out, "not a number from 1 to 9999") {
		t.Errorf("a batch of 0 ended with %d", code)
	}
}

// rollout is a directory with hosts, and with what they will answer.
type rollout struct {
	*testing.T
	dir string
}

// newRollout makes the hosts h0, h1 and so on.
func newRollout(t *testing.T, hosts ...string) *rollout {
	t.Helper()
	if _, err := exec.LookPath("jq"); err != nil {
		t.Fatalf("the script needs jq: %v", err)
	}
	r := &rollout{t, t.TempDir()}
	list := "# the canary is first\n\n"
	for i, answers := range hosts {
		name := "h" + string(rune('0'+i))
		list += name + "\n"
		r.write(name, answers)
	}
	r.write("hosts", strings.TrimSuffix(list, "\n"))
	r.write("bin/ssh", fakeSSH)
	r.write("bin/sleep", "#!/bin/sh\n")
	return r
}

// run runs the script and returns its exit code and what it prints.
func (r *rollout) run(args ...string) (int, string) {
	r.Helper()
	cmd := exec.CommandContext(r.Context(), "examples/rollout", append(args, filepath.Join(r.dir, "hosts"),
		filepath.Join(r.dir, "state"))...)
	cmd.Env = append(os.Environ(), "FAKE="+r.dir, "PATH="+filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		r.Fatal(err)
	}
	r.Logf("%s", out)
	return cmd.ProcessState.ExitCode(), string(out)
}

// allAsked expects that each host was asked all that it has an answer to, and nothing else.
func (r *rollout) allAsked() {
	r.Helper()
	if text, err := os.ReadFile(filepath.Join(r.dir, "broken")); err == nil {
		r.Errorf("asked were:\n%s", text)
	}
	left, err := filepath.Glob(filepath.Join(r.dir, "h?"))
	if err != nil || len(left) == 0 {
		r.Fatalf("the hosts are %v, %v", left, err)
	}
	for _, host := range left {
		if text := r.read(filepath.Base(host)); text != "" {
			r.Errorf("%s was not asked: %s", filepath.Base(host), text)
		}
	}
}

func (r *rollout) read(name string) string {
	r.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

func (r *rollout) write(name, text string) {
	r.Helper()
	file := filepath.Join(r.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
		r.Fatal(err)
	}
}
