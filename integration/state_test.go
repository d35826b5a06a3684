//go:build lab

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestStateAddedLater: directories that the operator adds to the state while an image runs belong to the host from then
// on, in every root. One that could be lost is refused.
func TestStateAddedLater(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "addstate")
	h := s.host
	h.Must(t, "sh", "-ec", "mkdir /hostdata && echo of-the-host > /hostdata/file")
	s.switches("apply")
	s.runs(s.roots["1"], "1")

	const conf = "/etc/updatectl/conf.d/30-state.toml"
	persist := func(dir string) {
		t.Helper()
		text := "[state]\npersist = [\"/var\", \"/home\", \"/root\", \"/srv\", \"/hostdata\", \"" + dir + "\"]\n"
		if err := h.WriteFile(conf, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.publish("2", "os/server:stable")
	persist("/etc/letsencrypt")
	for _, command := range []string{"config check", "plan", "apply"} {
		r := s.updatectl(exitUsage, strings.Fields(command)...)
		if !strings.Contains(r.Stderr, conf+":2: [state] persist: /etc/letsencrypt cannot belong to the host") {
			t.Errorf("updatectl %s: %s", command, r.Stderr)
		}
	}
	persist("/newdata")
	// As chattr(1), which the images lack.
	const protect = `import fcntl, os, sys
f = os.open("/etc/lab/constant.conf", os.O_RDONLY)
get, put, immutable = 0x80086601, 0x40086602, 0x10
flags = int.from_bytes(fcntl.ioctl(f, get, bytes(8)), sys.byteorder)
if "set" in sys.argv:
	fcntl.ioctl(f, put, (flags | immutable).to_bytes(8, sys.byteorder))
print(flags & immutable)`
	h.Must(t, "python3", "-c", protect, "set")
	s.updatectl(exitAvailable, "stage")
	if text := s.updatectl(exitAvailable, "plan").Stdout; !strings.Contains(text, "/newdata") ||
		!strings.Contains(text, "is made in the host root") {
		t.Errorf("plan does not name what is made:\n%s", text)
	}

	kept := func() {
		t.Helper()
		if got := h.Must(t, "sh", "-c", "cat /hostdata/* /newdata/* 2>&1"); got != "of-the-host\nof-2\nof-2" {
			t.Errorf("the state is %q", got)
		}
	}
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	h.Must(t, "sh", "-ec", "echo of-2 > /hostdata/more; echo of-2 > /newdata/file")
	kept()
	if flags := h.Must(t, "python3", "-c", protect); flags != "16" {
		t.Errorf("the protection of a file is lost: %s", flags)
	}
	for _, version := range []string{"1", "host"} {
		s.switches("rollback")
		s.settled()
		kept()
		if v := s.status(); v.Booted.Root != s.roots[version] && v.Booted.Root != version {
			t.Errorf("%s is booted, want %s", v.Booted.Root, version)
		}
	}
	s.updatectl(exitDone, "gc") // a protected file in a root does not keep it
}
