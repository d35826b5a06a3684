package hook

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const examples = "../../configs/examples/hooks"

// example returns a root with an example as its only hook, and with fakes of other programs before the real ones. A
// fake is a shell script; $dir is where it keeps what it knows.
func example(t *testing.T, name string, fakes map[string]string) root {
	t.Helper()
	r := newRoot(t)
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	r.hook(operator+name, "")
	r.write(name, string(text))
	for program, script := range fakes {
		r.hook("/bin/"+program, "dir="+r.dir+"\n"+script)
	}
	t.Setenv("PATH", filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("POLL", "0.01")
	return r
}

// fact sets what a fake knows.
func (r root) fact(name, value string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(value), 0o644); err != nil {
		r.Fatal(err)
	}
}

// update is what the examples are told.
var update = About{From: "root-1", FromVersion: "1.0", To: "root-2", Version: "2.0", Level: "soft",
	Reason: `the check "app" said \ no`}

// during runs an event with a deadline and returns its only failure, a veto or a warning.
func (r root) during(event Event, deadline time.Duration) string {
	r.Helper()
	warnings, err := Run(r.Context(), DirsOf(r.dir), event, update, deadline)
	var veto *Veto
	switch {
	case errors.As(err, &veto):
		return veto.Reason
	case err != nil:
		r.Fatal(err)
	}
	return strings.Join(warnings, "\n")
}

// TestExamplesAreShell: they are POSIX shell as dash reads it, can be run as they are, and say what to set.
func TestExamplesAreShell(t *testing.T) {
	files, err := filepath.Glob(examples + "/*")
	if err != nil || len(files) != 3 {
		t.Fatalf("the examples are %v, %v", files, err)
	}
	for _, file := range files {
		if out, err := exec.Command("dash", "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
		st, err := os.Stat(file)
		if err != nil || st.Mode().Perm()&0o111 != 0o111 {
			t.Errorf("%s is not executable: %v, %v", file, st, err)
		}
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), "#!/bin/sh\n# Hook of updatectl: ") ||
			!strings.Contains(string(text), "Set") {
			t.Errorf("%s does not say what it is and what to set", file)
		}
	}
}

// balancer is HAProxy's runtime API: $dir/sessions has the numbers of sessions that it shows one after the other,
// $dir/broken what it answers to every change.
const balancer = `
[ ! -e $dir/down ] || exit 1
for last; do :; done
read -r command
echo "$last $command" >>$log
case $command in
"set server "*) cat $dir/broken 2>/dev/null || echo ;;
"show stat web 4 -1")
	read -r now rest <$dir/sessions
	[ -z "$rest" ] || echo "$rest" >$dir/sessions
	printf '# pxname,svname,qcur,scur,\nweb,other,0,7,\nweb,me,0,%s,\n\n' "$now" ;;
esac`

func haproxy(t *testing.T) root {
	t.Helper()
	r := example(t, "haproxy-drain", map[string]string{"socat": balancer})
	t.Setenv("BALANCERS", "a:1 b:2")
	t.Setenv("SERVER", "me")
	return r
}

// TestHAProxyDrains: the host is taken out at both balancers, and switches when both have no session of it any more.
func TestHAProxyDrains(t *testing.T) {
	r := haproxy(t)
	r.fact("sessions", "2 1 1 0 0 0")
	if failure := r.during(BeforeSwitch, time.Minute); failure != "" {
		t.Errorf("it failed: %s", failure)
	}
	show := "TCP:a:1,connect-timeout=5 show stat web 4 -1\nTCP:b:2,connect-timeout=5 show stat web 4 -1"
	want := "TCP:a:1,connect-timeout=5 set server web/me state drain\n" +
		"TCP:b:2,connect-timeout=5 set server web/me state drain\n" + strings.Join([]string{show, show, show}, "\n")
	if got := r.log(); got != want {
		t.Errorf("it asked\n%s\nwant\n%s", got, want)
	}
	for _, event := range []Event{Good, RolledBack, CalledOff} {
		failure := r.during(event, time.Minute)
		changes, _, _ := strings.Cut(want, "\n"+show)
		if got := r.log(); failure != "" || got != strings.ReplaceAll(changes, "drain", "ready") {
			t.Errorf("%s: %s, it asked\n%s", event, failure, got)
		}
	}
	for _, event := range []Event{BeforeFetch, Bad} {
		if failure, got := r.during(event, time.Minute), r.log(); failure != "" || got != "" {
			t.Errorf("%s: %s, it asked\n%s", event, failure, got)
		}
	}
}

// TestHAProxyVetoes: a switch does not cut off sessions, and not without the balancers' consent.
func TestHAProxyVetoes(t *testing.T) {
	for name, c := range map[string]struct {
		facts    map[string]string
		server   string
		deadline time.Duration
		want     string
	}{
		"the deadline nears": {map[string]string{"sessions": "3"}, "me", 10 * time.Second, "6 sessions of web/me are left"},
		"unreachable":        {map[string]string{"down": ""}, "me", time.Minute, "cannot reach the balancer at b:2"},
		"refused":            {map[string]string{"broken": "No such server."}, "me", time.Minute, "drain: No such server."},
		"another name":       {map[string]string{"sessions": "0"}, "you", time.Minute, "are BACKEND and SERVER right?"},
		"no number":          {map[string]string{"sessions": "x"}, "me", time.Minute, "are BACKEND and SERVER right?"},
	} {
		t.Run(name, func(t *testing.T) {
			r := haproxy(t)
			t.Setenv("SERVER", c.server)
			for fact, value := range c.facts {
				r.fact(fact, value)
			}
			if got := r.during(BeforeSwitch, c.deadline); !strings.HasPrefix(got, "exit code 1: ") ||
				!strings.HasSuffix(got, c.want) {
				t.Errorf("the reason is %q, want %q", got, c.want)
			}
		})
	}
}

// TestHAProxyComesBack: a balancer that cannot be reached yet is asked again, until the deadline nears.
func TestHAProxyComesBack(t *testing.T) {
	r := haproxy(t)
	r.fact("down", "")
	if got := r.during(Good, 10*time.Second); !strings.HasSuffix(got, "exit code 1: cannot reach the balancer at b:2") {
		t.Errorf("the warning is %q", got)
	}
	time.AfterFunc(100*time.Millisecond, func() { os.Remove(filepath.Join(r.dir, "down")) })
	if got := r.during(Good, time.Minute); got != "" {
		t.Errorf("the warning is %q", got)
	}
	if got := r.log(); !strings.Contains(got, "b:2,connect-timeout=5 set server web/me state ready") {
		t.Errorf("it asked\n%s", got)
	}
}

// cluster is kubectl: $dir/node has the state of the node.
const cluster = `
[ ! -e $dir/down ] || { echo "connection refused" >&2; exit 1; }
case $1 in
get) cat $dir/node; exit ;;
drain) [ ! -e $dir/pinned ] || { echo "error: cannot evict pod db-0" >&2; exit 1; } ;;
esac
echo "$KUBECONFIG $*" >>$log`

func kubernetes(t *testing.T, node string) root {
	t.Helper()
	r := example(t, "kubernetes", map[string]string{"kubectl": cluster})
	t.Setenv("NODE", "n1")
	t.Setenv("KUBECONFIG", "/k")
	r.fact("node", node)
	return r
}

// TestKubernetes: the node is cordoned and drained, and lets pods in again, unless people have cordoned it.
func TestKubernetes(t *testing.T) {
	const (
		cordon   = "/k annotate --overwrite node n1 updatectl/cordoned=true\n/k cordon n1\n"
		drain    = "/k drain n1 --ignore-daemonsets --delete-emptydir-data --timeout="
		uncordon = "/k uncordon n1\n/k annotate node n1 updatectl/cordoned-"
	)
	for state, c := range map[string]struct{ before, after string }{
		",":         {cordon + drain, ""},       // pods may run there
		"true,true": {cordon + drain, uncordon}, // the hook has cordoned it
		"true,":     {drain, ""},                // people have
		",true":     {cordon + drain, uncordon}, // people have let pods in meanwhile
	} {
		t.Run(state, func(t *testing.T) {
			r := kubernetes(t, state)
			failure := r.during(BeforeSwitch, 5*time.Minute)
			got, seconds, _ := strings.Cut(r.log(), "--timeout=")
			if failure != "" || got+"--timeout=" != c.before {
				t.Errorf("before: %s, it did\n%s\nwant\n%s", failure, got, c.before)
			}
			if took, err := time.ParseDuration(seconds); err != nil || took > 270*time.Second || took < 260*time.Second {
				t.Errorf("the time to drain is %s, %v", seconds, err)
			}
			for _, event := range []Event{Good, RolledBack, CalledOff} {
				if failure, got := r.during(event, time.Minute), r.log(); failure != "" || got != c.after {
					t.Errorf("%s: %s, it did\n%s\nwant\n%s", event, failure, got, c.after)
				}
			}
			for _, event := range []Event{BeforeFetch, Bad} {
				if failure, got := r.during(event, time.Minute), r.log(); failure != "" || got != "" {
					t.Errorf("%s: %s, it did\n%s", event, failure, got)
				}
			}
		})
	}
}

// TestKubernetesFails: a node that cannot be drained vetoes, and the output says if it stays cordoned.
func TestKubernetesFails(t *testing.T) {
	r := kubernetes(t, ",")
	const late = "exit code 1: no time is left to drain n1: raise deadline in [hooks]"
	if got := r.during(BeforeSwitch, 20*time.Second); got != late {
		t.Errorf("a short deadline: %q", got)
	}
	if got := r.log(); got != "" {
		t.Errorf("a short deadline: it did\n%s", got)
	}
	r.fact("pinned", "")
	if got := r.during(BeforeSwitch, time.Minute); got != "exit code 1: error: cannot evict pod db-0" {
		t.Errorf("a pod that stays: %q", got)
	}
	r.fact("down", "")
	if got := r.during(BeforeSwitch, time.Minute); got != "exit code 1: connection refused" {
		t.Errorf("no cluster before: %q", got)
	}
	if got := r.during(Good, 10*time.Second); !strings.HasSuffix(got, "n1 may still be cordoned: kubectl uncordon n1") {
		t.Errorf("no cluster after: %q", got)
	}
	r.log()
	r.fact("node", "true,true")
	time.AfterFunc(100*time.Millisecond, func() { os.Remove(filepath.Join(r.dir, "down")) })
	if got, did := r.during(Good, time.Minute), r.log(); got != "" || !strings.HasPrefix(did, "/k uncordon n1") {
		t.Errorf("the cluster comes back: %q, it did\n%s", got, did)
	}
}

// TestNotify: the webhook gets JSON whatever the reason is, and a message that does not arrive never vetoes.
func TestNotify(t *testing.T) {
	r := example(t, "notify", map[string]string{
		"curl": `[ ! -e $dir/down ] || { echo "curl: no route" >&2; exit 7; }
for last; do :; done; echo "$last" >$dir/address; cat >>$log`,
		"mail": `printf 'mail %s %s %s: ' "$@" >$dir/mail; cat >>$dir/mail`,
	})
	t.Setenv("WEBHOOK", "https://chat.example.org/x")
	t.Setenv("MAIL_TO", "ops@example.org")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for event, text := range map[Event]string{
		BeforeSwitch: host + " switches from 1.0 to 2.0 (soft)",
		CalledOff:    host + " does not switch to 2.0: " + update.Reason,
		Good:         host + " runs 2.0",
		Bad:          "2.0 is bad on " + host + ": " + update.Reason,
		RolledBack:   host + " rolled back from 2.0: " + update.Reason,
	} {
		if failure := r.during(event, time.Minute); failure != "" {
			t.Errorf("%s: %s", event, failure)
		}
		var got map[string]string
		message := r.log()
		if err := json.Unmarshal([]byte(message), &got); err != nil {
			t.Fatalf("%s: %s: %v", event, message, err)
		}
		if got["text"] != text || got["event"] != string(event) || got["host"] != host || got["version"] != "2.0" ||
			got["reason"] != update.Reason {
			t.Errorf("%s: %v", event, got)
		}
		mail, err := os.ReadFile(filepath.Join(r.dir, "mail"))
		want := "mail -s " + host + ": " + string(event) + " ops@example.org: " + text + "\n"
		if err != nil || string(mail) != want {
			t.Errorf("%s: %s, %v; want %s", event, mail, err, want)
		}
	}
	address, err := os.ReadFile(filepath.Join(r.dir, "address"))
	if err != nil || string(address) != "https://chat.example.org/x\n" {
		t.Errorf("the webhook is %q, %v", address, err)
	}
	r.fact("down", "")
	if got := r.during(BeforeSwitch, time.Minute); got != "" {
		t.Errorf("it vetoed: %s", got)
	}
	if got := r.during(Good, time.Minute); !strings.HasSuffix(got, "exit code 1: curl: no route") {
		t.Errorf("the warning is %q", got)
	}
}
