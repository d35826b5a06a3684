package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/outage"
)

const ms = time.Millisecond

// measured is a switch of a server with a database that takes long to stop.
var measured = outage.Switch{
	At: time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC), Verb: "apply", Good: true, Version: "2026.03",
	From: "sha256-" + strings.Repeat("ab", 32), Root: "sha256-" + strings.Repeat("cd", 32),
	Steps: []outage.Step{{Name: "find", Took: 420 * ms}, {Name: "stage", Took: 8100 * ms},
		{Name: "prepare", Took: 610 * ms}},
	FirstGone: 120 * ms, LastGone: 430 * ms, Armed: 520 * ms, Arming: 80 * ms, Switched: 700 * ms, FirstBack: 950 * ms,
	LastBack: 1420 * ms, Judged: 4700 * ms,
	Ports: []outage.Away{{Name: "tcp:22", Unit: "ssh.service", Gone: 150 * ms, Back: 1210 * ms},
		{Name: "tcp:80", Unit: "nginx.service", Gone: 140 * ms, Back: 1380 * ms}, {Name: "tcp:111", Unit: "rpcbind.service"}},
	Services: []outage.Away{{Name: "nginx.service", Gone: 140 * ms, Back: 1360 * ms},
		{Name: "ssh.service", Gone: 120 * ms, Back: 1200 * ms},
		{Name: "postgresql@17-main.service", Gone: 430 * ms, Back: 1420 * ms},
		{Name: "old.service", Gone: 200 * ms}},
}

func TestAnalysis(t *testing.T) {
	other := measured
	other.At, other.Verb, other.Ports = other.At.Add(24*time.Hour), "rollback", nil
	lost := outage.Switch{At: other.At, Verb: "apply", Root: "host", From: "host", Judged: 5 * ms}
	many := measured
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		many.Services = append(many.Services, outage.Away{Name: name + ".service", Gone: 300 * ms, Back: 1400 * ms})
	}
	for name, list := range map[string][]outage.Switch{
		"analyze": {many}, "analyze-none": nil, "analyze-two": {measured, other}, "analyze-lost": {lost},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, func(w io.Writer) { Analysis(w, outage.Analyze(list, 9)) })
		})
	}
}

// TestDrawing: the picture is well-formed, and the one that somebody has looked at.
func TestDrawing(t *testing.T) {
	odd := measured
	odd.Services = []outage.Away{{Name: "<&>.service", Gone: ms}}
	for name, list := range map[string][]outage.Switch{"drawing": {measured}, "drawing-two": {odd, measured}, "": nil} {
		got := Drawing(outage.Analyze(list, 9))
		d := xml.NewDecoder(strings.NewReader(got))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, got)
			}
		}
		if name != "drawing" {
			continue
		}
		file := filepath.Join("testdata", name+".svg")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || string(want) != got {
			t.Errorf("%s is not what is drawn now (`go test -update` writes it): %v", file, err)
		}
	}
}

// TestOutageLines: what plan says beforehand, in short and in full.
func TestOutageLines(t *testing.T) {
	many := &outage.Prediction{From: 5, Outage: 1240 * ms, Ports: []outage.Expected{{Name: "tcp:22", Away: 1000 * ms},
		{Name: "tcp:80", Away: 1240 * ms}, {Name: "tcp:25", Away: 500 * ms}}}
	late := &outage.Prediction{From: 3, Outage: 3240 * ms, Delays: []outage.Delay{
		{Unit: "db.service", Times: 3, Alone: 2000 * ms},
		{Unit: "a.service", Times: 1, Alone: 300 * ms}}}
	const lateLines = "about 3.24 s by the last 3 switches\n  stop\twaited 2.00 s for db.service alone, 3 times\n" +
		"  stop\twaited 0.30 s for a.service alone, once"
	for name, c := range map[string]struct {
		p           *outage.Prediction
		short, full string
	}{
		"none": {
			nil, "not known yet: no switch of this host was measured", "not known yet: no switch of this host was measured",
		},
		"no port": {
			&outage.Prediction{From: 1, Outage: 1240 * ms}, "about 1.24 s by the last switch",
			"about 1.24 s by the last switch",
		},
		"delayed": {late, lateLines, lateLines},
		"many": {
			many, "about 1.24 s by the last 5 switches: tcp:80 1.24 s, 2 more ports",
			"about 1.24 s by the last 5 switches: tcp:80 1.24 s, tcp:22 1.00 s, tcp:25 0.50 s",
		},
	} {
		for full, want := range map[bool]string{false: c.short, true: c.full} {
			var out bytes.Buffer
			if outageLines(&out, c.p, full); out.String() != "Outage\t"+want+"\n" {
				t.Errorf("%s: it is %q, want %q", name, out.String(), want)
			}
		}
	}
}
