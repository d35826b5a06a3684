package simulation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/garbage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
)

// What the world around a machine does: publishers, operators, timers, and time itself.

// ErrKilled is how a command ends that was killed.
var ErrKilled = errors.New("it was killed")

// Publish makes a version the one that is published, and its root ill of something.
func (m *Machine) Publish(version string, ill Illness) {
	m.Infect(version, ill)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.published = version
	m.tell("%s is published (it %q)", version, ill)
}

// Infect makes the root of a version ill of something.
func (m *Machine) Infect(version string, ill Illness) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ills[m.publisher.roots[version]] = ill
}

// Damage has the root of a version not be what was signed any more.
func (m *Machine) Damage(version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("%s is damaged on the disk", version)
	m.damaged[m.publisher.roots[version]] = true
}

// Command is a command that somebody runs.
type Command struct{ p *process }

// Run starts a command, automatic when a timer does. It returns nil where nobody can: userspace is not up.
func (m *Machine) Run(verb string, automatic bool, run func(context.Context, *agent.Agent) error) *Command {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.user == nil || !m.user.up || m.shutdown != nil || m.isDeaf() || automatic && m.user.confirm.state == activating {
		return nil
	}
	return &Command{m.spawn(verb, automatic, run)}
}

// Apply runs updatectl apply; the timer's is unattended.
func (m *Machine) Apply(o agent.ApplyOptions) *Command {
	return m.Run("apply", o.Unattended, func(ctx context.Context, a *agent.Agent) error {
		_, err := a.Apply(ctx, o)
		return err
	})
}

// RollBack runs updatectl rollback, to a version, the host root, or with "" to the root before.
func (m *Machine) RollBack(to string) *Command {
	if id, known := m.publisher.roots[to]; known {
		to = id
	}
	return m.Run("rollback", false, func(ctx context.Context, a *agent.Agent) error {
		done, err := a.Rollback(ctx, to, true)
		if err == nil && done.Switching && done.From != switcher.HostRoot && !done.Drops {
			m.mu.Lock()
			m.left[done.From] = true
			m.mu.Unlock()
		}
		return err
	})
}

// SwitchTo runs updatectl switch, to a version that is staged.
func (m *Machine) SwitchTo(version string, o agent.ApplyOptions) *Command {
	return m.Run("switch", false, func(ctx context.Context, a *agent.Agent) error {
		_, err := a.Switch(ctx, m.publisher.roots[version], o)
		return err
	})
}

// Stage runs updatectl stage.
func (m *Machine) Stage() *Command {
	return m.Run("stage", false, func(ctx context.Context, a *agent.Agent) error {
		_, err := a.Stage(ctx, agent.ApplyOptions{})
		return err
	})
}

// GC runs updatectl gc --all.
func (m *Machine) GC() *Command {
	return m.Run("gc", false, func(ctx context.Context, a *agent.Agent) error {
		_, err := a.GC(ctx, garbage.Options{All: true})
		return err
	})
}

// Wait waits for a command. It returns how it ended, an ErrKilled where it was killed; a nil command has failed.
func (c *Command) Wait() error {
	if c == nil {
		return errors.New("nobody can log in")
	}
	<-c.p.gone
	c.p.m.mu.Lock()
	defer c.p.m.mu.Unlock()
	if c.p.killed {
		return ErrKilled
	}
	return c.p.err
}

// Strike has a fault happen at a crossing of the seam, counted from now; 1 is the next one.
func (m *Machine) Strike(f Fault, after int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.faultAt = f, m.crossings+after
}

// KilledGuard reports whether a guard was killed: then a person may have to help.
func (m *Machine) KilledGuard() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.killedGuard
}

// KilledArm reports whether an arming step was killed: then the host stays in its root, and confirm reports it.
func (m *Machine) KilledArm() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.killedArm
}

// Struck reports whether the fault has happened.
func (m *Machine) Struck() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.faultAt > 0 && m.crossings >= m.faultAt
}

// Doom has the next process of a verb killed at one of its crossings of the seam.
func (m *Machine) Doom(verb string, at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("the next %s will be killed", verb)
	m.dooms[verb] = at
}

// CutPower cuts the power, which comes back at once.
func (m *Machine) CutPower() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("the power is cut")
	m.bootKernel(false)
}

// Reboot is `systemctl reboot`, or `systemctl soft-reboot`, of an operator. systemctl makes a soft reboot of a full
// one when a root is armed.
func (m *Machine) Reboot(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isDeaf() {
		return
	}
	if full && m.armed != nil {
		m.tell("an operator's full reboot becomes a soft one: %s is armed", m.armed.next.ID)
		full = false
	}
	m.tell("an operator asks for a %s", &shutdown{full: full})
	if err := m.askLogind(full); err != nil {
		m.tell("that is refused: %v", err)
	}
}

// JumpClock moves the wall clock.
func (m *Machine) JumpClock(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("the wall clock jumps by %v", by)
	m.clock += by
}

// FillDisk fills the disk, or frees room on it.
func (m *Machine) FillDisk(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("the disk is full: %v", full)
	m.disk.Fill(full)
}

// RemountReadOnly makes the disk read-only, until the next full reboot.
func (m *Machine) RemountReadOnly() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("the disk is remounted read-only")
	m.disk.ReadOnly = true
}

// Inhibit takes an inhibitor lock, or gives it back.
func (m *Machine) Inhibit(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("an inhibitor lock is held: %v", on)
	m.inhibited = on
}

// Deafen has PID 1 not answer for a while.
func (m *Machine) Deafen(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("PID 1 does not answer for %v", d)
	m.deafUntil = m.sinceBoot() + d
}

// SlowService gives the first service a time to stop, from its next start on; less than 0 is never, 0 the usual.
func (m *Machine) SlowService(stop time.Duration, unkillable bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("db.service takes %v to stop", stop)
	m.slowStop, m.unkillable = stop, unkillable
	if m.user != nil {
		if v := m.user.services[0]; stop == 0 && v.state == deactivating {
			close(v.killed)
			v.killed = make(chan struct{})
		}
		m.user.services[0].stop, m.user.services[0].unkillable = stop, unkillable
		if stop == 0 {
			m.user.services[0].stop = time.Second
		}
	}
}

// SlowArming has the next run of the arming unit take longer than usual.
func (m *Machine) SlowArming(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slowArming = by
}

// HoldUp has the next process of a verb that crosses the seam for an operation take longer for that.
func (m *Machine) HoldUp(verb, op string, by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holdUps[verb+" "+op] = by
}

// Linger has a user run something that no shutdown stops.
func (m *Machine) Linger() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lingers = true
}

// SlowFetch has every part of an image take longer to arrive.
func (m *Machine) SlowFetch(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slowFetch = by
}

// LoseAnswer has the answer to the next request for a reboot lost: the reboot is queued all the same.
func (m *Machine) LoseAnswer() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.losesAnswer = true
}

// NeverCancel has PID 1 go on with every shutdown that it is asked to cancel, until the next full reboot.
func (m *Machine) NeverCancel() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("PID 1 cancels no shutdown")
	m.neverCancels = true
}

// HangDisk has the disk not answer for a while, or until the next full reboot. Cached: the record can still be read.
func (m *Machine) HangDisk(d time.Duration, cached bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disk.Hung() != nil {
		return
	}
	m.tell("the disk hangs for %v", d)
	m.disk.Hang(cached)
	hung, power := m.disk.Hung(), m.power
	go func() {
		if !pause(d, power) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.disk.Hung() == hung {
			m.tell("the disk answers again")
			m.disk.Answer()
		}
	}()
}

// StayOnHost sets updatectl.resume=0 on the kernel's command line, from the next full reboot on.
func (m *Machine) StayOnHost(stay bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stay = stay
}

// Heal takes every fault of the world away, and has an operator reset a machine that is dead.
func (m *Machine) Heal() {
	m.mu.Lock()
	m.tell("all faults of the world end")
	m.disk.Fill(false)
	m.inhibited, m.faultAt, m.dooms, m.stay = false, 0, map[string]int{}, false
	m.slowFetch = 0
	m.holdUps, m.losesAnswer, m.neverCancels = map[string]time.Duration{}, false, false
	m.sluggish.Store(false)
	m.deafUntil = min(m.deafUntil, m.sinceBoot())
	m.mu.Unlock()
	m.SlowService(0, false)
}

// Still reports whether nothing moves: userspace is up, no switch is under way and no process runs.
func (m *Machine) Still() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user != nil && m.user.up && m.shutdown == nil && !m.preparing && len(m.running) == 0
}

// Settle waits until nothing moves, or for so long, and reports which.
func (m *Machine) Settle(limit time.Duration) bool {
	const look = 500 * time.Millisecond
	still := 0
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(look) {
		if still++; !m.Still() {
			still = 0
		}
		if still > 4 {
			return true
		}
	}
	return false
}

// Unwatched reports whether a root that hangs would not be left: the kernel panicked and halts, or the guard is not
// there.
func (m *Machine) Unwatched() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead || m.guard == nil || m.guard.dead
}

// Booted returns the version that runs, or host.
func (m *Machine) Booted() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.publisher.name(m.mounted.id)
}

// Volatile reports whether the root that runs does so on a copy of the state.
func (m *Machine) Volatile() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mounted.volatile
}

// Used reports whether the root of a version ran on the state of the machine itself.
func (m *Machine) Used(version string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used[m.publisher.roots[version]]
}

// Record returns the record on the disk, nil when there is none.
func (m *Machine) Record() *record.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec
}

// Crossings is how often the seam was crossed.
func (m *Machine) Crossings() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crossings
}

// Reboots counts soft and full reboots.
func (m *Machine) Reboots() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reboots
}

// Broken lists what happened and must not.
func (m *Machine) Broken() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.broken)
}

// Disapprove notes what must not happen.
func (m *Machine) Disapprove(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.breach(format, args...)
}

// Say adds a line to the story.
func (m *Machine) Say(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(format, args...)
}

// Story is what happened, for people.
func (m *Machine) Story() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.story, "\n")
}

// Stop ends every process and the power, so that nothing is left of the machine.
func (m *Machine) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.power)
	m.endUserspace()
	for _, p := range m.processesInOrder() {
		m.bury(p, true)
	}
	m.disk.Answer()
}
