//go:build lab && fleet

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Operator) }

// TestFleetScripts brings five hosts from one image to the next with the script for ssh and with the role for Ansible:
// the canary, then two batches of two. A host of the first batch is bad, so the second one is not begun; when it is
// repaired, another run goes on.
func TestFleetScripts(t *testing.T) {
	o := newOperator(t, 5)
	o.publish("1")
	out := o.rollout(exitDone)
	o.run("1", 0, 1, 2, 3, 4)
	if want := "batch: web3 web4\n"; !strings.Contains(out, want) {
		t.Errorf("the first rollout does not print %q", want)
	}

	t.Run("ssh", func(t *testing.T) {
		o := o.in(t)
		o.publish("2")
		o.breaks(2, "2")
		out := o.rollout(exitError)
		for _, want := range []string{
			"web0: done: it runs what is published\n", "web1: done: it runs what is published\n",
			"web2: bad: exit code 40, ", "required.d/version: exit code 1: 2 is bad",
			"stopped at: web2\nnot begun: web3 web4\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the rollout does not print %q", want)
			}
		}
		o.run("2", 0, 1)
		o.run("1", 2, 3, 4)
		o.names("web2", "required.d/version: exit code 1: 2 is bad")
		o.goesOn("2", func() string { return o.rollout(exitDone) }, "all 5 hosts run what is published")
	})
	t.Run("Ansible", func(t *testing.T) {
		o := o.in(t)
		o.publish("1")
		o.breaks(1, "1")
		out := o.play(2)
		for _, want := range []string{
			"bad: exit code 40, ", "required.d/version: exit code 1: 1 is bad", "fatal: [web1]: FAILED!",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the play does not print %q", want)
			}
		}
		o.run("1", 0, 2)
		o.run("2", 1, 3, 4)
		o.goesOn("1", func() string { return o.play(exitDone) }, "web4 ")
	})
}

// operator is somebody with hosts that are reached over ssh, with a key of their own.
type operator struct {
	*testing.T
	dir   string // of the key, the list of hosts and the state of the rollout
	sites []*site
}

// newOperator boots hosts web0, web1 and so on, which all follow one registry.
func newOperator(t *testing.T, count int) *operator {
	t.Helper()
	base := newPublisher(t)
	base.publish("1", "os/server:stable") // a host looks for it as soon as it runs
	o := &operator{T: t, dir: t.TempDir()}
	key := filepath.Join(o.dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	var list, names string
	for i := range count {
		s := *base
		name := fmt.Sprintf("web%d", i)
		s.boot(lab.Options{Name: name}, func(root string) error {
			return writeTexts(root, map[string]string{
				"root/.ssh/authorized_keys": string(public),
				// A busy machine has five hosts that start.
				"etc/updatectl/conf.d/50-haste.toml": "[health]\ndeadline = \"3m\"\nsettle = \"1s\"\n",
			})
		})
		o.sites = append(o.sites, &s)
		list += name + "\n"
		names += fmt.Sprintf("Host %s\n\tHostName %s\n", name, s.host.Addr)
	}
	names += fmt.Sprintf("Host *\n\tUser root\n\tIdentityFile %s\n\tUserKnownHostsFile %s\n"+
		"\tStrictHostKeyChecking accept-new\n", key, filepath.Join(o.dir, "known"))
	if err := writeTexts(o.dir, map[string]string{
		"hosts": list, "config": names,
		"bin/ssh": "#!/bin/sh\nexec /usr/bin/ssh -F " + filepath.Join(o.dir, "config") + " \"$@\"\n",
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(o.dir, "bin/ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	return o
}

// in returns the operator of a subtest.
func (o *operator) in(t *testing.T) *operator {
	inner := &operator{T: t, dir: o.dir}
	for _, s := range o.sites {
		inner.sites = append(inner.sites, s.in(t))
	}
	return inner
}

// publish publishes a version for all hosts.
func (o *operator) publish(version string) {
	o.Helper()
	o.sites[0].publish(version, "os/server:stable") // all have the same roots
}

// breaks makes a host unhealthy with a version.
func (o *operator) breaks(i int, version string) {
	o.Helper()
	o.sites[i].program(requiredCheck, fmt.Sprintf(
		"#!/bin/sh\ngrep -q %s /usr/share/lab/version || exit 0\necho %s is bad >&2\nexit 1\n", version, version))
}

const requiredCheck = "/etc/updatectl/health.d/required.d/version"

// goesOn repairs the host that is bad, and runs again: it says what it must, and leaves the hosts that are done alone.
func (o *operator) goesOn(version string, again func() string, says string) {
	o.Helper()
	before := map[int]lab.BootStamp{}
	for i, s := range o.sites {
		if s.status().Booted.Version == version {
			before[i] = o.stamp(i)
		} else if len(s.status().Bad) > 0 {
			s.host.Must(o.T, "rm", requiredCheck)
			s.switches("apply", "--retry")
			s.runs(s.roots[version], version)
		}
	}
	if len(before) != 2 {
		o.Errorf("before the second run, %v are done", before)
	}
	if out := again(); !strings.Contains(out, says) {
		o.Errorf("the second run does not print %q", says)
	}
	o.run(version, 0, 1, 2, 3, 4)
	for i, was := range before {
		if now := o.stamp(i); now != was {
			o.Errorf("web%d was done, and switched from %+v to %+v", i, was, now)
		}
	}
}

func (o *operator) stamp(i int) lab.BootStamp {
	o.Helper()
	stamp, err := o.sites[i].host.Stamp(o.Context())
	if err != nil {
		o.Fatal(err)
	}
	return stamp
}

// run expects hosts to run a version, and to be healthy.
func (o *operator) run(version string, hosts ...int) {
	o.Helper()
	for _, i := range hosts {
		if v := o.sites[i].settled(); v.Booted.Root != o.sites[i].roots[version] || v.Phase == "trying" {
			o.Fatalf("web%d runs %+v, want version %s", i, v, version)
		}
	}
}

// rollout runs the script for ssh, expects an exit code and returns what it prints.
func (o *operator) rollout(code int) string {
	o.Helper()
	return o.command(code, "../configs/examples/rollout", "-b", "2", filepath.Join(o.dir, "hosts"),
		filepath.Join(o.dir, "state"))
}

// play runs the role for Ansible in the same way.
func (o *operator) play(code int) string {
	o.Helper()
	return o.command(code, "ansible-playbook", "-i", filepath.Join(o.dir, "hosts"), "-e", `{"batches": [1, 2]}`,
		"../configs/examples/ansible/update.yml")
}

func (o *operator) command(code int, name string, args ...string) string {
	o.Helper()
	start := time.Now()
	cmd := exec.CommandContext(o.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(o.dir, "bin")+":"+os.Getenv("PATH"), "HOME="+o.dir,
		"ANSIBLE_HOME="+filepath.Join(o.dir, "ansible"), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	o.Logf("%s took %v\n%s", filepath.Base(name), time.Since(start).Round(time.Second), out)
	if got := cmd.ProcessState.ExitCode(); got != code {
		o.Fatalf("%s ended with %d (%v), want %d", name, got, err, code)
	}
	return string(out)
}

// names expects releasectl to tell from the state of the rollout which host is bad, and why.
func (o *operator) names(host, why string) {
	o.Helper()
	out := o.command(exitDone, lab.Binary(o.T, "releasectl"), "fleet", "--output", "json", filepath.Join(o.dir, "state"))
	var fleet struct {
		Hosts    int
		Versions []struct {
			Version string
			Hosts   []string
		}
		Failed []struct{ Host, Reason, Text string }
	}
	if err := json.Unmarshal([]byte(out), &fleet); err != nil {
		o.Fatalf("%v in %s", err, out)
	}
	if len(fleet.Failed) != 1 || fleet.Failed[0].Host != host || fleet.Failed[0].Reason != "unhealthy" ||
		!strings.Contains(fleet.Failed[0].Text, why) {
		o.Errorf("releasectl fleet says that these failed: %+v, want %s: %s", fleet.Failed, host, why)
	}
	versions := map[string][]string{}
	for _, v := range fleet.Versions {
		versions[v.Version] = v.Hosts
	}
	if fleet.Hosts != 5 || !slices.Equal(versions["2"], []string{"web0", "web1"}) ||
		!slices.Equal(versions["1"], []string{"web2", "web3", "web4"}) {
		o.Errorf("releasectl fleet says that %d hosts run %v", fleet.Hosts, versions)
	}
}
