package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/switcher/ending"
	systemd "github.com/updatectl/updatectl/switcher/pid1"
)

// pid1 is systemd with logind as one process sees them.
type pid1 struct{ p *process }

// enter crosses the seam to PID 1 and returns with the machine locked, or, where PID 1 does not answer, unlocked with
// an error.
func (s pid1) enter(ctx context.Context, op string) error {
	s.p.enter(op)
	m := s.p.m
	if err := ctx.Err(); err != nil {
		m.mu.Unlock()
		return err
	}
	if m.reexec { // it refuses connections
		m.mu.Unlock()
		return systemd.ErrUnresponsive
	}
	if m.isDeaf() {
		const patience = 10 * time.Second
		s.p.wait(ctx, patience, nil)
		if m.isDeaf() {
			m.mu.Unlock()
			return fmt.Errorf("%w within %v", systemd.ErrUnresponsive, patience)
		}
	}
	return nil
}

// isDeaf reports whether PID 1 does not answer. The machine is locked.
func (m *Machine) isDeaf() bool {
	return m.frozen || m.reexec || m.user == nil || m.sinceBoot() < m.deafUntil
}

// do crosses the seam to PID 1 for what needs no time there.
func (s pid1) do(ctx context.Context, op string, act func(*Machine) error) error {
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	defer s.p.m.mu.Unlock()
	return act(s.p.m)
}

func (s pid1) SoftReboot(ctx context.Context) error {
	return s.request(ctx, "ask logind for a soft reboot", func(m *Machine) error { return m.askLogind(false) })
}

func (s pid1) FullReboot(ctx context.Context) error {
	return s.request(ctx, "ask logind for a full reboot", func(m *Machine) error { return m.askLogind(true) })
}

// request is [pid1.do] for a reboot. Now and then the answer is lost, at once or when the time of ctx is over:
// everything is done all the same.
func (s pid1) request(ctx context.Context, op string, act func(*Machine) error) error {
	m, lost := s.p.m, false
	err := s.do(ctx, op, func(m *Machine) error {
		if err := act(m); err != nil {
			return err
		}
		if lost = m.losesAnswer || m.chance("lost request")%8 == 0; lost {
			m.losesAnswer = false
			m.tell("its answer is lost")
		}
		return nil
	})
	switch {
	case err != nil || !lost:
		return err
	case m.sluggish.Load() && m.chance("late")%2 == 0:
		m.mu.Lock()
		s.p.wait(ctx, forEver, nil)
		m.mu.Unlock()
		return context.DeadlineExceeded
	}
	return systemd.ErrUnresponsive
}

// askLogind asks for a reboot where inhibitor locks count. Somebody may have asked for a moment before it begins. The
// machine is locked.
func (m *Machine) askLogind(full bool) error {
	switch {
	case m.inhibited:
		return fmt.Errorf("%w: somebody", systemd.ErrInhibited)
	case m.preparing:
		return fmt.Errorf("there is already a shutdown in progress")
	}
	if m.options.Prompt || m.chance("delay")%4 != 0 {
		return m.queue(full)
	}
	if m.shutdown != nil {
		return m.queue(full)
	}
	m.tell("logind waits for somebody who asked for a moment")
	m.preparing = true
	u, delay := m.user, m.between("delay", 100*time.Millisecond, 5*time.Second)
	go func() {
		if !pause(delay, u.ended) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.user == u && m.preparing {
			m.preparing = false
			if err := m.queue(full); err != nil {
				m.tell("logind cannot go on: %v", err)
			}
		}
	}()
	return nil
}

func (s pid1) SoftRebootNow(ctx context.Context) error {
	return s.request(ctx, "ask PID 1 for a soft reboot", func(m *Machine) error { return m.queue(false) })
}

func (s pid1) FullRebootNow(ctx context.Context) error {
	return s.request(ctx, "ask PID 1 for a full reboot", func(m *Machine) error { return m.queue(true) })
}

func (s pid1) SoftRebootHard(ctx context.Context) error {
	return s.do(ctx, "have PID 1 switch at once", func(m *Machine) error {
		if m.armed == nil {
			m.tell("PID 1 hangs: nothing is armed")
			m.endUserspace()
			m.frozen = true
			return nil
		}
		m.executeAnew()
		return nil
	})
}

func (s pid1) SoftRebootQueued(ctx context.Context) (queued bool, err error) {
	err = s.do(ctx, "ask whether a soft reboot is queued", func(m *Machine) error {
		queued = m.shutdown != nil && !m.shutdown.full
		return nil
	})
	return queued, err
}

func (s pid1) ShuttingDown(ctx context.Context) (under bool, err error) {
	err = s.do(ctx, "ask whether a shutdown is under way", func(m *Machine) error {
		under = m.shutdown != nil || m.preparing
		return nil
	})
	return under, err
}

// CancelShutdown loses its answer now and then: everything is done all the same.
func (s pid1) CancelShutdown(ctx context.Context, before []string) (left []string, err error) {
	err = s.do(ctx, "cancel the shutdown", func(m *Machine) error {
		if m.neverCancels {
			return errors.New("systemd continues the shutdown")
		}
		left = m.cancelShutdown(before)
		if m.chance("lost")%4 == 0 {
			m.tell("its answer is lost")
			return systemd.ErrUnresponsive
		}
		return nil
	})
	return left, err
}

func (s pid1) KillUnits(ctx context.Context, units []string) error {
	return s.do(ctx, "kill units", func(m *Machine) error {
		for _, v := range m.user.services {
			if slices.Contains(units, v.name) && !v.unkillable && v.state == deactivating {
				close(v.killed)
				v.killed = make(chan struct{})
			}
		}
		for _, p := range m.processesInOrder() {
			if p == s.p || p == m.guard {
				continue
			}
			if slices.Contains(units, systemd.ConfirmUnit) && p == m.user.confirm.process ||
				slices.Contains(units, systemd.ApplyUnit) && p.verb == "apply" && p.automatic {
				m.bury(p, true)
			}
		}
		return nil
	})
}

func (s pid1) UnitActive(ctx context.Context, unit string) (is bool, err error) {
	err = s.do(ctx, "ask about "+unit, func(m *Machine) error {
		is = unit == systemd.GuardUnit && m.guard != nil && !m.guard.dead && m.guard.notified
		return nil
	})
	return is, err
}

// Unmounted finds nothing: the disk of the machine is one file system.
func (s pid1) Unmounted(context.Context, string) (string, error) { return "", nil }

func (s pid1) ActiveUnits(ctx context.Context) (units []string, err error) {
	err = s.do(ctx, "list the active units", func(m *Machine) error {
		for _, v := range m.user.services {
			if v.state == active {
				units = append(units, v.name)
			}
		}
		return nil
	})
	return units, err
}

func (s pid1) UnitStops(context.Context) ([]systemd.UnitStop, error) { return nil, nil }

func (s pid1) Ending(context.Context) ([]ending.Ending, error) { return nil, nil }

func (s pid1) StartGuard(ctx context.Context) error {
	if err := s.enter(ctx, "start the guard"); err != nil {
		return err
	}
	m := s.p.m
	if m.shutdown != nil {
		defer m.mu.Unlock()
		return errDestructive
	}
	if old := m.guard; old != nil && !old.dead {
		m.terminate(old)
		if !s.p.wait(ctx, stopTimeout+time.Second, old.gone) {
			defer m.mu.Unlock()
			return systemd.ErrJob
		}
	}
	if m.isDeaf() {
		defer m.mu.Unlock()
		return systemd.ErrUnresponsive
	}
	g := m.spawn("guard", true, func(ctx context.Context, a *agent.Agent) error { return a.Guards.Run(ctx) })
	m.guard = g
	either := make(chan struct{})
	go func() {
		select {
		case <-g.ready:
		case <-g.gone:
		}
		close(either)
	}()
	s.p.wait(ctx, stopTimeout, either)
	defer m.mu.Unlock()
	if g.notified {
		return nil
	}
	m.bury(g, true)
	return fmt.Errorf("cannot start %s: %w", systemd.GuardUnit, systemd.ErrJob)
}

func (s pid1) HoldArmUnit(ctx context.Context) error {
	return s.do(ctx, "hold the arming unit", func(m *Machine) error {
		if m.shutdown != nil {
			return errDestructive
		}
		if m.arm.state == deactivating {
			return systemd.ErrJob
		}
		m.arm.state = active
		return nil
	})
}

func (s pid1) ReleaseArmUnit(ctx context.Context) error {
	if err := s.enter(ctx, "release the arming unit"); err != nil {
		return err
	}
	m := s.p.m
	if m.shutdown != nil && m.arm.state == active { // it is stopped after everything else
		user := m.user
		stopped := make(chan struct{})
		go func() {
			for pause(100*time.Millisecond, user.ended) {
				m.mu.Lock()
				held := m.arm.state == active || m.arm.state == deactivating
				m.mu.Unlock()
				if !held {
					break
				}
			}
			close(stopped)
		}()
		ended := s.p.wait(ctx, time.Hour, stopped)
		defer m.mu.Unlock()
		if !ended {
			return fmt.Errorf("cannot stop %s: %w", systemd.ArmUnit, ctx.Err())
		}
		return nil
	}
	stopped := m.stopArmUnit()
	ended := s.p.wait(ctx, time.Hour, stopped)
	defer m.mu.Unlock()
	switch {
	case !ended:
		return fmt.Errorf("cannot stop %s: %w", systemd.ArmUnit, ctx.Err())
	case m.arm.state == failed:
		return fmt.Errorf("cannot stop %s: %w", systemd.ArmUnit, systemd.ErrJob)
	}
	return nil
}

func (s pid1) BeginConfirm(ctx context.Context) error {
	return s.do(ctx, "start confirm", func(m *Machine) error {
		if m.shutdown != nil {
			return errDestructive
		}
		if m.user.confirm.state != active {
			go m.startConfirm(m.user)
		}
		return nil
	})
}

func (s pid1) AwaitConfirm(ctx context.Context) error {
	if err := s.BeginConfirm(ctx); err != nil {
		return err
	}
	for ended := false; !ended; {
		if !pause(time.Second, ctx.Done()) { // the unit begins within it
			return ctx.Err()
		}
		if err := s.do(ctx, "wait for confirm", func(m *Machine) error {
			ended = m.user.confirm.state != activating
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s pid1) EndConfirm(ctx context.Context) (bool, error) {
	if err := s.enter(ctx, "stop confirm"); err != nil {
		return false, err
	}
	m := s.p.m
	c := &m.user.confirm
	if c.state != activating {
		m.mu.Unlock()
		return false, nil
	}
	p := c.process
	c.process = nil
	m.terminate(p)
	c.state = inactive
	ended := s.p.wait(ctx, stopTimeout+time.Second, p.gone)
	defer m.mu.Unlock()
	if !ended {
		return true, ctx.Err()
	}
	return true, nil
}

func (s pid1) ForgetFailures(ctx context.Context) error {
	return s.do(ctx, "forget failures", func(m *Machine) error {
		m.user.failed = nil
		return nil
	})
}

func (s pid1) ForgetGone(ctx context.Context) error {
	return s.do(ctx, "forget units that are gone", func(*Machine) error { return nil })
}

func (s pid1) AskManager(ctx context.Context) (a systemd.Manager, err error) {
	err = s.do(ctx, "ask PID 1", func(m *Machine) error {
		a = systemd.Manager{State: m.systemState(), SoftReboot: m.shutdown != nil && !m.shutdown.full,
			Starting: m.startingUnits()}
		if m.shutdown != nil {
			a.Stopping = m.stoppingUnits(m.user, m.shutdown.full)
			if m.arm.state == deactivating {
				a.Stopping = append(a.Stopping, systemd.ArmUnit)
			}
		}
		return nil
	})
	return a, err
}

// systemState is systemd's word for the system. The machine is locked.
func (m *Machine) systemState() string {
	switch u := m.user; {
	case m.shutdown != nil:
		return "stopping"
	case len(m.startingUnits()) > 0:
		return "starting"
	case len(u.failed) > 0:
		return "degraded"
	}
	return "running"
}

// startingUnits lists the units whose start is under way. The machine is locked.
func (m *Machine) startingUnits() []string {
	u := m.user
	list := slices.Clone(u.hanging)
	if m.shutdown != nil {
		return nil
	}
	if !u.up && len(list) == 0 {
		list = append(list, "sysinit.target")
	}
	if u.confirm.state == activating {
		list = append(list, systemd.ConfirmUnit)
	}
	return list
}

func (s pid1) AskTrouble(ctx context.Context, since time.Duration) (t systemd.Trouble, err error) {
	err = s.do(ctx, "ask PID 1 what went wrong", func(m *Machine) error {
		for _, f := range m.user.failed {
			if f.at >= since {
				t.Failed = append(t.Failed, f.name)
			}
		}
		return nil
	})
	return t, err
}

func (s pid1) NotifyReady() error {
	s.p.enter("notify systemd")
	defer s.p.m.mu.Unlock()
	if !s.p.notified {
		s.p.notified = true
		close(s.p.ready)
	}
	return nil
}
