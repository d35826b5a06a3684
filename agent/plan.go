package agent

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/agent/contents"
	"github.com/updatectl/updatectl/agent/decide"
	"github.com/updatectl/updatectl/agent/hold"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Plan is what apply would do, and why.
type Plan struct {
	Available
	// Difference is what the new root has otherwise than the running one. It is empty until the image is staged.
	contents.Difference
	// Decision is the level, and Etc the merge of /etc. Both are nil until the image is staged.
	Decision *level.Decision `json:"decision,omitempty"`
	Etc      *etc.Report     `json:"etc,omitempty"`
	// Refusal is the error apply would return, a [record.ErrGivenUp], [roots.ErrFullReboot] or [roots.ErrIncompatible];
	// nil when it would switch.
	Refusal error `json:"-"`
	// From and To are the names of the operating systems, as in os-release.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Kernel is the release of the kernel that keeps running.
	Kernel string `json:"kernel"`
	// Carried lists the state directories, which stay as they are. Made are those of them that do not exist: apply makes
	// them in the host root.
	Carried []string `json:"carried"`
	Made    []string `json:"made,omitempty"`
	// Adoption is what becomes of a host root at its first image; nil at any other.
	Adoption *adoption.Report `json:"adoption,omitempty"`
	// Ending are the sessions, virtual machines and containers that the switch ends.
	Ending []ending.Ending `json:"ending,omitempty"`
	// Blockers are the units that may delay the shutdown of userspace.
	Blockers []pid1.Blocker `json:"blockers,omitempty"`
	// StayOld are the units that a soft reboot leaves active and that are not renewed in the new root.
	StayOld []renew.Old `json:"stay_old,omitempty"`
	// Outage is how long services will be away by the last switches; nil when none was measured, and at another level
	// than soft.
	Outage *outage.Prediction `json:"outage,omitempty"`
	// Units is what becomes of the units of this host in a soft reboot.
	Units []keep.UnitFate `json:"units,omitempty"`
	// Hold is what [switch] hold does in a soft reboot, nil without that key.
	Hold *hold.Plan `json:"hold,omitempty"`
	// HoldFirewall is what [switch] hold-firewall does in a soft reboot, nil without that key.
	HoldFirewall *hold.FirewallPlan `json:"hold_firewall,omitempty"`
}

// Plan returns what apply would do. It includes the level and the merge of /etc when the image is staged.
func (a *Agent) Plan(ctx context.Context, reference string) (Plan, error) {
	f, rec, err := a.Look(ctx)
	if err != nil {
		return Plan{}, err
	}
	p, err := a.fetchVerified(ctx, reference, f, rec, false)
	if err != nil {
		return Plan{}, err
	}
	available, err := a.available(ctx, p, f, rec)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Available: available, Kernel: f.KernelRelease, Carried: a.Config.State.Persist}
	if f.Volatile { // what would come along is not the state of this host
		return plan, volatile.MayBegin(f, "plan")
	}
	if plan.Newer && plan.Bad != nil && p.Image != nil {
		plan.Refusal = plan.Bad.Err()
	}
	if !plan.Newer && plan.Live {
		plan.Decision = live.Decide(plan.LivePatches)
	}
	if !plan.Newer || !a.Machine.Running {
		return plan, nil
	}
	root, err := a.Machine.Trees.Root(plan.Root)
	if err != nil {
		plan.Staged = false
		return plan, checkHost(a.Machine.Running, f) // without the layers, nothing more is known
	}
	plan.Staged, plan.Download = true, 0
	unlock, err := a.Lock(ctx, "plan", true) // planStaged mounts in the scratch directory
	if err != nil {
		return plan, err
	}
	s := &session{Agent: a, facts: f, rec: rec, unlock: unlock}
	defer s.close()
	err = s.planStaged(ctx, &plan, root, p.Image == nil)
	return plan, err
}

// planStaged adds the level and the merge of /etc for a staged root. Resumes is whether apply would resume it, because
// no image is published.
func (s *session) planStaged(ctx context.Context, plan *Plan, root store.Root, resumes bool) error {
	choose := func() (level.Decision, error) { return s.decideLevel(ctx, root, "") }
	if resumes {
		choose = func() (level.Decision, error) { return s.Roots.DecideResume(s.facts) }
	}
	decision, err := choose()
	if len(decision.Checks) == 0 { // no check could run
		return err
	}
	plan.Decision, plan.Refusal = &decision, cmp.Or(plan.Refusal, err)
	plan.Difference = s.Contents.Of(root, s.facts)
	plan.From, plan.To = s.Roots.PrettyName(s.facts.Root), root.Info.OS.PrettyName
	if !resumes {
		if plan.Made, err = s.Roots.PlanState(root.ID, s.facts); err != nil {
			plan.Refusal = cmp.Or(plan.Refusal, err)
		}
	}
	stops, err := s.Machine.Systemd.UnitStops(ctx)
	if err != nil {
		return err
	}
	plan.Blockers = pid1.Blockers(stops, time.Duration(s.Config.Switch.ShutdownDeadline))
	if plan.Ending, err = s.Machine.Systemd.Ending(ctx); err != nil {
		return err
	}
	if plan.StayOld, err = s.Renewal.Staying(ctx); err != nil {
		return err
	}
	if decision.Level == level.Soft {
		plan.Outage = predict(s.Agent, decide.ForwardVerb(s.facts, s.rec, root.ID))
	}
	change := s.Roots.EtcChange(root.ID, s.facts, s.rec)
	if decision.Level != level.Full && !resumes {
		if plan.Units, err = s.Transition.Keep.Fates(ctx, change); err != nil {
			plan.Unknown = append(plan.Unknown, fmt.Sprintf("what becomes of the units: %v", err))
		} else {
			plan.Hold = hold.PlanOf(s.Host, s.facts.Systemd, plan.Units)
			plan.HoldFirewall = hold.FirewallPlanOf(s.Host, s.facts.Systemd, plan.Units)
		}
	}
	report, err := s.Machine.Trees.PlanEtc(change)
	report = report.Filled()
	plan.Refusal = cmp.Or(plan.Refusal, roots.CheckOwners(report))
	plan.Etc = &report
	if err == nil && change.Before == nil && !resumes {
		plan.Adoption, err = s.Adoption.Of(change, report)
	}
	return err
}

// predict returns how long a switch will take by the last ones.
func predict(a *Agent, verb string) *outage.Prediction {
	list, err := outage.Read(a.Machine.Disk, a.Path(record.StateDir+"/"+outage.File))
	if err != nil {
		a.Log.Warn(err.Error())
	}
	return outage.Predict(list, verb)
}
