package unattended

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/attempt"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/schedule"
)

// world is what surrounds a runner: a clock that moves when it sleeps, people, and a lock.
type world struct {
	now    time.Time
	users  []string
	lock   string
	told   []time.Time
	off    []string // why a switch was called off
	slept  time.Duration
	during func() // runs at each sleep
}

// newRunner returns a runner on an empty directory, at 03:30 UTC in a window from 3 to 5.
func newRunner(t *testing.T) (*Runner, *world) {
	t.Helper()
	w := &world{now: time.Date(2027, 3, 4, 3, 30, 0, 0, time.UTC)}
	m := machine.Host(t.TempDir(), record.StateDir)
	if err := os.MkdirAll(m.Path(record.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	m.Now = func() time.Time { return w.now }
	a := agent.On(m, config.Default(), zap.NewNop())
	a.Config.Schedule.TimeZone = "UTC"
	return &Runner{Agent: a, Word: word, Surroundings: Surroundings{
		Analyze:    nightly,
		Designated: func(context.Context) string { return "" },
		Users:      func(context.Context) []string { return w.users },
		Tell:       func(_ context.Context, at time.Time) { w.told = append(w.told, at.UTC()) },
		CallOff:    func(_ context.Context, why string) { w.off = append(w.off, why) },
		Inhibitors: func(context.Context) string { return w.lock },
		Metered:    func(context.Context) bool { return false },
		OnBattery:  func() bool { return false },
		Sleep: func(_ context.Context, d time.Duration) error {
			w.now, w.slept = w.now.Add(d), w.slept+d
			if w.during != nil {
				w.during()
			}
			return nil
		},
	}}, w
}

// nightly answers as systemd does for 03:00 of these nights; to ask it each time takes long.
func nightly(context.Context, ...string) ([]byte, error) {
	return []byte("Next elapse: Thu 2027-03-04 03:00:00 UTC\nIter. #2: Fri 2027-03-05 03:00:00 UTC\n"), nil
}

// word is the part of what the command does that these tests need.
func word(err error) string { return cmp.Or(Blocked(err), "error") }

var switching = schedule.Facts{Step: schedule.Switch}

// TestPeopleAreWarnedOnce: they hear the time of the switch, once, and it is kept.
func TestPeopleAreWarnedOnce(t *testing.T) {
	r, w := newRunner(t)
	w.users = []string{"ada"}
	start := w.now
	if _, err := r.waitForPeople(t.Context(), switching); err != nil {
		t.Fatal(err)
	}
	if len(w.told) != 1 || !w.told[0].Equal(start.Add(5*time.Minute)) || w.slept != 5*time.Minute {
		t.Errorf("told %v after %v, want 5 minutes after %v, once", w.told, w.slept, start)
	}
	if last := attempt.Last(r.Host); last == nil || last.Reason != "people" || !strings.Contains(last.Text, "ada") {
		t.Errorf("status would show %+v", last)
	}
}

func TestNobodyIsWaitedFor(t *testing.T) {
	r, w := newRunner(t)
	told, err := r.waitForPeople(t.Context(), switching)
	if err != nil || w.slept != 0 || len(w.told) != 0 || told {
		t.Errorf("%v; slept %v, told %v, %v", err, w.slept, w.told, told)
	}
}

// TestInhibitorEnds: the switch follows when the lock is released, and people are warned only then.
func TestInhibitorEnds(t *testing.T) {
	r, w := newRunner(t)
	w.users, w.lock = []string{"ada"}, "backup (process 7): it runs"
	w.during = func() {
		if w.slept >= 10*time.Minute {
			w.lock = ""
		} else if len(w.told) > 0 {
			t.Error("people are warned of a switch that the lock delays")
		}
	}
	if _, err := r.waitForPeople(t.Context(), switching); err != nil || w.slept != 15*time.Minute || len(w.told) != 1 {
		t.Errorf("%v; slept %v, told %v", err, w.slept, w.told)
	}
}

func TestInhibitorHoldsTooLong(t *testing.T) {
	r, w := newRunner(t)
	w.lock = "backup (process 7): it runs"
	_, err := r.waitForPeople(t.Context(), switching)
	if !errors.Is(err, ErrNotNow) || Blocked(err) != "inhibitor" || !strings.Contains(err.Error(), "backup (process 7)") {
		t.Errorf("the error is %v", err)
	}
	if w.slept != 30*time.Minute {
		t.Errorf("waited for %v", w.slept)
	}
}

// TestPauseWhileWaiting: an operator who hears the warning can still say no.
func TestPauseWhileWaiting(t *testing.T) {
	r, w := newRunner(t)
	w.users = []string{"ada"}
	w.during = func() {
		if _, err := pause.Set(r.Host, pause.Pause{Reason: "demo"}); err != nil {
			t.Error(err)
		}
	}
	told, err := r.waitForPeople(t.Context(), switching)
	if Blocked(err) != "paused" || !strings.Contains(err.Error(), "demo") || !told {
		t.Errorf("the error is %v, told %v", err, told)
	}
}

// TestCalledOff: people who were told of a switch are told why it does not happen. Without an announcement, there is no
// such message.
func TestCalledOff(t *testing.T) {
	ada := []string{"ada"}
	for name, c := range map[string]struct {
		users  []string
		paused bool // after people were told
		done   agent.Applied
		err    error
		want   string
	}{
		"it switches":         {users: ada, done: agent.Applied{Switching: true}},
		"a hook":              {users: ada, err: errors.New("the hook drain says no"), want: "the hook drain says no"},
		"it is given up":      {users: ada, done: agent.Applied{Skipped: "it was given up"}, want: "it was given up"},
		"a pause":             {users: ada, paused: true, err: ErrNotNow, want: "not now: updates are paused"},
		"nobody was told":     {err: errors.New("the hook drain says no")},
		"the host shuts down": {users: ada, err: context.Canceled},
	} {
		r, w := newRunner(t)
		w.users = c.users
		w.during = func() {
			if !c.paused {
				return
			}
			if _, err := pause.Set(r.Host, pause.Pause{Reason: "demo"}); err != nil {
				t.Error(err)
			}
		}
		ctx, end := context.WithCancel(t.Context())
		done, err := r.afterPeople(ctx, switching, agent.Applied{}, func() (agent.Applied, error) {
			if errors.Is(c.err, context.Canceled) {
				end()
			}
			return c.done, c.err
		})
		end()
		if off := strings.Join(w.off, "\n"); !strings.Contains(off, c.want) || (off == "") != (c.want == "") {
			t.Errorf("%s: people are told %q, want %q", name, off, c.want)
		}
		if done.Switching != c.done.Switching || !errors.Is(err, c.err) || c.paused && Blocked(err) != "paused" {
			t.Errorf("%s: the run ends with %+v, %v", name, done, err)
		}
	}
}

// TestWindowCloses: who does not leave in time is not surprised after the window.
func TestWindowCloses(t *testing.T) {
	r, w := newRunner(t)
	w.users, w.now = []string{"ada"}, time.Date(2027, 3, 4, 4, 57, 0, 0, time.UTC)
	if _, err := r.waitForPeople(t.Context(), switching); Blocked(err) != "people" || len(w.told) != 0 {
		t.Errorf("the error is %v, told %v", err, w.told)
	}
}

func TestFetchKeepsToItsWindow(t *testing.T) {
	r, _ := newRunner(t)
	r.Analyze = schedule.Systemd
	r.Config.Schedule.Fetch = []string{"20:00"}
	_, err := r.Fetch(t.Context(), agent.ApplyOptions{})
	if !errors.Is(err, ErrNotNow) || Blocked(err) != "window" {
		t.Errorf("Fetch: %v", err)
	}
	last := attempt.Last(r.Host)
	if last == nil || last.Reason != "window" || !last.Until.Equal(time.Date(2027, 3, 4, 20, 0, 0, 0, time.UTC)) ||
		!last.Checked.IsZero() {
		t.Errorf("status would show %+v", last)
	}
}

// TestWaiting: a run that waits logs that, with the reason in one word; one that fails does not.
func TestWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*Runner, *world)
		want    []string
	}{
		"a window": {func(_ *Runner, w *world) { w.now = w.now.Add(12 * time.Hour) }, []string{"waiting window"}},
		"a pause": {func(r *Runner, _ *world) {
			if _, err := pause.Set(r.Host, pause.Pause{Reason: "demo"}); err != nil {
				t.Error(err)
			}
		}, []string{"waiting paused"}},
		"a battery":   {func(r *Runner, _ *world) { r.OnBattery = func() bool { return true } }, []string{"waiting battery"}},
		"a failure":   {func(r *Runner, _ *world) { r.Analyze = failing }, nil},
		"no registry": {func(*Runner, *world) {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := newRunner(t)
			log, events := eventtest.Log(t)
			r.Agent = agent.On(r.Machine, r.Config, log)
			c.prepare(r, w)
			for range 2 { // each run says so
				if _, err := r.Apply(t.Context(), agent.ApplyOptions{}); err == nil {
					t.Error("the run goes on")
				}
				if got := events(); !slices.Equal(got, c.want) {
					t.Errorf("the events are %q, want %q", got, c.want)
				}
			}
		})
	}
}

// failing does not answer.
func failing(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such command") }

// TestSourceIsAskedOnceAnHour: the timer looks more often.
func TestSourceIsAskedOnceAnHour(t *testing.T) {
	r, w := newRunner(t)
	checked := w.now
	attempt.Keep(r.Host, attempt.Attempt{Checked: checked})
	hour := schedule.Hour(checked, r.part("fetch")).Add(time.Hour) // begins next
	w.now = hour.Add(-time.Second)
	// Between two looks, a closed window is what the run to switch reports.
	attempt.Keep(r.Host, attempt.Attempt{Reason: "window", Text: "closed"})
	if done, err := r.Fetch(t.Context(), agent.ApplyOptions{}); err != nil || done.Skipped == "" {
		t.Errorf("in the same hour: %+v, %v", done, err)
	}
	w.now = hour
	if _, err := r.Fetch(t.Context(), agent.ApplyOptions{}); err == nil { // there is no source here
		t.Error("in the next hour, the source is not asked")
	}
	if last := attempt.Last(r.Host); last.Reason != "error" || !last.Checked.Equal(checked) {
		t.Errorf("a run that did not get an answer left %+v", last)
	}
	attempt.Keep(r.Host, attempt.Attempt{Checked: w.now})
	w.now = w.now.Add(-2 * time.Hour)
	if _, recent := r.recentlyChecked(); recent {
		t.Error("when the clock was set back, the source is not asked")
	}
}

// TestOutageOfTheSource: after an outage the hosts ask when their timers look next, and then in their own hours again:
// an outage does not leave them all in the same quarter of an hour.
func TestOutageOfTheSource(t *testing.T) {
	const look, hosts = 15 * time.Minute, 200
	asked := map[time.Duration]int{} // by the quarter of an hour since the outage
	for i := range hosts {
		r, w := newRunner(t)
		if err := os.MkdirAll(r.Path("/etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.Path("/etc/machine-id"), fmt.Appendf(nil, "%032x\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
		attempt.Keep(r.Host, attempt.Attempt{Checked: w.now.Add(-3 * time.Hour)})
		end := w.now
		for since := time.Duration(0); since < 5*time.Hour; since += look {
			if w.now = end.Add(since); !recent(r) {
				asked[since]++
				attempt.Keep(r.Host, attempt.Attempt{Checked: w.now})
			}
		}
	}
	for since, n := range asked {
		switch {
		case since == 0 && n != hosts:
			t.Errorf("%d of %d hosts ask when the outage is over", n, hosts)
		case since > 0 && (n < hosts/8 || n > hosts/2):
			t.Errorf("%v after the outage, %d of %d hosts ask in the same quarter of an hour", since, n, hosts)
		}
	}
	if len(asked) != 20 {
		t.Errorf("the hosts ask in %d of 20 quarters of an hour", len(asked))
	}
}

func recent(r *Runner) bool {
	_, is := r.recentlyChecked()
	return is
}

func TestMaintenanceTimeOfLogind(t *testing.T) {
	r, _ := newRunner(t)
	r.Designated = func(context.Context) string { return "Sun 04:00" }
	if c := r.Calendar(t.Context(), schedule.Switch); len(c.Starts) != 1 || c.Starts[0] != "Sun 04:00" {
		t.Errorf("the windows are %v", c.Starts)
	}
	if c := r.Calendar(t.Context(), schedule.Fetch); len(c.Starts) != 0 {
		t.Errorf("the windows to fetch are %v", c.Starts)
	}
}

func TestCheckWindows(t *testing.T) {
	r, _ := newRunner(t)
	r.Analyze = schedule.Systemd
	if err := r.CheckWindows(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Config.Schedule.Switch = []string{"Sat 25:00"}
	err := r.CheckWindows(t.Context())
	if !errors.Is(err, config.ErrConfig) || !strings.Contains(err.Error(), `[schedule] switch: "Sat 25:00"`) {
		t.Errorf("CheckWindows: %v", err)
	}
}
