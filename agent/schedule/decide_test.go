package schedule

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDecide(t *testing.T) {
	at := func(minute int) time.Time { return minutes(minute)[0] }
	open := Window{Open: true, Until: at(60), Next: at(24 * 60)}
	short := Window{Open: true, Until: at(4), Next: at(24 * 60)}
	last := Window{Open: true, Until: at(4)}
	closed := Window{Next: at(30)}
	fetching := func(f Facts) Facts { f.Step, f.Fetch = Fetch, open; return f }
	switching := func(f Facts) Facts {
		f.Step = Switch
		if f.Switch == (Window{}) {
			f.Switch = open
		}
		return f
	}
	both := Facts{Users: []string{"alice", "bob"}, Grace: 10 * time.Minute}
	blocked := Inhibitor{Who: "dpkg", Why: "packages are being installed", Deadline: at(60)}
	for name, c := range map[string]struct {
		facts Facts
		want  Verdict // Text is a part of it
	}{
		"nothing is against fetching":  {fetching(Facts{}), Verdict{Action: Go}},
		"nothing is against switching": {switching(Facts{}), Verdict{Action: Go}},
		"always":                       {Facts{Step: Switch, Switch: Always}, Verdict{Action: Go}},
		"no window at all": {Facts{Step: Fetch},
			Verdict{Action: GiveUp, Kind: KindWindow, Text: "the window to fetch is not open, and it is not known until when"}},
		"each step has its window": {Facts{Step: Switch, Fetch: Always, Switch: closed},
			Verdict{Action: Wait, Kind: KindWindow, Until: at(30),
				Text: "the window to switch is not open: waiting until 2026-11-30T12:30:00Z"}},

		"paused": {fetching(Facts{Pause: Pause{On: true, Until: at(90), By: "root", Reason: "big day"}}),
			Verdict{Action: Wait, Kind: KindPaused, Until: at(90), Text: "updates are paused by root (big day): waiting"}},
		"paused for good": {switching(Facts{Pause: Pause{On: true}}),
			Verdict{Action: GiveUp, Kind: KindPaused, Text: "updates are paused, and it is not known until when"}},
		"paused before": {switching(Facts{Pause: Pause{On: true, Until: at(0)}}), Verdict{Action: Go}},
		"a pause counts before the window": {Facts{Step: Fetch, Fetch: closed, Pause: Pause{On: true, Until: at(90)}},
			Verdict{Action: Wait, Kind: KindPaused, Until: at(90)}},

		"on battery": {switching(Facts{OnBattery: true}),
			Verdict{Action: Wait, Kind: KindBattery, Until: at(5), Text: "the host runs on its battery"}},
		"on battery, fetching": {fetching(Facts{OnBattery: true}),
			Verdict{Action: Wait, Kind: KindBattery, Until: at(5)}},
		"on battery, the window ends": {switching(Facts{OnBattery: true, Switch: short}),
			Verdict{Action: Wait, Kind: KindBattery, Until: at(24 * 60), Text: "and the window closes at 2026-11-30T12:04:00Z"}},
		"on battery, the last window": {switching(Facts{OnBattery: true, Switch: last}),
			Verdict{Action: GiveUp, Kind: KindBattery, Text: "closes at 2026-11-30T12:04:00Z, and it is not known"}},
		"metered": {fetching(Facts{Metered: true}),
			Verdict{Action: Wait, Kind: KindMetered, Until: at(5), Text: "the network link is metered"}},
		"metered, but all is here": {switching(Facts{Metered: true}), Verdict{Action: Go}},

		"inhibited": {switching(Facts{Inhibitor: blocked}), Verdict{Action: Wait, Kind: KindInhibitor, Until: at(5),
			Text: "dpkg blocks a shutdown (packages are being installed): waiting"}},
		"inhibited while fetching": {fetching(Facts{Inhibitor: blocked}), Verdict{Action: Go}},
		"inhibited, deadline soon": {switching(Facts{Inhibitor: Inhibitor{Who: "x", Deadline: at(2)}}),
			Verdict{Action: Wait, Kind: KindInhibitor, Until: at(2), Text: "x blocks a shutdown: waiting"}},
		"inhibited for too long": {switching(Facts{Inhibitor: Inhibitor{Who: "x", Deadline: at(0)}}),
			Verdict{Action: GiveUp, Kind: KindInhibitor, Text: "x blocks a shutdown, and was waited for long enough"}},

		"people, to be told": {switching(both), Verdict{Action: Wait, Kind: KindPeople, Until: at(10), Tell: true,
			Text: "alice and bob are logged in: waiting until 2026-11-30T12:10:00Z"}},
		"people, told": {switching(Facts{Users: []string{"eve"}, Grace: both.Grace, Told: at(-3)}),
			Verdict{Action: Wait, Kind: KindPeople, Until: at(7), Text: "eve is logged in"}},
		"people, their time is up": {switching(Facts{Users: both.Users, Grace: both.Grace, Told: at(-10)}),
			Verdict{Action: Go}},
		"people without grace":      {switching(Facts{Users: both.Users}), Verdict{Action: Go}},
		"people do not mind a load": {fetching(both), Verdict{Action: Go}},
		"people, the window ends": {switching(Facts{Users: both.Users, Grace: both.Grace, Switch: short}),
			Verdict{Action: Wait, Kind: KindPeople, Until: at(24 * 60), Text: "and the window closes at"}},
		"nobody is warned while something else delays": {switching(Facts{Users: both.Users, Grace: both.Grace,
			Inhibitor: blocked}), Verdict{Action: Wait, Kind: KindInhibitor, Until: at(5)}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Decide(noon, c.facts)
			text := got.Text
			got.Text = c.want.Text
			if got != c.want || !strings.Contains(text, c.want.Text) || (text == "") != (got.Action == Go) {
				t.Errorf("the verdict is %+v, %q; want %+v", got, text, c.want)
			}
		})
	}
}

// TestVerdictsAreWhole: whatever the facts, a step is done only in its window; who waits does so for something, and
// until a later time that is in the window or when the next one opens; and every run ends.
func TestVerdictsAreWhole(t *testing.T) {
	moment := func(t *rapid.T, name string) time.Time {
		return rapid.SampledFrom(append(minutes(-30, -1, 0, 1, 30, 90), time.Time{})).Draw(t, name)
	}
	window := func(t *rapid.T, name string) Window {
		w := Window{Open: rapid.Bool().Draw(t, name)}
		if w.Open {
			w.Until = rapid.SampledFrom(append(minutes(1, 6, 60), time.Time{})).Draw(t, name+" until")
		}
		w.Next = rapid.SampledFrom(append(minutes(100, 1000), time.Time{})).Draw(t, name+" next")
		return w
	}
	rapid.Check(t, func(t *rapid.T) {
		f := Facts{
			Step: rapid.SampledFrom([]Step{Fetch, Switch}).Draw(t, "step"), Fetch: window(t, "fetch"),
			Switch: window(t, "switch"), Pause: Pause{On: rapid.Bool().Draw(t, "paused"), Until: moment(t, "pause until")},
			Users: rapid.SliceOfN(rapid.SampledFrom([]string{"alice", "bob"}), 0, 2).Draw(t, "users"),
			Grace: rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(t, "grace"), Told: moment(t, "told"),
			Inhibitor: Inhibitor{Who: rapid.SampledFrom([]string{"", "x"}).Draw(t, "who"), Deadline: moment(t, "deadline")},
			Metered:   rapid.Bool().Draw(t, "metered"), OnBattery: rapid.Bool().Draw(t, "on battery"),
		}
		w := f.Switch
		if f.Step == Fetch {
			w = f.Fetch
		}
		v := Decide(noon, f)
		switch v.Action {
		case Go:
			if !w.Open || v.Kind != "" || f.Pause.On && (f.Pause.Until.IsZero() || f.Pause.Until.After(noon)) ||
				f.OnBattery || v.Tell {
				t.Fatalf("it goes: %+v", v)
			}
			return
		case Wait:
			inside := w.Open && (w.Until.IsZero() || v.Until.Before(w.Until))
			if !v.Until.After(noon) || v.Kind != KindPaused && !inside && !v.Until.Equal(w.Next) {
				t.Fatalf("it waits until %v: %+v", v.Until, v)
			}
			if v.Tell && (!inside || f.Step != Switch) {
				t.Fatalf("people are told of a switch that does not follow: %+v", v)
			}
		case GiveUp:
			if !v.Until.IsZero() || v.Tell {
				t.Fatalf("it gives up until %v", v.Until)
			}
		}
		if !slices.Contains(Kinds(), v.Kind) || v.Text == "" {
			t.Fatalf("nothing says why: %+v", v)
		}
	})
}
