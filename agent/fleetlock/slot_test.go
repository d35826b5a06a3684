package fleetlock

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/durable"
)

var client = Client{URL: "http://lock.example.org", Group: "web", ID: "host-1"}

func TestNote(t *testing.T) {
	dir := t.TempDir()
	if s, err := Read(durable.OS{}, dir); s != nil || err != nil {
		t.Errorf("without a note: %v, %v", s, err)
	}
	want, err := For(nil, client, "root-2", "2.0", time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	want.Failed = "it did not start"
	if err := Write(durable.OS{}, dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(durable.OS{}, dir)
	if err != nil || *got != want || got.Client() != client {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
	st, err := os.Stat(filepath.Join(dir, "fleetlock.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", st, err)
	}
	for range 2 { // a note that is gone is fine
		if err := Remove(durable.OS{}, dir); err != nil {
			t.Error(err)
		}
	}
	if s, err := Read(durable.OS{}, dir); s != nil || err != nil {
		t.Errorf("after it was removed: %v, %v", s, err)
	}
}

// TestWriteFails: without a note on the disk nobody asks for a slot, so the error has to be seen.
func TestWriteFails(t *testing.T) {
	s, err := For(nil, client, "root-2", "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(durable.OS{}, filepath.Join(t.TempDir(), "missing"), s); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	s.Wants = "a pony"
	if err := Write(durable.OS{}, t.TempDir(), s); err == nil || !strings.Contains(err.Error(), `it wants "a pony"`) {
		t.Errorf("a note that cannot be read again: %v", err)
	}
}

func TestDamaged(t *testing.T) {
	const good = `{"url":"http://a","group":"web","id":"1","target":"r","since":"2026-01-01T00:00:00Z","wants":"held"}`
	for text, want := range map[string]string{
		"":                                    "unexpected end",
		"null":                                "[fleetlock] url",
		good[:40]:                             "unexpected end",
		strings.Replace(good, "a", "", 1):     "[fleetlock] url",
		strings.Replace(good, "web", "", 1):   "[fleet] group",
		strings.Replace(good, `"r"`, `""`, 1): "it names no root",
		strings.Replace(good, `"held"`, `"x"`, 1):  `it wants "x"`,
		good + strings.Repeat(" ", maxSlot):        "larger than allowed",
		strings.Replace(good, `"1"`, `"\u0000`, 1): "invalid",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Read(durable.OS{}, dir)
		if s != nil || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%.50q: %v, %v; want %s", text, s, err, want)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, file), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Read(durable.OS{}, dir)
	if s != nil || !errors.Is(err, durable.ErrNotRegular) || errors.Is(err, ErrDamaged) {
		t.Errorf("a directory: %v, %v", s, err)
	}
}

// TestFor: a slot that is held stays the same slot, and none is forgotten.
func TestFor(t *testing.T) {
	first, now := time.Unix(1700000000, 0).UTC(), time.Unix(1800000000, 0).UTC()
	old := Slot{URL: client.URL + "/", Group: "web", ID: "host-1", Target: "root-2", Since: first, Wants: GiveBack,
		Failed: "bad"}
	s, err := For(&old, client, "root-3", "3.0", now)
	want := Slot{URL: client.URL, Group: "web", ID: "host-1", Target: "root-3", Version: "3.0", Since: first, Wants: Held,
		Failed: "bad"}
	if err != nil || s != want {
		t.Errorf("%+v, %v; want %+v", s, err, want)
	}
	for name, change := range map[string]func(*Slot){
		"server": func(s *Slot) { s.URL = "http://user:secret@other.example.org" },
		"group":  func(s *Slot) { s.Group = "db" },
		"id":     func(s *Slot) { s.ID = "host-2" },
	} {
		other := old
		change(&other)
		_, err := For(&other, client, "root-3", "", now)
		if !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "give that one back first") ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestNext(t *testing.T) {
	held := Slot{Target: "new", Wants: Held}
	kept := Slot{Target: "new", Wants: Held, Failed: "bad"}
	leaving := Slot{Target: "new", Wants: GiveBack}
	for name, c := range map[string]struct {
		slot    *Slot
		outcome Outcome
		want    Action
	}{
		"no slot":                              {nil, Outcome{Failed, "old"}, DoNothing},
		"the target is good":                   {&held, Outcome{IsGood, "new"}, DoGiveBack},
		"before the switch":                    {&held, Outcome{Trying, "old"}, DoWait},
		"the target is tried":                  {&held, Outcome{Trying, "new"}, DoWait},
		"rolled back":                          {&held, Outcome{Failed, "old"}, DoKeep},
		"bad, and nowhere to go":               {&held, Outcome{Failed, "new"}, DoKeep},
		"in a good root, not the target":       {&held, Outcome{IsGood, "old"}, DoKeep},
		"called off":                           {&held, Outcome{CalledOff, "old"}, DoGiveBack},
		"kept, the next try is called off":     {&kept, Outcome{CalledOff, "old"}, DoKeep},
		"kept, the former root is still there": {&kept, Outcome{IsGood, "old"}, DoKeep},
		"kept, the next try goes on":           {&kept, Outcome{Trying, "old"}, DoWait},
		"kept, the next try is good":           {&kept, Outcome{IsGood, "new"}, DoGiveBack},
		"the server did not hear of it":        {&leaving, Outcome{IsGood, "new"}, DoGiveBack},
		"an operator gives it back":            {&leaving, Outcome{Failed, "old"}, DoGiveBack},
		"a state of a newer agent":             {&held, Outcome{"paused", "old"}, DoKeep},
	} {
		if got := Next(c.slot, c.outcome); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestNoFailedHostFrees: whatever happens in between, a slot that was kept for a failure is given back only when a
// target is good, or when somebody says so.
func TestNoFailedHostFrees(t *testing.T) {
	for _, target := range []string{"a", "b"} {
		for _, state := range []State{Trying, IsGood, Failed, CalledOff, ""} {
			for _, root := range []string{"a", "b"} {
				s, o := Slot{Target: target, Wants: Held, Failed: "bad"}, Outcome{state, root}
				if got := Next(&s, o); (got == DoGiveBack) != (o == Outcome{IsGood, target}) {
					t.Errorf("%+v, %+v: %s", s, o, got)
				}
			}
		}
	}
}
