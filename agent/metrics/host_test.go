package metrics

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/attempt"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/switcher/level"
)

const textfile = "/var/lib/prometheus/node-exporter"

// host returns an agent in a temporary directory, and the directory for text files in it, which is made.
func host(t *testing.T) (*agent.Agent, string) {
	t.Helper()
	a := agent.On(machine.Host(t.TempDir(), record.StateDir), config.Default(), zap.NewNop())
	hosttest.Prepare(t, a.Host)
	dir := a.Path(textfile)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// written returns the metrics in a directory, and checks that everybody can read them and nothing else is there.
func written(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, File))
	if err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("the mode is %v (%v)", st.Mode(), err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("the directory has %v (%v)", list, err)
	}
	return string(text)
}

// TestWrite: a file is replaced, and says what is true now.
func TestWrite(t *testing.T) {
	a, dir := host(t)
	if err := Write(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if text := written(t, dir); !strings.Contains(text, "\nupdatectl_paused 0\n") {
		t.Errorf("it says\n%s", text)
	}
	if _, err := pause.Set(a.Host, pause.Pause{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	attempt.Keep(a.Host, attempt.Attempt{Reason: "paused", Checked: time.Unix(1796003600, 0)})
	if err := Write(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	text := written(t, dir)
	for _, line := range []string{
		"updatectl_paused 1", `updatectl_blocked{reason="paused"} 1`,
		"updatectl_last_check_timestamp_seconds 1.7960036e+09",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("it lacks %s:\n%s", line, text)
		}
	}
}

// TestWriteNowhere: without the directory, nothing is made, and that is no error.
func TestWriteNowhere(t *testing.T) {
	a, dir := host(t)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), a); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	a.Config.Metrics.Textfile = ""
	if err := Write(t.Context(), a); err != nil {
		t.Error(err)
	}
}

// TestWriteOwned: nothing is written where others can write, or where a link leads.
func TestWriteOwned(t *testing.T) {
	elsewhere := t.TempDir()
	for name, c := range map[string]struct {
		change func(dir string) error
		is     error
		says   string
	}{
		"writable": {func(dir string) error { return os.Chmod(dir, 0o777) }, owned.ErrOthers, "chown root:root " + textfile},
		"a link": {func(dir string) error {
			return errors.Join(os.Remove(dir), os.Symlink(elsewhere, dir))
		}, nil, "has a link on the way"},
		"a link above": {func(dir string) error {
			above := filepath.Dir(dir)
			return errors.Join(os.RemoveAll(above), os.Mkdir(elsewhere+"/node-exporter", 0o755), os.Symlink(elsewhere, above))
		}, nil, "has a link on the way"},
	} {
		t.Run(name, func(t *testing.T) {
			a, dir := host(t)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			err := Write(t.Context(), a)
			if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("the error is %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, File)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it wrote: %v", err)
			}
		})
	}
}

// TestOutage: only the outage of the last switch counts.
func TestOutage(t *testing.T) {
	a, _ := host(t)
	at := time.Unix(1796000000, 0).UTC()
	rec := hosttest.OnTheWay(record.VerbApply, "host", "sha256-1", "host")
	rec.Phase, rec.Switch.At = record.PhaseGood, at
	if err := a.Records.Write(rec); err != nil {
		t.Fatal(err)
	}
	file := a.Path(record.StateDir + "/" + outage.File)
	for _, c := range []struct {
		at   time.Time
		want time.Duration
	}{{at.Add(-time.Hour), 0}, {at, 3 * time.Second}} {
		s := outage.Switch{At: c.at, FirstGone: time.Second, LastBack: 4 * time.Second}
		if err := outage.Keep(a.Machine.Disk, file, s); err != nil {
			t.Fatal(err)
		}
		if h, err := Of(t.Context(), a); err != nil || h.LastOutage != c.want {
			t.Errorf("the outage is %v (%v), want %v", h.LastOutage, err, c.want)
		}
	}
}

// TestFromStatus: each fact of the status becomes its metric.
func TestFromStatus(t *testing.T) {
	at := time.Unix(1796000000, 0)
	var s agent.Status
	s.Phase, s.Booted = record.PhaseStaged, agent.RootStatus{Root: "sha256-1", Version: "v1"}
	s.Staged, s.Bad = &agent.RootStatus{Root: "sha256-2"}, map[string]record.Bad{"a": {}, "b": {}}
	s.Slot = &fleetlock.Slot{Wants: fleetlock.Held}
	s.Kernel.Release, s.Kernel.RebootBy = "6.12", at
	s.Kernel.LivePatches = []live.LivePatch{{State: live.LiveHeld}, {State: live.LiveEffective}, {State: live.LiveHeld}}
	s.Fixes = []live.Fix{{State: live.FixOpen}, {State: live.FixedByImage}, {State: live.FixOpen}}
	s.Last = &record.Result{Outcome: level.Unhealthy, At: at}
	s.Unattended = &attempt.Attempt{Staged: "sha256-2", Level: level.Full}
	h := fromStatus(s)
	if h.Version != "v1" || h.Root != "sha256-1" || h.Kernel != "6.12" || h.Phase != "staged" || !h.Staged || h.Paused ||
		h.BadRoots != 2 || !h.SlotHeld || h.SlotKept || !h.RebootBy.Equal(at) || h.FixesOpen != 2 ||
		h.Level != "full" || h.LivePatches["held"] != 2 || h.LivePatches["effective"] != 1 || h.LastSucceeded ||
		!h.LastEnded.Equal(at) {
		t.Errorf("it is %+v", h)
	}
	s.Last.Outcome, s.Slot.Failed, s.Staged = level.Switched, "unhealthy", &agent.RootStatus{Root: "sha256-3"}
	if h = fromStatus(s); !h.LastSucceeded || !h.SlotKept || h.Level != "" {
		t.Errorf("with another staged root, it is %+v", h)
	}
	if s.Staged = nil; fromStatus(s).Level != "" {
		t.Errorf("without a staged root, it is %+v", h)
	}
}
