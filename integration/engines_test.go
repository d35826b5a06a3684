//go:build lab && endurance

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Engines) }

// furnishEngines makes a small image, and runs it by podman, of root and of a user who lingers, and in a machine that
// systemd-machined knows. In a container of the lab, user namespaces cannot mount a /proc of their own.
const furnishEngines = `
useradd -m -s /bin/bash alice; loginctl enable-linger alice
mkdir -p /srv/small/bin; cd /srv/small
cp /usr/bin/dash bin/sh; cp /usr/bin/sleep bin/
for lib in $(ldd bin/sh bin/sleep | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do
	mkdir -p .$(dirname $lib); cp -L $lib .$lib
done
mkdir -p proc sys dev run tmp etc var usr/lib; echo ID=small >etc/os-release
tar -cf /srv/small.tar .; chmod 644 /srv/small.tar
cat >/srv/as-alice <<'END'
#!/bin/sh
exec runuser -u alice -- env -C /home/alice HOME=/home/alice XDG_RUNTIME_DIR=/run/user/$(id -u alice) \
	DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u alice)/bus "$@"
END
chmod 755 /srv/as-alice
mkdir -p /etc/containers /etc/updatectl/conf.d
printf '[containers]\nkeyring = false\npids_limit = 0\n' >/etc/containers/containers.conf
printf '[state]\nadopt = ["containers/containers.conf"]\n' >/etc/updatectl/conf.d/20-engines.toml
podman import -q /srv/small.tar small
podman run -q -d --name web --network=host --privileged small /bin/sleep 100000
/srv/as-alice podman import -q /srv/small.tar small
/srv/as-alice podman run -q -d --name hers --network=host --pid=host small /bin/sleep 100001
systemd-run --quiet --unit=lab-box --property=DefaultDependencies=no --slice=machine.slice \
	systemd-nspawn --quiet --directory=/srv/small --machine=box --register=yes --private-users=no /bin/sleep 100002
systemd-run --quiet --scope --unit=batch --description='a long job' sleep 100003 >/dev/null 2>&1 </dev/null &
until machinectl show box >/dev/null 2>&1 && systemctl is-active --quiet batch.scope; do sleep 1; done
`

// TestEngines: plan names what runs by podman, by systemd-machined and in scopes, and a switch ends all of it as
// promised: the engines agree, nothing of it stays mounted or alive, and what ended starts again.
func TestEngines(t *testing.T) {
	s := newPublisher(t)
	s.boot(lab.Options{Name: "engines", Tree: s.tree("engines")}, nil)
	s.publish("engines", "os/server:stable")
	h := s.host
	h.Must(t, "sh", "-ec", furnishEngines)
	s.updatectl(exitAvailable, "stage")
	plan := s.updatectl(exitAvailable, "plan").Stdout
	for _, named := range []string{"web", " of alice", "box", "batch (a long job)"} {
		if !strings.Contains(plan, named) {
			t.Errorf("plan does not name %s:\n%s", named, plan)
		}
	}
	s.switches("apply")
	s.runs(s.roots["engines"], "engines")               // without failed units
	for _, c := range []struct{ command, want string }{ // what starts again comes last
		{"podman ps -a --format '{{.Names}} {{.State}}'", "web exited"},
		{"/srv/as-alice podman ps -a --format '{{.Names}} {{.State}}'", "hers exited"},
		{"machinectl list --no-legend", ""},
		{"findmnt -rno TARGET | grep /merged$; :", ""},
		{"pgrep -f '[s]leep 10000|[c]onmon'; :", ""}, // the brackets: the shell's own command line is no match
		{"podman start web; podman inspect -f {{.State.Status}} web", "web\nrunning"},
		{"/srv/as-alice podman start hers; /srv/as-alice podman ps -q|wc -l", "hers\n1"},
	} {
		if got := h.Must(t, "sh", "-c", "{ "+c.command+"\n} 2>/dev/null"); got != c.want {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
}
