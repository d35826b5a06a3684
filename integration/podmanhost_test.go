//go:build lab && endurance

package integration

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// inPodman runs a command in the container sys, in the root that its systemd has now.
const inPodman = `#!/bin/sh
pid=$(podman inspect -f {{.State.Pid}} sys)
exec nsenter --target $pid --mount --uts --ipc --net --pid --cgroup --root=/proc/$pid/root --wd=/proc/$pid/root \
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
`

// TestPodmanHost: a container of podman with systemd is a host as any other: it switches to an image and back, for
// good and on a copy of the state.
func TestPodmanHost(t *testing.T) {
	s := newPublisher(t)
	s.boot(lab.Options{Name: "podman", Tree: s.tree("engines")}, nil)
	h := s.host
	root, layout := filepath.Join(h.Disk(), "srv/root"), filepath.Join(h.Disk(), "srv/layout")
	dir, two := s.variantLayout("two", "2", aFile("usr/share/lab/podman", "two\n"))
	s.releasectl("sign", "--key", s.publisher.Key, "oci:"+dir+":stable")
	for _, copied := range [][]string{{"cp", "-a", s.tree("1"), root}, {"cp", "-a", dir, layout}} {
		if out, err := exec.Command(copied[0], copied[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := lab.Install(root); err != nil {
		t.Fatal(err)
	}
	if err := lab.Follow(root, s.registry, "os/server:stable", s.publisher); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/srv/in", inPodman, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "sh", "-ec", `mkdir -p /etc/containers
printf '[containers]\nkeyring = false\npids_limit = 0\n' >/etc/containers/containers.conf
tar -C /srv/root -c . | podman import -q - sys; rm -rf /srv/root
podman run -q -d --name sys --systemd=always --privileged --network=none -v sysvar:/var sys /sbin/init
podman cp /srv/layout sys:/var/layout`)
	in := func(args ...string) lab.Result { return h.Run(t.Context(), append([]string{"/srv/in"}, args...)...) }
	says := func(args ...string) string { return strings.TrimSpace(in(args...).Stdout) }
	if !h.Await(t, 2*time.Minute, func() bool {
		return says("systemctl", "list-jobs", "--no-legend") == "" &&
			says("systemctl", "is-active", "multi-user.target") == "active"
	}) {
		t.Fatalf("systemd is not up in the container: %s", h.Run(t.Context(), "podman", "logs", "sys"))
	}
	const bootID = "/proc/sys/kernel/random/boot_id"
	id, boot := h.Must(t, "podman", "inspect", "-f", "{{.State.Pid}}", "sys"), says("cat", bootID)
	runs := func(version, root string, args ...string) {
		t.Helper()
		if r := in(append([]string{"updatectl"}, args...)...); r.Code != 0 && r.Code < 128 {
			t.Fatalf("updatectl %v: %s", args, r)
		}
		var v status
		if !h.Await(t, 3*time.Minute, func() bool {
			v = status{}
			r := in("updatectl", "--output", "json", "status")
			return json.Unmarshal([]byte(r.Stdout), &v) == nil && v.Booted.Root == root && v.Switch == nil &&
				says("systemctl", "is-active", "updatectl-confirm") == "active"
		}) {
			t.Fatalf("updatectl %v leads to %+v\n%s", args, v, in("journalctl", "-b", "-n", "60").Stdout)
		}
		if got := says("cat", "/usr/share/lab/version"); got != version || v.Armed != "" {
			t.Errorf("/usr is of version %s, want %s; armed is %q", got, version, v.Armed)
		}
	}
	const from = "oci:/var/layout:stable"
	const trial = "echo tried >> /var/data; echo tried > /home/file; echo tried > /etc/file"
	in("sh", "-c", "echo kept > /var/data")
	runs("2", two, "apply", "--volatile", "--from", from)
	if got := says("sh", "-c", trial+"; cat /var/data"); got != "kept\ntried" {
		t.Errorf("on the copy is %q", got)
	}
	runs("1", "host", "rollback")
	if got := says("sh", "-c", "cat /var/data /home/file /etc/file 2>/dev/null"); got != "kept" {
		t.Errorf("the trial left %q", got)
	}
	runs("2", two, "apply", "--from", from)
	in("sh", "-c", "echo more >> /var/data")
	runs("1", "host", "rollback")
	if got := says("cat", "/var/data"); got != "kept\nmore" {
		t.Errorf("the state is %q", got)
	}
	if got := h.Must(t, "podman", "inspect", "-f", "{{.State.Pid}}", "sys"); got != id ||
		says("cat", bootID) != boot {
		t.Errorf("the container was started anew: its first process is %s, and was %s", got, id)
	}
	t.Log(h.Must(t, "podman", "--version"))
}
