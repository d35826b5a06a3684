package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

const (
	healthFile    = record.StateDir + "/health.json"
	unhealthyFile = record.StateDir + "/unhealthy.json"
)

// Report is the last report of the health gate: /var/lib/updatectl/health.json. The last one about an unhealthy root
// is also kept in unhealthy.json: after the rollback, the gate reports on the other root.
type Report struct {
	// Root is the root it is about.
	Root    string        `json:"root"`
	Healthy bool          `json:"healthy"`
	Report  health.Report `json:"report"`
}

// CheckPrograms returns a [config.ErrConfig] for the required check programs of the operator that cannot be run: the
// next root would be unhealthy because of them.
func (t *Trial) CheckPrograms() error {
	if !t.Machine.Running {
		return nil
	}
	list := health.Unusable(t.Path("/"))
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%w: a required check cannot be run: %s", config.ErrConfig, strings.Join(list, "; "))
}

// Gate returns the health gate for the running root. It also checks that the sources of images are reachable:
// otherwise no update could repair the host.
func (t *Trial) Gate() health.Gate {
	config := t.Config.HealthGate()
	config.Ignore = slices.Concat(config.Ignore, (&renew.Renewal{Host: t.Host}).Tolerated())
	g := t.Machine.Gate(config)
	g.Root, g.Now = t.Machine.Root, t.Now
	if stamp := t.Transition.ReadStamp(); stamp != nil {
		g.Since = stamp.At
	}
	for unit := range configs.Units() {
		if strings.HasPrefix(unit, "updatectl") && slices.Contains([]string{".service", ".socket"}, path.Ext(unit)) {
			g.Own = append(g.Own, unit)
		}
	}
	for _, reference := range slices.Concat([]string{t.Config.Source.Image}, t.Config.Source.Mirrors) {
		address := source.Address(reference, t.Config.Source.PlainHTTP)
		if address != "" && !slices.Contains(g.Sources, address) {
			g.Sources = append(g.Sources, address)
		}
	}
	return g
}

// judge runs the health gate, and keeps and logs its report. The error means that the gate was interrupted: the root
// stays unconfirmed, and the next confirm judges it.
func (t *Trial) judge(ctx context.Context, f facts.Facts, rec *record.Record) (health.Report, error) {
	state := t.stateInPlace(ctx, f, rec)
	report := health.Report{At: t.Now().UTC(), Took: state.Took}
	if state.Verdict != health.Fail || mayStay(rec) { // whether the host is cut off decides then
		gate := t.Gate()
		gate.Config.Deadline = t.timeLeft()
		report = gate.Run(ctx, rec.Switch.CompareWith(rec.WhenGood))
	}
	report.Results = append([]health.Result{state}, report.Results...)
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("cannot finish the health checks of %s: %w", f.Root, err)
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
	t.Log.Info("the health checks are done", zap.String("root", f.Root), zap.Bool("healthy", report.Healthy()),
		zap.Int("checks", len(report.Results)), zap.Duration("took", report.Took.Round(100*time.Millisecond)),
		zap.String("reason", report.Reason()))
	return report, nil
}

// maxReport bounds a stored report, in bytes: about two hundred checks, each with the most output that is kept.
const maxReport = 1 << 20

// keepReport stores the report. A report that is too large loses the output of the checks, never a verdict.
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
		err = t.Machine.Disk.WriteFile(t.Path(unhealthyFile), text, 0o600)
	}
	return errors.Join(err, t.Machine.Disk.WriteFile(t.Path(healthFile), text, 0o600))
}

// LastReport returns the last report, nil when there is none.
func (t *Trial) LastReport() *Report { return t.readReport(healthFile) }

// LastUnhealthy returns the last report about an unhealthy root. It returns nil when the root is no longer bad, and
// when that report is also the last one.
func (t *Trial) LastUnhealthy(rec *record.Record) *Report {
	unhealthy, last := t.readReport(unhealthyFile), t.LastReport()
	if unhealthy == nil || last != nil && last.Report.At.Equal(unhealthy.Report.At) {
		return nil
	}
	if _, bad := rec.Bad[unhealthy.Root]; !bad {
		return nil
	}
	return unhealthy
}

// readReport returns a stored report, nil when there is none or it cannot be read: reports are for people, and decide
// nothing.
func (t *Trial) readReport(file string) *Report {
	r, err := t.parseReport(t.Path(file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Log.Warn("cannot read the health report", zap.Error(err))
	}
	return r
}

// parseReport reads and parses a stored report.
func (t *Trial) parseReport(file string) (*Report, error) {
	text, err := t.Machine.Disk.ReadFile(file, maxReport+1) // and the newline
	if err != nil {
		return nil, err
	}
	r := &Report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Observe returns the state of the services before a switch, to compare its target with. It is marked unknown when
// there is nothing to compare: the host root runs other units than an image root, and while the system is starting,
// units may still fail. Systemd also reports "starting" while only the agent's own unit runs; that does not count.
func (t *Trial) Observe(ctx context.Context, f facts.Facts, verb string) health.Before {
	gate := t.Gate()
	before := health.Observe(ctx, gate)
	starting := f.State == "starting" || f.State == "initializing"
	before.Unknown = verb == record.VerbResume || verb == record.VerbRollback && f.Root == switcher.HostRoot ||
		starting && gate.Busy(ctx)
	return before
}
