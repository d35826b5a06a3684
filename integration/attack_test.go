//go:build lab

package integration

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// thief exchanges a directory and a link into a directory of root's, again and again, and notes when.
const thief = `cd /etc/app
while mv --exchange --no-target-directory data link 2>/dev/null; do
	read -r now rest < /proc/uptime
	echo "$now" >> /var/lib/app/$1
done
`

// TestUsersWhoSurviveTheirServices: processes of a user whose service has stopped (KillMode=process), and those of a
// container's scope, are alive when a root is armed. They are frozen while /etc is merged, and run on until the soft
// reboot; nothing of root's gets into the directory that they exchange files in. A survivor is not frozen.
func TestUsersWhoSurviveTheirServices(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "thief")
	s.settlesAtOnce()
	h := s.host
	one, root1 := s.variant("one", "1", aFile("etc/one.conf", "1\n"))
	two, root2 := s.variant("two", "2", aFile("etc/one.conf", "2\n"))
	s.switches("apply", "--from", one)
	s.runs(root1, "1")
	for path, text := range map[string]string{
		"/etc/app/thief": thief,
		"/etc/systemd/system/job.service": "[Service]\nKillMode=process\nExecStart=/bin/sh -c " +
			"'setpriv --reuid=4242 --clear-groups sh /etc/app/thief job & exec sleep infinity'\n",
		"/etc/systemd/system/survivor.service": "[Unit]\nDefaultDependencies=no\nSurviveFinalKillSignal=yes\n" +
			"IgnoreOnIsolate=yes\n[Service]\nExecStart=setpriv --reuid=4242 --clear-groups sh -c 'while sleep 0.01; do " +
			"read -r now rest < /proc/uptime; echo $$now >> /var/lib/app/survivor; done'\n",
	} {
		h.Must(t, "mkdir", "-p", "/etc/app")
		if err := h.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.Must(t, "sh", "-ec", `mkdir -p /etc/app/data /etc/lab-secret /var/lib/app
		ln -s ../lab-secret /etc/app/link
		for i in $(seq 200); do echo his > /etc/app/data/$i; echo root > /etc/lab-secret/$i; done
		chmod 600 /etc/lab-secret/*
		chmod 700 /etc/lab-secret; chmod 4755 /etc/lab-secret/1
		chown -hR 4242 /etc/app /var/lib/app
		systemctl daemon-reload; systemctl start job.service survivor.service
		systemd-run --quiet --scope --unit=box --property=DefaultDependencies=no setpriv --reuid=4242 --clear-groups \
			sh -c 'while sleep 0.01; do read -r now rest < /proc/uptime; echo "$now" >> /var/lib/app/box; done' \
			> /dev/null 2>&1 < /dev/null &`)
	h.Must(t, "sh", "-ec", `for i in $(seq 600); do test -s /var/lib/app/job && test -s /var/lib/app/box && exit
		sleep 0.1; done; systemctl status job.service box.scope; exit 1`)

	s.switches("apply", "--from", two)
	s.runs(root2, "2")
	var stamp struct {
		At   time.Duration `json:"at_ns"`
		Took time.Duration `json:"took_ns"`
	}
	err := json.Unmarshal([]byte(h.Must(t, "cat", "/run/updatectl/armed.json")), &stamp)
	if err != nil || stamp.At == 0 || stamp.Took == 0 {
		t.Fatalf("the stamp is %+v: %v", stamp, err)
	}
	at := map[string][]time.Duration{}
	for _, name := range []string{"job", "box", "survivor"} {
		at[name] = beats(h.Must(t, "tail", "-n", "20000", "/var/lib/app/"+name), stamp.At-stamp.Took-5*time.Second,
			stamp.At)
		if len(at[name]) == 0 {
			t.Fatalf("%s was not alive when the root was armed", name)
		}
	}
	// Arming takes some 400 ms, on a busy machine seconds. It may keep a process waiting, too, but not only these.
	for _, name := range []string{"job", "box"} {
		from, to := longestPause(append(at[name], stamp.At))
		lived := 0
		for _, beat := range at["survivor"] {
			if beat > from && beat < to {
				lived++
			}
		}
		t.Logf("%s paused for %v, %v before the root was armed; the survivor had %d beats meanwhile", name, to-from,
			stamp.At-to, lived)
		if to-from < 150*time.Millisecond || lived == 0 {
			t.Errorf("%s was not frozen, or the survivor was", name)
		}
	}
	h.Must(t, "sh", "-ec", `test ! -e /run/updatectl/frozen
		test -z "$(find /etc/app -type f -perm /6000)"
		test -z "$(find /etc/app -type f ! -name thief -exec grep -L his {} +)"
		test "$(stat -c %a /etc/lab-secret) $(cat /etc/lab-secret/7)" = "700 root"
		test "$(cat /etc/one.conf)" = 2`)
	if frozen := h.Must(t, "sh", "-ec", `grep -l 1 $(find /sys/fs/cgroup -name cgroup.freeze) || true`); frozen != "" {
		t.Errorf("still frozen: %s", frozen)
	}

	// A path of the state that a user can make lead elsewhere is refused.
	h.Must(t, "sh", "-ec", `mkdir -p /etc/updatectl/conf.d /srv/his/data; chown 4242 /srv/his
		printf '[state]\npersist = ["/var", "/home", "/root", "/srv/his/data"]\n' > /etc/updatectl/conf.d/50-his.toml`)
	s.complains(exitUsage, "/srv/his, which it is in, belongs to user 4242", "", "config", "check")
}

// beats returns the beats between two times, in order.
func beats(text string, from, until time.Duration) []time.Duration {
	var at []time.Duration
	for line := range strings.Lines(text) {
		seconds, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			continue // a line that was cut off
		}
		if b := time.Duration(seconds * float64(time.Second)); b >= from && b <= until {
			at = append(at, b)
		}
	}
	slices.Sort(at)
	return at
}

// longestPause returns when the longest pause between beats began and ended.
func longestPause(at []time.Duration) (from, to time.Duration) {
	for i, b := range at[1:] {
		if b-at[i] > to-from {
			from, to = at[i], b
		}
	}
	return from, to
}
