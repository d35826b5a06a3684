package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/updatectl/updatectl/agent"
	systemd "github.com/updatectl/updatectl/switcher/pid1"
)

// shutdown is the end of a userspace that PID 1 works on.
type shutdown struct {
	full      bool
	once      sync.Once
	cancelled chan struct{}
	// final: all units have stopped, and nobody can take it back.
	final bool
}

func (s *shutdown) cancel() { s.once.Do(func() { close(s.cancelled) }) }

func (s *shutdown) String() string {
	if s.full {
		return "full reboot"
	}
	return "soft reboot"
}

// errDestructive is what PID 1 says to a job that does not go with an irreversible one.
var errDestructive = errors.New("the transaction is destructive")

// queue begins a shutdown. The machine is locked.
func (m *Machine) queue(full bool) error {
	switch {
	case m.user == nil:
		return systemd.ErrUnresponsive
	case m.shutdown != nil && m.shutdown.full == full:
		return nil
	case m.shutdown != nil:
		return fmt.Errorf("%w: a %s is under way", errDestructive, m.shutdown)
	}
	s := &shutdown{full: full, cancelled: make(chan struct{})}
	m.shutdown, m.preparing = s, false
	m.tell("a %s is queued", s)
	close(m.user.starting)
	m.user.starting = make(chan struct{})
	go m.runShutdown(s, m.user)
	return nil
}

// forcedAfter is the JobTimeoutSec= of soft-reboot.target and reboot.target.
const forcedAfter = 30 * time.Minute

// runShutdown stops all units, the arming unit last, and ends the userspace.
func (m *Machine) runShutdown(s *shutdown, u *userspace) {
	m.jitter(s.String())
	m.mu.Lock()
	if m.shutdown != s {
		m.mu.Unlock()
		return
	}
	for _, p := range m.processesInOrder() {
		if p != m.guard || s.full {
			if p.verb != "arm" {
				m.terminate(p)
			}
		}
	}
	if u.confirm.state == active {
		u.confirm.state = inactive
	}
	for _, v := range u.services {
		m.stopService(u, v)
	}
	m.mu.Unlock()
	forced := time.Now().Add(forcedAfter)
	for {
		m.mu.Lock()
		waits := m.stoppingUnits(u, s.full)
		m.mu.Unlock()
		if len(waits) == 0 || time.Now().After(forced) {
			break
		}
		if !pause(100*time.Millisecond, u.ended, s.cancelled) {
			return
		}
	}
	m.mu.Lock()
	if m.shutdown != s {
		m.mu.Unlock()
		return
	}
	stopped := m.stopArmUnit()
	m.mu.Unlock()
	select {
	case <-stopped:
	case <-u.ended:
		return
	case <-s.cancelled:
		return
	}
	if !pause(m.between("final", 10*time.Millisecond, 300*time.Millisecond), u.ended, s.cancelled) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shutdown != s {
		return
	}
	s.final = true
	if s.full {
		m.bootKernel(true)
		return
	}
	m.executeAnew()
}

// stoppingUnits lists what a shutdown waits for. The machine is locked.
func (m *Machine) stoppingUnits(u *userspace, full bool) []string {
	var list []string
	for _, v := range u.services {
		if v.state == deactivating {
			list = append(list, v.name)
		}
	}
	for _, p := range m.processesInOrder() {
		switch {
		case p.verb == "arm", p == m.guard && !full:
		case p == m.guard:
			list = append(list, systemd.GuardUnit)
		case p == u.confirm.process:
			list = append(list, systemd.ConfirmUnit)
		case p == u.resume:
			list = append(list, "updatectl-resume.service")
		case p.automatic:
			list = append(list, systemd.ApplyUnit)
		default:
			list = append(list, "session.scope")
		}
	}
	return list
}

// stopService begins the stop of a service. The machine is locked.
func (m *Machine) stopService(u *userspace, v *service) {
	if v.state != active {
		return
	}
	v.state = deactivating
	limit, kill := v.stop, v.killed
	if limit < 0 {
		limit = forEver
	}
	go func() {
		killed := false
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-kill:
			killed = true
		case <-u.ended:
			return
		}
		m.jitter(v.name)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.user == u && v.state == deactivating {
			v.state = inactive
			m.tell("%s has stopped (killed: %v)", v.name, killed)
		}
	}()
}

// stopArmUnit stops the arming unit, and returns a channel that is closed when that is done. The machine is locked.
func (m *Machine) stopArmUnit() <-chan struct{} {
	done := make(chan struct{})
	switch m.arm.state {
	case deactivating:
		return m.arm.stopped
	case active:
	default:
		close(done)
		return done
	}
	m.arm = armUnit{deactivating, done}
	slow := m.slowArming
	m.slowArming = 0
	p := m.spawn("arm", false, func(ctx context.Context, a *agent.Agent) error {
		time.Sleep(slow)
		return a.Transition.Arm(ctx)
	})
	go func() {
		select {
		case <-p.gone:
		case <-time.After(stopTimeout): // KillSignal=SIGKILL
			m.mu.Lock()
			m.bury(p, true)
			m.mu.Unlock()
		}
		m.jitter(p.String())
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.arm.stopped != done { // another userspace has begun
			return
		}
		m.arm.state = inactive
		if p.killed || p.err != nil {
			m.arm.state = failed
		}
		close(done)
	}()
	return done
}

// executeAnew is the end of a soft reboot: what still runs is killed but for the guard, and PID 1 is executed anew, in
// the root that is armed, or where that cannot be, in the same one again. The machine is locked.
func (m *Machine) executeAnew() {
	m.endUserspace()
	m.reboots++
	m.softReboots++
	to, fails := m.mounted, ""
	if next := m.armed; next != nil {
		ill := m.ills[next.next.ID]
		switch {
		case ill == FallsBack:
			fails = "does not take " + next.next.ID
		default:
			m.mounts++
			to = mountedRoot{id: next.next.ID, etc: next.etc, mount: m.mounts, volatile: next.next.Volatile}
			m.modulesFrom = m.modulesOf(to.id)
			m.used[to.id] = m.used[to.id] || !to.volatile
			m.armed = nil
		}
	}
	survives := m.options.Systemd > 254 && m.ills[to.id] != EndsGuard
	for _, p := range m.processesInOrder() {
		if p != m.guard || !survives {
			m.bury(p, true)
		}
	}
	if m.guard != nil && m.guard.dead {
		m.guard = nil
	}
	m.mounted = to
	m.tell("systemd is executed anew: %s is mounted at / %s", to.id, fails)
	m.arm, m.reexec = armUnit{state: inactive}, true
	m.deafUntil = 0
	if m.ills[to.id] == Freezes {
		m.tell("PID 1 finds no init and freezes")
		m.frozen, m.reexec = true, false
		return
	}
	power, deaf := m.power, m.between("re-execution", 200*time.Millisecond, 3*time.Second)
	go func() {
		if !pause(deaf, power) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.power == power {
			m.reexec = false
			m.startUserspace()
		}
	}()
}

// modulesOf returns where the modules of the running kernel come from in a root that the host moves into, "" for its
// own.
func (m *Machine) modulesOf(id string) string {
	switch {
	case m.hasModules(id):
		return ""
	case m.modulesFrom != "":
		return m.modulesFrom
	}
	return m.mounted.id
}

// cancelShutdown takes a shutdown back. The machine is locked.
func (m *Machine) cancelShutdown(before []string) (left []string) {
	s, u := m.shutdown, m.user
	if s != nil {
		m.tell("the %s is cancelled", s)
		s.cancel()
		m.shutdown = nil
	}
	for _, v := range u.services {
		switch {
		case v.state == deactivating:
			left = append(left, v.name)
		case v.state == inactive && (slices.Contains(before, v.name) || u.up):
			v.state = active
		}
	}
	if m.arm.state == deactivating {
		left = append(left, systemd.ArmUnit)
	}
	if !u.up {
		go m.startUp(u, m.mounted.id, u.starting)
		return left
	}
	go m.startConfirm(u)
	return left
}
