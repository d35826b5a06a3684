package schedule

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// printed returns an Analyze that prints a text, or fails with it.
func printed(text string, failed bool) Analyze {
	return func(context.Context, ...string) ([]byte, error) {
		if failed {
			return nil, errors.New(text)
		}
		return []byte(text), nil
	}
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestTenYears: a window of an hour opens exactly once on each day of the calendar for ten years, in zones whose clocks
// change at that time, at others, or never. Go's time package says when: at the time on the clock, the first if it
// exists twice, and when the clock has been put forward if it does not exist. Then it is open for an hour of elapsed
// time.
func TestTenYears(t *testing.T) {
	for _, c := range []struct {
		zone, at         string
		skipped, doubled int
	}{
		{"Europe/Berlin", "02:30", 10, 10},
		{"America/New_York", "02:30", 10, 0},
		{"America/New_York", "01:30", 0, 10},
		{"Pacific/Auckland", "02:30", 10, 10},
		{"Australia/Lord_Howe", "02:15", 10, 0}, // half an hour
		{"Africa/Cairo", "00:30", 10, 0},        // the first hour of the day
		{"Asia/Kolkata", "02:30", 0, 0},
	} {
		t.Run(c.zone+" "+c.at, func(t *testing.T) {
			l := zone(t, c.zone)
			first, end := time.Date(2026, 1, 1, 12, 0, 0, 0, l), time.Date(2036, 1, 1, 12, 0, 0, 0, l)
			starts, err := Starts(t.Context(), Systemd, "*-*-* "+c.at, c.zone, first, 4000)
			n := slices.IndexFunc(starts, func(s time.Time) bool { return s.After(end) })
			if err != nil || n != 3652 {
				t.Fatalf("%d starts in ten years, %v; want one a day, 3652", n, err)
			}
			skipped, doubled := 0, 0
			for i, start := range starts[:n] {
				day := first.AddDate(0, 0, i+1)
				want := firstAt(day, c.at)
				switch local := start.In(l); {
				case !start.Equal(want) || local.Day() != day.Day():
					t.Errorf("on %s, it starts at %s, want %s", day.Format(time.DateOnly), local, want.In(l))
				case local.Format("15:04") != c.at:
					skipped++
				case start.Add(time.Hour).In(l).Format("15:04") == c.at:
					doubled++
				}
				checkOpen(t, starts[max(i-1, 0):i+2], start)
			}
			if skipped != c.skipped || doubled != c.doubled {
				t.Errorf("%s does not exist on %d days and exists twice on %d; want %d and %d", c.at, skipped, doubled,
					c.skipped, c.doubled)
			}
		})
	}
}

// firstAt returns the first minute of the local day of noon at which the clock shows a time or a later one. It goes
// minute by minute and knows nothing of offsets.
func firstAt(noon time.Time, clock string) time.Time {
	for t := noon.Add(-14 * time.Hour); ; t = t.Add(time.Minute) {
		if t.Day() == noon.Day() && t.Format("15:04") >= clock {
			return t
		}
	}
}

// checkOpen checks that a window of an hour opens at its start and closes an hour later, and not a minute off.
func checkOpen(t *testing.T, starts []time.Time, start time.Time) {
	t.Helper()
	for _, c := range []struct {
		after time.Duration
		open  bool
	}{{-time.Nanosecond, false}, {0, true}, {time.Hour - time.Nanosecond, true}, {time.Hour, false}} {
		now := start.Add(c.after)
		open, until, next := State(starts, time.Hour, now)
		if open != c.open || open && !until.Equal(start.Add(time.Hour)) || c.after < 0 && !next.Equal(start) {
			t.Errorf("%v after %s: open is %v until %s, next %s", c.after, start, open, until, next)
		}
	}
}

// TestSundays: a window that opens on Sundays only opens on those on which the clock changes, too.
func TestSundays(t *testing.T) {
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	starts, err := Starts(t.Context(), Systemd, "Sun 02:30", "Europe/Berlin", since, 52)
	if err != nil || len(starts) != 52 {
		t.Fatalf("%d starts, %v", len(starts), err)
	}
	for i, start := range starts {
		if day := since.AddDate(0, 0, 3+7*i); start.In(zone(t, "Europe/Berlin")).Format(time.DateOnly) !=
			day.Format(time.DateOnly) {
			t.Errorf("the start of week %d is %s, want the %s", i, start, day)
		}
	}
}

// TestWhileTheClockChanges: whenever one asks around a change of the clock, the next start is the first one after it.
func TestWhileTheClockChanges(t *testing.T) {
	for day, want := range map[string]int{"2026-03-29": 23 * 3, "2026-10-25": 24 * 3} {
		all, err := Starts(t.Context(), Systemd, day+" *:0/20", "Europe/Berlin", time.Unix(1767225600, 0), 100)
		if err != nil || len(all) != want {
			t.Fatalf("%d starts on %s, %v", len(all), day, err)
		}
		if !slices.IsSortedFunc(all, time.Time.Compare) {
			t.Errorf("the starts on %s are not in order", day)
		}
		for since := all[0].Add(-time.Minute); since.Before(all[12]); since = since.Add(7 * time.Minute) {
			i := slices.IndexFunc(all, func(start time.Time) bool { return start.After(since) })
			got, err := Starts(t.Context(), Systemd, day+" *:0/20", "Europe/Berlin", since, 1)
			if err != nil || len(got) != 1 || !got[0].Equal(all[i]) {
				t.Errorf("after %s, the next start is %v, %v; want %s", since, got, err, all[i])
			}
		}
	}
}

// TestZones: a zone in the expression counts before the configured one, and without both it is the host's.
func TestZones(t *testing.T) {
	was := time.Local
	t.Cleanup(func() { time.Local = was })
	time.Local = zone(t, "Asia/Kolkata")
	for _, c := range []struct{ expr, zone, want string }{
		{"*-*-* 02:30", "", "2026-11-30 21:00"},
		{"*-*-* 02:30", "Europe/Berlin", "2026-12-01 01:30"},
		{"*-*-* 02:30 America/New_York", "Europe/Berlin", "2026-12-01 07:30"},
		{"*-*-* 02:30 utc", "Europe/Berlin", "2026-12-01 02:30"},
		{"daily", "UTC", "2026-12-01 00:00"},
		{"Sat,Sun  03:00", "UTC", "2026-12-05 03:00"},
		{"*-*-* 02:30:07.5", "UTC", "2026-12-01 02:30"},
	} {
		got, err := Starts(t.Context(), Systemd, c.expr, c.zone, time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), 1)
		if err != nil || len(got) != 1 || got[0].UTC().Format("2006-01-02 15:04") != c.want {
			t.Errorf("%q in %q is due at %v, %v; want %s", c.expr, c.zone, got, err, c.want)
		}
	}
}

// TestWrong: the error names the expression and says what is wrong, in the words of systemd where it knows.
func TestWrong(t *testing.T) {
	for _, c := range []struct{ expr, zone, want string }{
		{"every night", "", `"every night": systemd does not take it as times of the calendar: ` +
			`Failed to parse calendar specification 'every night UTC': Invalid argument`},
		{"02:70", "Europe/Berlin", `'02:70 UTC': Invalid argument`},
		{"--help", "", `'--help UTC': Invalid argument`},
		{"", "", `"": it is empty`},
		{"UTC", "", `'UTC UTC': Invalid argument`},
		{"daily Europe/Atlantis", "", `"daily Europe/Atlantis": the time zone "Europe/Atlantis" is not in`},
		{"daily", "Middle Earth", `"daily": the time zone "Middle Earth" is not in`},
		{"daily", "../../etc/passwd", `the time zone "../../etc/passwd" is not in`},
		{"daily\nfoo", "", `"daily\nfoo": it has characters that no`},
		{strings.Repeat("1", 257), "", "longer than 256"},
	} {
		if err := Valid(t.Context(), Systemd, c.expr, c.zone); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in %q: the error is %v, want %q", c.expr, c.zone, err, c.want)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	end()
	if err := Valid(ctx, Systemd, "daily", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("the error of an interrupted check is %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := Valid(t.Context(), Systemd, "daily", ""); err == nil || !strings.Contains(err.Error(),
		"cannot run systemd-analyze") {
		t.Errorf("without systemd-analyze, the error is %v", err)
	}
}

// TestNever: an expression that is not due again is valid and has no starts.
func TestNever(t *testing.T) {
	for _, expr := range []string{"2020-01-01", "*-02-30"} {
		got, err := Starts(t.Context(), Systemd, expr, "UTC", time.Unix(1800000000, 0), 3)
		if err != nil || len(got) != 0 {
			t.Errorf("%q is due at %v, %v", expr, got, err)
		}
	}
	got, err := Starts(t.Context(), Systemd, "2030-01..02-01", "UTC", time.Unix(1800000000, 0), 3)
	if err != nil || len(got) != 2 {
		t.Errorf("an expression that is due twice is due at %v, %v", got, err)
	}
}

// TestFormats: what versions of systemd print, in UTC and elsewhere.
func TestFormats(t *testing.T) {
	want := []time.Time{time.Date(2026, 3, 28, 1, 30, 0, 0, time.UTC), time.Date(2026, 3, 30, 0, 30, 0, 0, time.UTC)}
	for name, text := range map[string]string{
		"252": "  Original form: *-*-* 02:30\nNormalized form: *-*-* 02:30:00\n    Next elapse: Sat 2026-03-28 01:30:00 " +
			"UTC\n       From now: 8 months ago\n       Iter. #2: Mon 2026-03-30 00:30:00 UTC\n       From now: 8 months ago\n",
		"252, elsewhere": "    Next elapse: Sat 2026-03-28 02:30:00 CET\n       (in UTC): Sat 2026-03-28 01:30:00 UTC\n" +
			"       From now: 8 months ago\n       Iter. #2: Mon 2026-03-30 02:30:00 CEST\n" +
			"       (in UTC): Mon 2026-03-30 00:30:00 UTC\n       From now: 8 months ago\n",
		"257": "  Original form: *-*-* 02:30 UTC\nNormalized form: *-*-* 02:30:00 UTC\n" +
			"    Next elapse: Sat 2026-03-28 01:30:00 UTC\n       From now: 8 months ago\n" +
			"   Iteration #2: Mon 2026-03-30 00:30:00 UTC\n       From now: 8 months ago\n",
		"then never": "Next elapse: Sat 2026-03-28 01:30:00 UTC\nIter. #2: Mon 2026-03-30 00:30:00 UTC\nIter. #3: never\n",
	} {
		if got, err := parse([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                    `no line with "Next elapse"`,
		"Next elapse: soon\n": `no time in UTC: "soon"`,
		"Next elapse: Sat 2026-03-28 02:30:00 CET\n": `no time in UTC: "Sat 2026-03-28 02`,

		"Next elapse: Sat 2026-03-28 02:30:00 CET\nIter. #2: Sat 2026-03-28 02:30:00 UTC\n": "00 CET",
	} {
		if got, err := Starts(t.Context(), printed(text, false), "daily", "UTC", time.Unix(0, 0), 2); err == nil ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"daily"`) {
			t.Errorf("%q: read %v, %v; want an error about %q", text, got, err, want)
		}
	}
}

// TestTooMuch: a program that prints without end is an error.
func TestTooMuch(t *testing.T) {
	var b limitedBuffer
	if n, err := b.Write(make([]byte, maxOutput)); n != maxOutput || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	if _, err := b.Write([]byte("x")); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxOutput)) {
		t.Errorf("the error is %v", err)
	}
}
