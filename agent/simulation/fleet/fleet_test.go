package fleet

import (
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/image/release"
)

var (
	hosts   = flag.Int("hosts", 5000, "how many hosts are simulated")
	drawing = flag.String("svg", "", "file to draw the result in")
)

// backoff is that of the client of the lock server: anywhere below a bound that doubles from 2 seconds to 5 minutes.
func backoff(try int, random float64) time.Duration {
	bound := min(5*time.Minute, 2*time.Second<<min(try, 8))
	return time.Second + time.Duration(random*float64(bound-time.Second))
}

const (
	day  = 24 * time.Hour
	lead = 18 * time.Hour   // from the publication to the start of the rollout
	week = 7 * day          // how long the rollout takes
	look = 15 * time.Minute // OnCalendar= and RandomizedDelaySec= of updatectl.timer
)

var published = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// always is a fleet that may switch at any time: a rollout of a week, the shipped timer, groups of 100 hosts of which
// two may be away at once, for three minutes each.
func always(n int) Fleet {
	return Fleet{
		Hosts: n, Seed: 1, Published: published, End: 11 * day,
		Rollout:  release.Rollout{Start: published.Add(lead), Duration: week, Steps: []int{1, 10, 50, 100}},
		Interval: look, Jitter: look, Group: 100, Slots: 2, Away: 3 * time.Minute,
		Patience: time.Minute, Backoff: backoff,
	}
}

// nights is the same fleet with a window of two hours each night.
func nights(n int) Fleet {
	f := always(n)
	for d := range 12 {
		f.Starts = append(f.Starts, published.Truncate(day).AddDate(0, 0, d).Add(2*time.Hour))
	}
	f.Length = 2 * time.Hour
	return f
}

// outage is the first fleet with a registry that is away for two hours when most hosts begin.
func outage(n int) Fleet {
	f := always(n)
	f.OutageFrom, f.OutageTo = 150*time.Hour, 152*time.Hour
	return f
}

// curve returns the share of the fleet that may have begun at a time: straight lines through the steps.
func curve(f Fleet, at time.Duration) float64 {
	steps := f.Rollout.Steps
	x := float64(at-f.Rollout.Start.Sub(f.Published)) / float64(f.Rollout.Duration) * float64(len(steps))
	before := 0.0
	for i, share := range steps {
		if x < float64(i+1) {
			return (before + max(0, x-float64(i))*(float64(share)-before)) / 100
		}
		before = float64(share)
	}
	return 1
}

// share returns the share of the fleet that was updated at a time.
func share(f Fleet, r Result, at time.Duration) float64 {
	n, _ := slices.BinarySearch(r.Updated, at+1)
	return float64(n) / float64(f.Hosts)
}

// most returns the most requests in a second between two times, and the most on average of a minute.
func most(seconds []int, from, to time.Duration) (second int, minute float64) {
	list := seconds[from/time.Second : min(int(to/time.Second), len(seconds))]
	for chunk := range slices.Chunk(list, 60) {
		sum := 0
		for _, n := range chunk {
			sum += n
			second = max(second, n)
		}
		minute = max(minute, float64(sum)/float64(len(chunk)))
	}
	return second, minute
}

// bound is how many requests the registry has in any second. Timers of as many hosts run in one second as on average,
// and six standard deviations more in the worst. If the window to switch is always open, each run asks up to twice, and
// reads the new release once. Otherwise that is read in the hour after a publication, and asked twice in a window.
func bound(f Fleet) float64 {
	runs := func(every time.Duration) float64 {
		mean := float64(f.Hosts) / every.Seconds()
		return mean + 6*math.Sqrt(mean) + 6
	}
	if len(f.Starts) == 0 {
		return (2*Check + Read) * runs(f.Interval)
	}
	return max((Check+Read)*runs(time.Hour), 2*Check*runs(f.Interval))
}

// TestFleet: see the errors for what is promised.
func TestFleet(t *testing.T) {
	n := *hosts
	free, night, cut := always(n), nights(n), outage(n)
	a, b, c := Run(free), Run(night), Run(cut)
	for name, r := range map[string]Result{"always": a, "nights": b, "outage": c} {
		allowed := bound(map[string]Fleet{"always": free, "nights": night, "outage": cut}[name])
		if len(r.Updated) != n || r.Outside != 0 || r.MostAway > free.Slots {
			t.Errorf("%s: %d of %d hosts are updated, %d outside of a window, %d away at once", name, len(r.Updated), n,
				r.Outside, r.MostAway)
		}
		if second, _ := most(r.Registry, 0, free.End); float64(second) > allowed {
			t.Errorf("%s: the registry has %d requests in a second, more than %.0f", name, second, allowed)
		}
	}
	off := deviation(free, a)
	if most := tolerance(n); off > most {
		t.Errorf("the share updated is up to %.2f %% off the signed curve, more than %.2f %%", 100*off, 100*most)
	}
	healthy, healthyMinute := most(a.Registry, 0, free.End)
	after, afterMinute := most(c.Registry, cut.OutageTo, cut.OutageTo+6*time.Hour)
	if after > healthy || afterMinute > healthyMinute {
		t.Errorf("after an outage, the registry has %d requests in a second and %.1f/s in a minute, more than ever without "+
			"one: %d and %.1f/s", after, afterMinute, healthy, healthyMinute)
	}
	if longest := b.Waited[n-1]; longest > 3*day {
		t.Errorf("a host waits %v for the lock, more than three windows", longest)
	}
	text := table([]string{"always", "nights", "outage"}, []Fleet{free, night, cut}, []Result{a, b, c})
	t.Logf("%d hosts\n%s\nup to %.2f %% off the curve; bounds of the registry %.0f/s and %.0f/s\n", n, text, 100*off,
		bound(free), bound(night))
	if *drawing != "" {
		if err := os.WriteFile(*drawing, []byte(picture(free, a, night, b, cut, c)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// deviation returns how far the share updated is off the curve at most.
func deviation(f Fleet, r Result) float64 {
	worst := 0.0
	for at := time.Duration(0); at < f.End; at += time.Minute {
		worst = max(worst, math.Abs(share(f, r, at)-curve(f, at)))
	}
	return worst
}

// tolerance is one percent. A small fleet is a sample, which is off by more: one in a hundred by 1.63/√n.
func tolerance(n int) float64 {
	if n >= 100_000 {
		return 0.01
	}
	return 0.01 + 1.63/math.Sqrt(float64(n))
}

// TestItCanFail: what TestFleet promises does not hold for a fleet whose timers run together, nor for a lock with too
// little room.
func TestItCanFail(t *testing.T) {
	f := always(2000)
	f.Jitter = 0
	if second, _ := most(Run(f).Registry, 0, f.End); float64(second) < 4*bound(f) {
		t.Errorf("with timers that run together, the registry has only %d requests in a second", second)
	}
	f = nights(2000)
	f.Slots, f.Away = 1, 20*time.Minute
	if r := Run(f); len(r.Updated) > 1900 {
		t.Errorf("with room for six hosts of 100 a night, %d of 2000 are updated", len(r.Updated))
	}
	f = always(2000)
	f.Interval = 12 * time.Hour
	if off := deviation(f, Run(f)); off < tolerance(f.Hosts) {
		t.Errorf("with two checks a day, the share is off by %.3f only", off)
	}
}

// table returns what is asked of the servers as text.
func table(names []string, fleets []Fleet, results []Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %10s %10s %10s %10s %12s %12s %6s\n", "", "registry", "busiest", "lock", "busiest", "wait, 99 %",
		"wait, most", "tries")
	fmt.Fprintf(&b, "%-8s %10s %10s %10s %10s\n", "", "most/s", "minute/s", "most/s", "minute/s")
	for i, r := range results {
		second, minute := most(r.Registry, 0, fleets[i].End)
		lock, lockMinute := most(r.Lock, 0, fleets[i].End)
		w := append(r.Waited, 0)[:max(len(r.Waited), 1)]
		fmt.Fprintf(&b, "%-8s %10d %10.1f %10d %10.1f %12v %12v %6d\n", names[i], second, minute, lock, lockMinute,
			w[(len(w)-1)*99/100].Round(time.Second), w[len(w)-1].Round(time.Second), r.MostTries)
	}
	return b.String()
}
