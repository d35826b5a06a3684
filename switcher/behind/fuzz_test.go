package behind

import (
	"path"
	"strings"
	"testing"
)

// FuzzUnit: what a unit file names are clean absolute paths and ports.
func FuzzUnit(f *testing.F) {
	for _, text := range []string{
		"[Service]\nExecStart=-@/usr/bin/java java -jar \"/srv/app.jar\" /srv/%i\nWorkingDirectory=-/srv/..//x\n",
		"ListenStream=[::1]:80\nListenDatagram=514\nListenStream=/run/x\nUnit=a.service\n",
		"ExecStart=\\\n /a\n=\nExecStart=\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		u := parseUnit(text)
		for _, p := range u.programs {
			if !path.IsAbs(p) || path.Clean(p) != p {
				t.Errorf("the program %q", p)
			}
		}
		for _, p := range u.ports {
			if _, port, ok := strings.Cut(p, ":"); !ok || port == "" || strings.Trim(port, "0123456789") != "" {
				t.Errorf("the port %q", p)
			}
		}
		if service := serviceOf(string(text)); service != "" && !strings.HasSuffix(service, ".service") {
			t.Errorf("the service %q", service)
		}
	})
}

// FuzzHostOnly: each line of a list that is accepted has a pattern and a reason.
func FuzzHostOnly(f *testing.F) {
	f.Add("a.service -> b.service c.service # why\n# a comment\n[ # bad\na b # two\nc\n")
	f.Fuzz(func(t *testing.T, text string) {
		units, _ := ParseHostOnly(text)
		for _, u := range units {
			if _, err := path.Match(u.Pattern, "x"); err != nil || u.Pattern == "" || u.Why == "" {
				t.Errorf("the line %+v", u)
			}
		}
	})
}
