package circumstances

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOnBattery(t *testing.T) {
	type supply map[string]string
	type set map[string]supply
	unplugged, plugged := supply{"type": "Mains", "online": "0"}, supply{"type": "Mains", "online": "1"}
	empties, full := supply{"type": "Battery", "status": "Discharging"}, supply{"type": "Battery", "status": "Full"}
	mouse := supply{"type": "Battery", "scope": "Device", "status": "Discharging"}
	for name, c := range map[string]struct {
		supplies set
		want     bool
	}{
		"a server":           {nil, false},
		"plugged in":         {set{"AC": plugged, "BAT0": {"type": "Battery", "status": "Charging"}}, false},
		"pulled":             {set{"AC": unplugged, "BAT0": empties}, true},
		"on USB-C":           {set{"AC": unplugged, "ucsi": {"type": "USB", "online": "1"}, "BAT0": empties}, false},
		"USB-C pulled":       {set{"ucsi": {"type": "USB_PD", "online": "0"}, "BAT0": empties}, true},
		"full":               {set{"AC": unplugged, "BAT0": full}, false},
		"one of two":         {set{"AC": unplugged, "BAT0": full, "BAT1": empties}, true},
		"only a battery":     {set{"BAT0": empties}, false},
		"a mouse":            {set{"AC": unplugged, "hid": mouse}, false},
		"plug without state": {set{"AC": {"type": "Mains"}, "BAT0": empties}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for supply, attributes := range c.supplies {
				if err := os.Mkdir(filepath.Join(dir, supply), 0o755); err != nil {
					t.Fatal(err)
				}
				for name, value := range attributes {
					if err := os.WriteFile(filepath.Join(dir, supply, name), []byte(value+"\n"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got, err := OnBattery(dir); got != c.want || err != nil {
				t.Errorf("on battery is %v, %v; want %v", got, err, c.want)
			}
		})
	}
	if got, err := OnBattery(filepath.Join(t.TempDir(), "none")); got || err != nil {
		t.Errorf("a kernel without power supplies: %v, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OnBattery(file); err == nil || !strings.Contains(err.Error(), "cannot look for power supplies") {
		t.Errorf("the error is %v", err)
	}
}

func TestTell(t *testing.T) {
	at := time.Date(2026, 11, 30, 3, 10, 0, 0, time.FixedZone("CET", 3600))
	var ran []string
	run := func(ctx context.Context, program string, args ...string) error {
		ran = append([]string{program}, args...)
		return nil
	}
	want := []string{"wall", `This host switches to another version at 03:10 CET on 2026-11-30: fixes\x1b. ` +
		`Its services restart and sessions end.`}
	if err := Tell(t.Context(), run, at, "fixes\x1b."); err != nil || !slices.Equal(ran, want) {
		t.Errorf("%q ran, %v; want %q", ran, err, want)
	}
	want[1] = "This host switches to another version at 03:10 CET on 2026-11-30. Its services restart and sessions end."
	if err := Tell(t.Context(), run, at, ""); err != nil || !slices.Equal(ran, want) {
		t.Errorf("without a reason, %q ran, %v; want %q", ran, err, want)
	}
	broken := func(context.Context, string, ...string) error { return errors.New("not installed") }
	want = []string{"wall", "The switch to another version that was announced does not happen now: the hook says no. " +
		"It will be announced again."}
	if err := CallOff(t.Context(), run, "the hook says no."); err != nil || !slices.Equal(ran, want) {
		t.Errorf("CallOff runs %q, %v; want %q", ran, err, want)
	}
	if err := Tell(t.Context(), broken, at, ""); err == nil || !strings.Contains(err.Error(), "(wall): not installed") {
		t.Errorf("the error is %v", err)
	}
}
