package outage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/durable"
)

const ms = time.Millisecond

func tcp(number, family int, unit string) listening.Port {
	return listening.Port{Protocol: "tcp", Number: number, Family: family, Unit: unit}
}

// TestWitness: a switch in which nginx and redis stop, and come back in another order; ssh goes away twice, and the
// time agent stays.
func TestWitness(t *testing.T) {
	web, web6, ssh := tcp(80, 4, "nginx.service"), tcp(80, 6, "nginx.service"), tcp(22, 6, "ssh.service")
	local := listening.Port{Protocol: "tcp", Number: 6379, Family: 4, Local: true, Unit: "redis.service"}
	closed := tcp(443, 4, "nginx.service")
	all := Look{Mount: 7, Ports: []listening.Port{web, web6, ssh, local},
		Services: []string{"nginx.service", "ssh.service", "redis.service", "time.service"}}
	start := time.Hour
	w := NewWitness(start, []listening.Port{web, web6, ssh, local, closed}, all)
	see := func(at time.Duration, mount int, ports []listening.Port, services ...string) {
		w.See(start+at, Look{Mount: mount, Ports: ports, Services: append(services, "time.service")})
	}
	w.See(start+50*ms, all)
	see(100*ms, 7, []listening.Port{web6, ssh, local}, "ssh.service", "redis.service") // tcp6 covers tcp
	see(200*ms, 7, []listening.Port{ssh}, "ssh.service")
	see(300*ms, 7, nil)
	see(500*ms, 8, nil)
	see(700*ms, 8, []listening.Port{ssh}, "ssh.service")
	see(800*ms, 0, nil, "nginx.service") // the mount could not be read; ssh was restarted
	see(900*ms, 8, []listening.Port{web6, ssh}, "nginx.service", "ssh.service")
	s := w.Tell(start+1500*ms, start+400*ms, 60*ms, Switch{})
	want := Switch{
		FirstGone: 100 * ms, LastGone: 300 * ms, FirstBack: 800 * ms, LastBack: 900 * ms, Armed: 400 * ms, Arming: 60 * ms,
		Switched: 500 * ms, Judged: 1500 * ms,
		Ports: []Away{{"tcp:80", "nginx.service", 200 * ms, 900 * ms}, {"tcp:22", "ssh.service", 300 * ms, 900 * ms}},
		Services: []Away{{"nginx.service", "", 100 * ms, 800 * ms}, {"ssh.service", "", 300 * ms, 900 * ms},
			{"redis.service", "", 200 * ms, 0}},
	}
	if fmt.Sprint(s) != fmt.Sprint(want) {
		t.Errorf("seen was\n%v, want\n%v", s, want)
	}
	if s.Outage() != 700*ms || s.Services[2].Took() != 0 {
		t.Errorf("the outage took %v, and redis, which never came back, %v", s.Outage(), s.Services[2].Took())
	}
	phases := "[{wait 0s 100ms } {stop 100ms 340ms ssh.service} {arm 340ms 400ms } {switch 400ms 500ms } " +
		"{execute 500ms 800ms } {start 800ms 900ms ssh.service} {health 900ms 1.5s }]"
	if got := fmt.Sprint(s.Phases()); got != phases {
		t.Errorf("the phases are\n%s, want\n%s", got, phases)
	}
}

// TestPhases: they follow each other without a gap, whatever was seen.
func TestPhases(t *testing.T) {
	for name, c := range map[string]struct {
		Switch
		want string
	}{
		"nothing":          {Switch{}, "[]"},
		"only the verdict": {Switch{Judged: ms}, "[{health 0s 1ms }]"},
		"no services": {
			Switch{Armed: 3 * ms, Arming: ms, Switched: 5 * ms},
			"[{stop 0s 2ms } {arm 2ms 3ms } {switch 3ms 5ms }]",
		},
		"the stop was seen late": {
			Switch{FirstGone: 3 * ms, LastGone: 3 * ms, Armed: 5 * ms, Arming: 3 * ms, Switched: 6 * ms},
			"[{wait 0s 2ms } {arm 2ms 5ms } {switch 5ms 6ms }]",
		},
		"it was never armed": {
			Switch{FirstGone: ms, LastGone: 2 * ms, FirstBack: 9 * ms},
			"[{wait 0s 1ms } {stop 1ms 2ms } {execute 2ms 9ms }]",
		},
	} {
		if got := fmt.Sprint(c.Phases()); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestObserve: the control group of a service is found in any slice, and not below a unit.
func TestObserve(t *testing.T) {
	dir := t.TempDir()
	for _, group := range []string{"system.slice/nginx.service", "system.slice/system-getty.slice/getty@tty1.service",
		"user.slice/user-0.slice/user@0.service/app.slice/own.service"} {
		if err := os.MkdirAll(filepath.Join(dir, group), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	look := observe(dir, []string{"nginx.service", "getty@tty1.service", "own.service", "gone.service"})
	if got := look().Services; !slices.Equal(got, []string{"nginx.service", "getty@tty1.service"}) {
		t.Errorf("these run: %v", got)
	}
	if err := os.Remove(filepath.Join(dir, "system.slice/nginx.service")); err != nil {
		t.Fatal(err)
	}
	l := look()
	if !slices.Equal(l.Services, []string{"getty@tty1.service"}) || l.Mount == 0 {
		t.Errorf("after it ended, these run: %v; / is mount %d", l.Services, l.Mount)
	}
}

// TestPredict: medians of the last good ones of the same verb.
func TestPredict(t *testing.T) {
	took := func(verb string, good bool, away time.Duration) Switch {
		return Switch{Verb: verb, Good: good, Ports: []Away{{"tcp:80", "nginx.service", ms, ms + away},
			{"tcp:22", "ssh.service", 2 * ms, 2*ms + away/2}, {Name: "tcp:25", Gone: ms}}}
	}
	if p := Predict([]Switch{took("apply", false, ms), {Verb: "apply", Good: true}}, "apply"); p != nil {
		t.Errorf("without a good switch that was measured, it predicts %+v", p)
	}
	if p := Predict([]Switch{took("resume", true, ms)}, "apply"); p != nil {
		t.Errorf("from a switch at a boot, it predicts %+v", p)
	}
	list := []Switch{took("apply", true, 999*ms)} // too long ago
	for _, away := range []time.Duration{100, 300, 200, 500, 400} {
		list = append(list, took("apply", true, away*ms), took("rollback", true, ms))
	}
	for verb, want := range map[string]string{
		"apply":    "{5 300ms [{tcp:80 nginx.service 300ms} {tcp:22 ssh.service 150ms}] []}",
		"rollback": "{5 1.5ms [{tcp:80 nginx.service 1ms} {tcp:22 ssh.service 500µs}] []}",
		"resume":   "{5 1.5ms [{tcp:80 nginx.service 1ms} {tcp:22 ssh.service 500µs}] []}", // the last five of all
	} {
		if got := Predict(list, verb); got == nil || fmt.Sprint(*got) != want {
			t.Errorf("%s: %v, want %s", verb, got, want)
		}
	}
}

// TestDelays: a service that ends well after all others delays the stop; one that ends with others does not.
func TestDelays(t *testing.T) {
	stop := func(ends map[string]time.Duration) Switch {
		s := Switch{Verb: "apply", Good: true, Ports: []Away{{"tcp:80", "", ms, 9 * ms}}}
		for name, gone := range ends {
			s.Services = append(s.Services, Away{Name: name, Gone: gone})
		}
		return s
	}
	list := []Switch{
		stop(map[string]time.Duration{"a": 100 * ms, "b": 2100 * ms, "stays": 0}),
		stop(map[string]time.Duration{"a": 3100 * ms, "b": 100 * ms}),
		stop(map[string]time.Duration{"a": 100 * ms, "b": 1100 * ms}),
		stop(map[string]time.Duration{"a": 1000 * ms, "b": 1199 * ms}),
		stop(map[string]time.Duration{"b": 9000 * ms, "stays": 0}),
	}
	if got := Predict(list, "apply").Delays; !slices.Equal(got, []Delay{{"a", 1, 3000 * ms}, {"b", 2, 1500 * ms}}) {
		t.Errorf("delays are %v", got)
	}
}

// TestKeep: the last switches are kept, and a file that is damaged costs no more than what it held.
func TestKeep(t *testing.T) {
	file, disk := filepath.Join(t.TempDir(), File), durable.OS{}
	if list, err := Read(disk, file); err != nil || len(list) > 0 {
		t.Errorf("without a file: %v, %v", list, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(disk, file); err == nil {
		t.Error("a damaged file was read")
	}
	for i := range maxKept + 3 {
		if err := Keep(disk, file, Switch{Judged: time.Duration(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := Read(disk, file)
	if err != nil || len(list) != maxKept || list[0].Judged != 4 || list[maxKept-1].Judged != maxKept+3 {
		t.Errorf("kept are %d switches, %v", len(list), err)
	}
	long := Switch{Services: make([]Away, 30_000)} // 2 MB each with their braces and names
	for i := range long.Services {
		long.Services[i].Name = "a-service-with-a-very-long-name-of-a-hundred-bytes-or-so.service"
	}
	for range 3 {
		if err := Keep(disk, file, long); err != nil {
			t.Fatal(err)
		}
	}
	if list, err = Read(disk, file); err != nil || len(list) == 0 || len(list) > 3 {
		t.Errorf("of long ones, %d are kept: %v", len(list), err)
	}
	if got := Analyze(list, 1); len(got) != 1 || len(Analyze(nil, 3)) != 0 {
		t.Errorf("analyzed are %d", len(got))
	}
}
