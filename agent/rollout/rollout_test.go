package rollout

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/updatectl/updatectl/image/release"
)

var start = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func machine(i int) string { return fmt.Sprintf("%032x", i) }

// TestSlotIsFixed: a host that is updated keeps its place in the order, so these values never change.
func TestSlotIsFixed(t *testing.T) {
	for _, c := range []struct {
		id, version, group string
		want               float64
	}{
		{"0123456789abcdef0123456789abcdef", "2026.11.1", "", 0.87553450745864592},
		{"0123456789abcdef0123456789abcdef", "2026.11.1", "web", 0.74309915041269148},
		{"0123456789abcdef0123456789abcdef", "2026.11.2", "web", 0.55680679354491613},
	} {
		if got := Slot(c.id, c.version, c.group); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("the slot of %+v is %.17g", c, got)
		}
	}
	if Slot(machine(1), "1", "23") == Slot(machine(1), "12", "3") {
		t.Error("a version and a group are told apart by their length only")
	}
}

// chiSquare returns the chi-square statistic of counts that should be equal.
func chiSquare(counts []int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	expected, sum := float64(total)/float64(len(counts)), 0.0
	for _, n := range counts {
		sum += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	return sum
}

// TestSlotsAreUniform: 100 000 hosts, whose IDs only count up, spread evenly. Of the statistic for 100 cells, which has
// 99 degrees of freedom, one in a thousand is above 148.2 and one in a thousand below 61.1.
func TestSlotsAreUniform(t *testing.T) {
	for _, version := range []string{"2026.11.1", "2026.11.2"} {
		counts := make([]int, 100)
		for i := range 100_000 {
			counts[int(Slot(machine(i), version, "web")*100)]++
		}
		if x := chiSquare(counts); x > 148.2 || x < 61.1 {
			t.Errorf("%s: chi-square is %.1f, want 61.1 to 148.2", version, x)
		}
	}
}

// TestOrdersAreIndependent: whoever is early with one release, or would be in another group, is not for that reason
// early with the next. The pairs of slots fill a square evenly.
func TestOrdersAreIndependent(t *testing.T) {
	for name, other := range map[string]func(id string) float64{
		"release": func(id string) float64 { return Slot(id, "2026.11.2", "web") },
		"group":   func(id string) float64 { return Slot(id, "2026.11.1", "database") },
	} {
		counts := make([]int, 100)
		for i := range 100_000 {
			id := machine(i)
			counts[int(Slot(id, "2026.11.1", "web")*10)*10+int(other(id)*10)]++
		}
		if x := chiSquare(counts); x > 148.2 || x < 61.1 {
			t.Errorf("another %s: chi-square is %.1f, want 61.1 to 148.2", name, x)
		}
	}
}

// drawn returns a rollout with or without steps.
func drawn(t *rapid.T) release.Rollout {
	r := release.Rollout{Start: start, Duration: time.Duration(rapid.Int64Range(0, 90*24).Draw(t, "hours")) * time.Hour}
	for share := 0; share < 100 && len(r.Steps) < 31; {
		if len(r.Steps) == 0 && rapid.Bool().Draw(t, "no steps") {
			return r
		}
		share = rapid.IntRange(share+1, 100).Draw(t, "step")
		r.Steps = append(r.Steps, share)
	}
	if r.Steps[len(r.Steps)-1] != 100 {
		r.Steps = append(r.Steps, 100)
	}
	return r
}

// TestDueIsInOrder: a later position is never due earlier, nobody before the start, and nobody after the end.
func TestDueIsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawn(t)
		a, b := rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
		if a > b {
			a, b = b, a
		}
		first, second := Due(r, a), Due(r, b)
		if first.Before(r.Start) || second.After(r.Start.Add(r.Duration)) || second.Before(first) {
			t.Fatalf("position %g is due at %s, %g at %s", a, first, b, second)
		}
	})
}

// TestDueFollowsTheSteps: when a step ends, those below its share have had their turn, and no other; in the middle of
// it, half of the step's own share.
func TestDueFollowsTheSteps(t *testing.T) {
	const near = 1e-9
	rapid.Check(t, func(t *rapid.T) {
		r := drawn(t)
		r.Duration += time.Hour
		steps := r.Steps
		if len(steps) == 0 {
			steps = []int{100}
		}
		before := 0
		for i, share := range steps {
			end := r.Start.Add(time.Duration(float64(r.Duration) * float64(i+1) / float64(len(steps))))
			middle := r.Start.Add(time.Duration(float64(r.Duration) * (float64(i) + 0.5) / float64(len(steps))))
			for at, edge := range map[time.Time]float64{end: float64(share) / 100, middle: float64(before+share) / 200} {
				const slack = time.Millisecond // of floating point
				if Due(r, edge-near).After(at.Add(slack)) || edge+near < 1 && Due(r, edge+near).Before(at.Add(-slack)) {
					t.Fatalf("around %g of %v, it is due at %s and %s, not at %s", edge, steps, Due(r, edge-near),
						Due(r, edge+near), at)
				}
			}
			before = share
		}
	})
}

func TestPosition(t *testing.T) {
	first, last := 0.0, 1.0
	r := release.Rollout{Start: start, Duration: 72 * time.Hour, Steps: []int{1, 10, 100}}
	for name, c := range map[string]struct {
		wariness *float64
		want     time.Time
	}{
		"first": {&first, r.Start},
		"last":  {&last, r.Start.Add(r.Duration)},
		"slot":  {nil, Due(r, Slot(machine(7), "1", "web"))},
	} {
		if got := Due(r, Position(c.wariness, machine(7), "1", "web")); !got.Equal(c.want) {
			t.Errorf("%s is due at %s, want %s", name, got, c.want)
		}
	}
}

func TestDecide(t *testing.T) {
	with := func(paused, stopped string) *release.Rollout {
		return &release.Rollout{Start: start, Duration: 10 * time.Hour, Paused: paused, Stopped: stopped}
	}
	for name, c := range map[string]struct {
		rollout *release.Rollout
		after   time.Duration
		going   bool
		text    string
	}{
		"no rollout": {nil, 0, true, ""},
		"before the turn": {with("", ""), 5*time.Hour - 1, false,
			"the turn of this host in the rollout is at 2026-11-22T08:00:00Z"},
		"at the turn":           {with("", ""), 5 * time.Hour, true, ""},
		"long after":            {with("", ""), 5000 * time.Hour, true, ""},
		"paused":                {with("errors in mail", ""), 9 * time.Hour, false, "the rollout is paused: errors in mail"},
		"paused, not its turn":  {with("errors in mail", ""), 0, false, "the rollout is paused: errors in mail"},
		"stopped":               {with("", "eats files"), 9 * time.Hour, false, "the release is stopped: eats files"},
		"stopped for the first": {with("", "eats files"), 0, false, "the release is stopped: eats files"},
	} {
		t.Run(name, func(t *testing.T) {
			v := Decide(c.rollout, 0.5, start.Add(c.after))
			if v.Go != c.going || v.Text() != c.text || (c.rollout == nil) != v.Due.IsZero() {
				t.Errorf("the verdict is %+v, %q; want %v, %q", v, v.Text(), c.going, c.text)
			}
		})
	}
	zero := &release.Rollout{Start: start}
	if v := Decide(zero, 1, start); !v.Go {
		t.Errorf("a rollout without duration does not let the last host in: %s", v.Text())
	}
	if v := Decide(zero, 0, start.Add(-1)); v.Go || !strings.Contains(v.Text(), "03:00:00Z") {
		t.Errorf("a rollout that has not started lets a host in: %+v", v)
	}
}
