package schedule

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// minutes returns times by minutes after noon.
func minutes(list ...int) []time.Time {
	var times []time.Time
	for _, m := range list {
		times = append(times, noon.Add(time.Duration(m)*time.Minute))
	}
	return times
}

func TestState(t *testing.T) {
	for name, c := range map[string]struct {
		starts []time.Time
		at     int
		open   bool
		until  []time.Time
		next   []time.Time
	}{
		"none":                {nil, 0, false, nil, nil},
		"before":              {minutes(60), 59, false, nil, minutes(60)},
		"at its start":        {minutes(60), 60, true, minutes(90), nil},
		"at its end":          {minutes(60), 90, false, nil, nil},
		"between two":         {minutes(60, 200), 100, false, nil, minutes(200)},
		"in the first":        {minutes(60, 200), 61, true, minutes(90), minutes(200)},
		"they overlap":        {minutes(60, 80, 100, 200), 61, true, minutes(130), minutes(200)},
		"they touch":          {minutes(60, 90), 61, true, minutes(120), nil},
		"a minute is between": {minutes(60, 91), 61, true, minutes(90), minutes(91)},
		"in any order":        {minutes(200, 80, 60), 85, true, minutes(110), minutes(200)},
		"twice":               {minutes(60, 60), 61, true, minutes(90), nil},
	} {
		t.Run(name, func(t *testing.T) {
			open, until, next := State(c.starts, 30*time.Minute, minutes(c.at)[0])
			is := func(got time.Time, want []time.Time) bool {
				return got.IsZero() && want == nil || want != nil && got.Equal(want[0])
			}
			if open != c.open || !is(until, c.until) || !is(next, c.next) {
				t.Errorf("open is %v until %v, next %v; want %v until %v, next %v", open, until, next, c.open, c.until, c.next)
			}
		})
	}
}

// TestStateOfAnyWindows: a window is open at a minute if and only if it started less than its length before; until is
// the first minute after that is not covered, and next the first later start that the window does not reach.
func TestStateOfAnyWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.IntRange(0, 300), 0, 12).Draw(t, "starts")
		length := rapid.IntRange(1, 90).Draw(t, "length")
		at := rapid.IntRange(0, 320).Draw(t, "at")
		isCovered := func(minute int) bool {
			for _, start := range list {
				if start <= minute && minute < start+length {
					return true
				}
			}
			return false
		}
		end := at
		for isCovered(end) {
			end++
		}
		var until, next time.Time
		if isCovered(at) {
			until = minutes(end)[0]
		}
		for m := end + 1; m <= 300 && next.IsZero(); m++ {
			if isCovered(m) {
				next = minutes(m)[0]
			}
		}
		gotOpen, gotUntil, gotNext := State(minutes(list...), time.Duration(length)*time.Minute, minutes(at)[0])
		if gotOpen != isCovered(at) || !gotUntil.Equal(until) || !gotNext.Equal(next) {
			t.Fatalf("open is %v until %v, next %v; want %v until %v, next %v", gotOpen, gotUntil, gotNext, isCovered(at),
				until, next)
		}
	})
}

// TestCalendar: expressions make one window together; without any, it is always open.
func TestCalendar(t *testing.T) {
	c := Calendar{Starts: []string{"13:00", "13:30", "Tue 15:00"}, Zone: "UTC", Length: 45 * time.Minute}
	w, err := c.At(t.Context(), Systemd, noon.Add(65*time.Minute))
	want := Window{Open: true, Until: noon.Add(135 * time.Minute), Next: noon.Add(25 * time.Hour)}
	if err != nil || !w.Open || !w.Until.Equal(want.Until) || !w.Next.Equal(want.Next) {
		t.Errorf("the window is %+v, %v; want %+v", w, err, want)
	}
	w, err = Calendar{Starts: []string{"2020-01-01"}, Zone: "UTC", Length: time.Hour}.At(t.Context(), Systemd, noon)
	if err != nil || w != (Window{}) {
		t.Errorf("a window that never opens is %+v, %v", w, err)
	}
	c = Calendar{Starts: []string{"13:00"}, Zone: "UTC", Length: 2 * time.Hour, Spread: 0.5}
	if w, err = c.At(t.Context(), Systemd, noon); err != nil || !w.Next.Equal(noon.Add(90*time.Minute)) {
		t.Errorf("a host that begins in the middle of the first half opens at %v, %v", w.Next, err)
	}
	w, err = c.At(t.Context(), Systemd, noon.Add(100*time.Minute))
	if err != nil || !w.Open || !w.Until.Equal(noon.Add(3*time.Hour)) {
		t.Errorf("it is open %v until %v, %v", w.Open, w.Until, err)
	}
	if w, err = (Calendar{}).At(t.Context(), Systemd, noon); err != nil || w != Always {
		t.Errorf("without expressions, the window is %+v, %v", w, err)
	}
	// More starts than are looked at: it is open, until the last of those closes at the earliest.
	w, err = Calendar{Starts: []string{"minutely"}, Zone: "UTC", Length: time.Hour}.At(t.Context(), Systemd, noon)
	if err != nil || !w.Open || !w.Until.After(noon) {
		t.Errorf("a window that opens every minute is %+v, %v", w, err)
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		calendar Calendar
		want     string
	}{
		"empty":  {Calendar{}, ""},
		"fine":   {Calendar{Starts: []string{"Sat 02:30", "daily"}, Zone: "Europe/Berlin", Length: MinLength}, ""},
		"a week": {Calendar{Starts: []string{"daily"}, Zone: "", Length: MaxLength}, ""},
		"second": {Calendar{Starts: []string{"daily", "sometimes"}, Length: time.Hour},
			`"sometimes": systemd does not`},
		"zone":      {Calendar{Starts: []string{"daily"}, Zone: "Berlin", Length: time.Hour}, `the time zone "Berlin"`},
		"too short": {Calendar{Starts: []string{"daily"}, Zone: "", Length: time.Second}, "not between 30m0s and 168h0m0s"},
		"no length": {Calendar{Starts: []string{"daily"}, Zone: "", Length: 0}, "a window of 0s is not"},
		"too long":  {Calendar{Starts: []string{"daily"}, Zone: "", Length: MaxLength + 1}, "is not between"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.calendar.Check(t.Context(), Systemd)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
		})
	}
	if _, err := (Calendar{Starts: []string{"never"}}).At(t.Context(), Systemd, noon); err == nil {
		t.Error("a wrong expression has a window")
	}
}

// TestHour: the hour of a host begins once in sixty minutes, at its own part of the hour.
func TestHour(t *testing.T) {
	at := func(h, m, s int) time.Time { return time.Date(2027, 3, 4, h, m, s, 0, time.UTC) }
	for _, test := range []struct {
		now  time.Time
		part float64
		want time.Time
	}{
		{at(3, 30, 0), 0, at(3, 0, 0)},
		{at(3, 0, 0), 0, at(3, 0, 0)},
		{at(3, 30, 0), 0.25, at(3, 15, 0)},
		{at(3, 10, 0), 0.25, at(2, 15, 0)},
		{at(3, 15, 0), 0.25, at(3, 15, 0)},
		{at(0, 10, 0), 0.75, at(0, 0, 0).Add(-15 * time.Minute)},
	} {
		if got := Hour(test.now, test.part); !got.Equal(test.want) {
			t.Errorf("at %v, the hour of part %v began at %v, want %v", test.now, test.part, got, test.want)
		}
	}
}
