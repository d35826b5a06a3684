package agent

import (
	"cmp"
	"context"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Plan is what apply would do, and why.
type Plan struct {
	Available
	// Decision and Etc are known once the image is staged.
	Decision *level.Decision `json:"decision,omitempty"`
	Etc      *etc.Report     `json:"etc,omitempty"`
	// Refusal is what apply would end with, an [ErrGivenUp], [ErrFullReboot] or [ErrIncompatible]; nil when it would switch.
	Refusal error `json:"-"`
	// From and To are the versions of the operating system, as os-release names them.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Kernel keeps running.
	Kernel string `json:"kernel"`
	// Carried lists the state directories that stay as they are.
	Carried []string `json:"carried"`
	// Blockers are the units that may hold up the shutdown of userspace.
	Blockers []pid1.Blocker `json:"blockers,omitempty"`
}

// Plan tells what apply would do. The merge of /etc and the level are part of it when the image is staged.
func (a *Agent) Plan(ctx context.Context, reference string) (Plan, error) {
	facts, rec, err := a.look(ctx)
	if err != nil {
		return Plan{}, err
	}
	p, err := a.fetch(ctx, reference, facts, rec, false)
	if err != nil {
		return Plan{}, err
	}
	available, err := a.available(ctx, p, facts, rec)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Available: available, Kernel: facts.KernelRelease, Carried: a.Config.State.Persist}
	if plan.Newer && plan.Bad != nil && p.image != nil {
		plan.Refusal = plan.Bad.givenUp()
	}
	if !plan.Newer && plan.Live {
		plan.Decision = liveDecision(plan.LivePatches)
	}
	if !plan.Newer || !a.Machine.Live() {
		return plan, nil
	}
	st, err := a.openStore()
	if err != nil {
		return plan, err
	}
	root, err := st.Root(plan.Root)
	if err != nil {
		plan.Staged = false
		return plan, a.able(facts) // not staged: what is known without its layers is all there is
	}
	plan.Staged, plan.Download = true, 0
	unlock, err := a.lock(ctx, "plan", true) // it mounts in the scratch directory
	if err != nil {
		return plan, err
	}
	defer unlock()
	return plan, a.planStaged(ctx, &plan, st, root, facts, rec, p.image == nil)
}

func (a *Agent) planStaged(ctx context.Context, plan *Plan, st *store.Store, root store.Root, facts facts.Facts, rec *Record, resumes bool) error {
	decide := func() (level.Decision, error) { return a.decideStaged(ctx, st, root, facts, rec, "") }
	if resumes { // nothing else is published
		decide = func() (level.Decision, error) { return a.decideResume(facts) }
	}
	decision, err := decide()
	if len(decision.Checks) == 0 { // nothing could be asked
		return err
	}
	plan.Decision, plan.Refusal = &decision, cmp.Or(plan.Refusal, err)
	plan.From, plan.To = a.prettyName(st, facts.Root), root.Info.OS.PrettyName
	stops, err := a.Machine.PID1.UnitStops(ctx)
	if err != nil {
		return err
	}
	plan.Blockers = pid1.Blockers(stops, time.Duration(a.Config.Switch.ShutdownDeadline))
	return a.withEtc(st, root, facts, rec, func(in etc.Inputs) error {
		report, err := etc.Plan(in)
		plan.Etc = &report
		return err
	})
}

// liveDecision is the level of a change that only loads live patches.
func liveDecision(list []LivePatch) *level.Decision {
	d := &level.Decision{Level: level.Live}
	for _, p := range list {
		if p.Unfinished() {
			d.Checks = append(d.Checks, level.Check{Name: "live patch " + p.Name, Verdict: level.VerdictOK, Reason: "it is for the running kernel, and nothing is restarted for it"})
		}
	}
	return d
}

// prettyName names the system of a root as its os-release does.
func (a *Agent) prettyName(st *store.Store, id string) string {
	if root, err := st.Root(id); err == nil {
		return root.Info.OS.PrettyName
	}
	text, err := os.ReadFile(a.path("/etc/os-release"))
	if err != nil {
		return id
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return id
}

// next describes a root for the switcher.
func (a *Agent) next(st *store.Store, id string, f facts.Facts) assembly.Next {
	n := assembly.Next{
		ID: id, Persist: a.Config.State.Persist, ImageOwned: a.Config.State.ImageOwned,
		HostMount: hostMount, KernelRelease: f.KernelRelease, KernelVersion: f.KernelVersion,
	}
	if id == switcher.HostRoot {
		return n
	}
	dir := filepath.Join(a.path(StateDir), "roots", id)
	n.CFS, n.Objects = filepath.Join(dir, "root.cfs"), st.ObjectsDir()
	n.Graft, n.Etc = filepath.Join(dir, "graft"), filepath.Join(dir, "etc")
	return n
}

// withEtc opens the pristine images and hands their /etc to do. The changes to carry over are those of the running root,
// or after a boot of the kernel, which lands on the mutable host, those of the root that ran before it.
func (a *Agent) withEtc(st *store.Store, root store.Root, f facts.Facts, rec *Record, do func(etc.Inputs) error) error {
	next, err := a.next(st, root.ID, f).Open()
	if err != nil {
		return err
	}
	defer next.Close()
	in := etc.Inputs{Current: "/etc", Next: next.Path() + "/etc", Adopt: a.Config.adopt(), Ledger: a.path(ledgerFile)}
	base := f.Root
	if base == switcher.HostRoot {
		base = rec.good()
	}
	if base != switcher.HostRoot {
		before := a.next(st, base, f)
		old, err := before.Open()
		if err != nil {
			return err
		}
		defer old.Close()
		in.Old = old.Path() + "/etc"
		if base != f.Root {
			in.Current = before.Etc
		}
	}
	return do(in)
}

// graft lays what the host needs over a staged root: mount points, and the agent where the image has none.
func (a *Agent) graft(st *store.Store, root store.Root, f facts.Facts, rec *Record) error {
	n := a.next(st, root.ID, f)
	image, err := n.Open()
	if err != nil {
		return err
	}
	defer image.Close()
	// Whose fstab the root will have depends on the way it is gone to, so that every mount point of each must exist.
	n.Fstab = slices.Concat(fstabPoints("/etc"), fstabPoints(n.Etc), fstabPoints(a.next(st, rec.good(), f).Etc), fstabPoints(image.Path()+"/etc"))
	g := assembly.Graft{MountPoints: a.mountPoints(n, f), Stay: n.Mounts(image.Path())}
	if !root.Info.HasAgent || !assembly.HasGuard(image.Path()) { // one from before there was a guard would end it
		g.Agent = "/proc/self/exe" // the guard's has no name
		g.Units = configs.Units()
	}
	err = g.Build(image.Path(), n.Graft, slices.Concat(a.Config.State.Persist, []string{"/etc"}))
	if noRoom(err) && rootfs.Exists(n.Graft) && rootfs.Exists(n.Etc) { // who filled the disk keeps nobody from going back or going on
		a.Log.Warn("the host's part of the root cannot be made anew; the one that it ran with is taken", zap.String("root", root.ID), zap.Error(err))
		err = nil
	}
	if err != nil {
		return err
	}
	return incompatible(n.Preflight())
}

// mountPoints lists the directories that something is mounted on in a new root.
func (a *Agent) mountPoints(n assembly.Next, f facts.Facts) []string {
	points := slices.Concat([]string{"/dev", "/proc", "/sys", "/run", "/tmp", "/etc"}, a.Config.State.Persist)
	if haveModules(f) {
		points = append(points, "/usr/lib/modules/"+f.KernelRelease)
	}
	return append(points, n.Fstab...)
}

// fstabPoints lists the mount points in the fstab of an /etc; none when there is no such file.
func fstabPoints(dir string) []string {
	fstab, err := os.Open(filepath.Join(dir, "fstab"))
	if err != nil {
		return nil
	}
	defer fstab.Close()
	return etc.FstabMountPoints(fstab)
}
