package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
)

const (
	healthFile = record.StateDir + "/health.json"
	sickFile   = record.StateDir + "/unhealthy.json"
)

// Report is the last report of the health gate: /var/lib/updatectl/health.json. The last one that found a root
// unhealthy lies in unhealthy.json, too: the root that is gone back to is judged next.
type Report struct {
	// Root is the root it is about.
	Root    string        `json:"root"`
	Healthy bool          `json:"healthy"`
	Report  health.Report `json:"report"`
}

// Gate judges the root that runs. Where images come from should be reachable from it: else the host could not be mended
// by another update.
func (t *Trial) Gate() health.Gate {
	g := t.Machine.Gate(t.Config.HealthGate())
	g.Root, g.Now = t.Machine.Root, t.Now
	if stamp := t.Transition.ReadStamp(); stamp != nil {
		g.Since = stamp.At
	}
	g.Own = []string{pid1.ConfirmUnit, pid1.ApplyUnit, pid1.ArmUnit, pid1.GuardUnit}
	for _, reference := range slices.Concat([]string{t.Config.Source.Image}, t.Config.Source.Mirrors) {
		if address := source.Address(reference, t.Config.Source.PlainHTTP); address != "" && !slices.Contains(g.Sources, address) {
			g.Sources = append(g.Sources, address)
		}
	}
	return g
}

// judge runs the gate, and keeps and tells what it found. A gate that was interrupted has found nothing: the root stays
// as it is, to be judged by the next confirm.
func (t *Trial) judge(ctx context.Context, f facts.Facts, rec *record.Record) (health.Report, error) {
	gate := t.Gate()
	gate.Config.Deadline = t.timeLeft()
	report := gate.Run(ctx, rec.Switch.Before)
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("cannot judge the health of %s: %w", f.Root, err)
	}
	if err := t.keepReport(Report{Root: f.Root, Healthy: report.Healthy(), Report: report}); err != nil {
		t.Log.Warn("cannot keep the health report", zap.Error(err))
	}
	for _, r := range report.Results {
		if r.Verdict != health.OK {
			t.Log.Warn("a health check did not pass", zap.String("check", r.Name), zap.String("kind", r.Kind),
				zap.String("verdict", string(r.Verdict)), zap.String("reason", r.Reason))
		}
	}
	t.Log.Info("the health of the root was judged", zap.String("root", f.Root), zap.Bool("healthy", report.Healthy()),
		zap.Int("checks", len(report.Results)), zap.Duration("took", report.Took), zap.String("reason", report.Reason()))
	return report, nil
}

// maxReport bounds the report that is kept: as large as some two hundred checks with all the output that is kept of each.
const maxReport = 1 << 20

// keepReport writes the report down. One that is too large loses what the checks wrote, never a verdict.
func (t *Trial) keepReport(r Report) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil && len(text) > maxReport {
		r.Report.Results = slices.Clone(r.Report.Results)
		for i := range r.Report.Results {
			r.Report.Results[i].Output = ""
		}
		text, err = json.MarshalIndent(r, "", "  ")
	}
	if err == nil && len(text) > maxReport {
		err = fmt.Errorf("it is larger than %d bytes", maxReport)
	}
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if !r.Healthy {
		err = t.Machine.Disk.WriteFile(t.Path(sickFile), text, 0o600)
	}
	return errors.Join(err, t.Machine.Disk.WriteFile(t.Path(healthFile), text, 0o600))
}

// Last reads the last report, nil when there is none.
func (t *Trial) Last() *Report { return t.readKept(healthFile) }

// LastUnhealthy reads the last report that found a root unhealthy, while the root counts as bad; nil when it is the last
// report, too.
func (t *Trial) LastUnhealthy(rec *record.Record) *Report {
	sick, last := t.readKept(sickFile), t.Last()
	if sick == nil || last != nil && last.Report.At.Equal(sick.Report.At) {
		return nil
	}
	if _, bad := rec.Bad[sick.Root]; !bad {
		return nil
	}
	return sick
}

// readKept reads a report, nil when there is none. It is for people; nothing is decided by it.
func (t *Trial) readKept(file string) *Report {
	r, err := t.readReport(t.Path(file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Log.Warn("cannot read the health report", zap.Error(err))
	}
	return r
}

func (t *Trial) readReport(file string) (*Report, error) {
	text, err := t.Machine.Disk.ReadFile(file, maxReport+1) // and the line's end
	if err != nil {
		return nil, err
	}
	r := &Report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Observe notes what the target of a switch is compared with. The units of the host root are others than those of a root
// that was good before it. What is not up yet may still fail; systemd reports that it is starting even when all that it
// waits for is the agent's own unit.
func (t *Trial) Observe(ctx context.Context, f facts.Facts, verb string) health.Before {
	gate := t.Gate()
	before := health.Observe(ctx, gate)
	starting := f.State == "starting" || f.State == "initializing"
	before.Unknown = verb == record.VerbResume || verb == record.VerbRollback && f.Root == switcher.HostRoot ||
		starting && gate.Busy(ctx)
	return before
}
