package simulation

import (
	"context"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/simulation/disk"
	"github.com/updatectl/updatectl/switcher"
)

// userspace is one run of userspace, from the start of PID 1 in a root to the next one.
type userspace struct {
	ended chan struct{}
	// up: multi-user.target is reached. starting is closed to take back the jobs that lead there.
	up       bool
	starting chan struct{}
	services []*service
	confirm  confirmUnit
	resume   *process
	failed   []failedUnit
	// hanging lists the units whose start does not end.
	hanging []string
}

// unitState is systemd's word for the state of a unit.
type unitState string

const (
	inactive     unitState = "inactive"
	activating   unitState = "activating"
	active       unitState = "active"
	deactivating unitState = "deactivating"
	failed       unitState = "failed"
)

// service is an ordinary service.
type service struct {
	name  string
	state unitState
	// stop is how long it takes to stop, less than 0 when it never does. Nothing can kill one that waits for a disk.
	stop       time.Duration
	unkillable bool
	killed     chan struct{}
}

// failedUnit is a unit that failed, and when.
type failedUnit struct {
	name string
	at   time.Duration
}

// armUnit is updatectl-arm.service.
type armUnit struct {
	state   unitState
	stopped chan struct{} // closed when its stop has ended
}

// confirmUnit is updatectl-confirm.service.
type confirmUnit struct {
	state   unitState
	process *process
}

// pause lets time pass unless a channel is closed. It reports whether the time passed.
func pause(d time.Duration, unless ...<-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var a, b <-chan struct{}
	if len(unless) > 0 {
		a = unless[0]
	}
	if len(unless) > 1 {
		b = unless[1]
	}
	select {
	case <-timer.C:
		for _, c := range unless { // both at once: what ends things counts
			select {
			case <-c:
				return false
			default:
			}
		}
		return true
	case <-a:
	case <-b:
	}
	return false
}

// bootKernel ends everything that runs and boots the kernel, which lands on the host root. Clean is after a sync of
// the disk; a power cut has none. The machine is locked.
func (m *Machine) bootKernel(clean bool) {
	m.reboots++
	close(m.power)
	m.endUserspace()
	for _, p := range m.processesInOrder() {
		m.bury(p, true)
	}
	m.guard = nil
	switch {
	case clean && m.disk.Hung() == nil:
		m.disk.Sync()
		m.tell("the kernel is booted")
	default:
		lost := m.disk.Cut(time.Now(), func(n int) int {
			if m.options.Unlucky {
				return 0
			}
			return int(m.chance("disk") % uint64(n))
		})
		m.tell("the machine starts anew; %d changes that were not synced are lost", lost)
	}
	m.power = make(chan struct{})
	m.startKernel()
}

// startKernel is a kernel that begins. The machine is locked.
func (m *Machine) startKernel() {
	m.boots++
	m.bootedAt, m.run, m.softReboots = time.Now(), disk.Files{}, 0
	m.run.MakeDir("/run")
	m.armed, m.half, m.modulesFrom = nil, false, ""
	m.panics, m.cut, m.dead, m.frozen, m.reexec, m.deafUntil = false, false, false, false, false, 0
	m.neverCancels, m.frozenUser = false, false
	m.disk.ReadOnly = false
	m.disk.Answer()
	m.locks = map[string]heldLock{}
	m.shutdown, m.preparing, m.arm = nil, false, armUnit{state: inactive}
	m.mounts++
	m.mounted = mountedRoot{id: switcher.HostRoot, etc: "host", mount: m.mounts}
	m.user = nil
	m.startsKernel()
	power, boot := m.power, m.between("firmware", 3*time.Second, 10*time.Second)
	if m.boots == 1 {
		boot = time.Millisecond
	}
	go func() {
		if !pause(boot, power) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.power == power && m.kernelComesUp() {
			m.startUserspace()
		}
	}()
}

func (m *Machine) processesInOrder() []*process {
	var list []*process
	for _, p := range m.running {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *process) int { return a.id - b.id })
	return list
}

// endUserspace ends what PID 1 is doing. The machine is locked.
func (m *Machine) endUserspace() {
	if m.user != nil {
		close(m.user.ended)
		m.user = nil
	}
	if m.shutdown != nil {
		m.shutdown.cancel()
		m.shutdown = nil
	}
}

// panicKernel is what the kernel does when init ends. The machine is locked.
func (m *Machine) panicKernel() {
	m.tell("the kernel panics")
	m.endUserspace()
	for _, p := range m.processesInOrder() {
		m.bury(p, true)
	}
	m.guard = nil
	if !m.panics {
		m.tell("nobody has asked it to boot again: the machine is dead until somebody comes")
		m.dead = true
		return
	}
	power := m.power
	go func() {
		if !pause(10*time.Second, power) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.power == power {
			m.bootKernel(false)
		}
	}()
}

// startUserspace starts userspace in the root that is mounted at /. The machine is locked.
func (m *Machine) startUserspace() {
	u := &userspace{ended: make(chan struct{}), starting: make(chan struct{})}
	u.confirm.state = inactive
	m.user = u
	m.shutdown, m.preparing, m.arm = nil, false, armUnit{state: inactive}
	names := []string{"db.service", "web.service"}
	if m.options.Filters {
		names = append(names, packetFilter)
	}
	for i, name := range names {
		stop := m.between(name, 50*time.Millisecond, 3*time.Second)
		if i == 0 && m.slowStop != 0 {
			stop = m.slowStop
		}
		u.services = append(u.services, &service{
			name: name, state: inactive, stop: stop, unkillable: i == 0 && m.unkillable, killed: make(chan struct{}),
		})
	}
	m.tell("userspace starts in %s", m.mounted.id)
	m.readUnits()
	if m.mounted.id != switcher.HostRoot && m.mounted.mount != m.arrived { // and not a soft reboot in the same root
		m.arrived = m.mounted.mount
		m.arrive()
	}
	go m.startUp(u, m.mounted.id, u.starting)
}

// arrive counts and judges an arrival in an image root. The machine is locked.
func (m *Machine) arrive() {
	id, etc := m.mounted.id, m.mounted.etc
	if m.rec == nil || m.rec.Switch == nil {
		m.breach("the host is in %s, and the record knows of no switch", id)
		return
	}
	isGood := slices.Contains(m.rec.Good, id)
	if want, known := m.goodEtc[id]; known && isGood && m.rec.Switch.Verb != record.VerbApply && etc != want {
		m.breach("%s is good and comes up with %s, where it was good with %s", id, etc, want)
	}
	if !isGood && (m.lastSetBy == nil || m.lastSetBy.automatic) {
		m.arrivals[id]++
		if m.arrivals[id] > record.MaxAttempts {
			m.breach("%s was gone to %d times without a person and never became good", id, m.arrivals[id])
		}
	}
}

// startUp starts the units of a root, as far as it lets them.
func (m *Machine) startUp(u *userspace, root string, starting chan struct{}) {
	m.mu.Lock()
	ill := m.ills[root]
	m.mu.Unlock()
	if !pause(m.between("init", 500*time.Millisecond, 2*time.Second), u.ended, starting) {
		return
	}
	if !m.sicken(u, ill) {
		return
	}
	if !m.resumeFirst(u) {
		return
	}
	if !pause(m.between("units", time.Second, 4*time.Second), u.ended, starting) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.user != u || m.shutdown != nil {
		return
	}
	for _, s := range u.services {
		s.state = active
	}
	switch ill {
	case Hangs:
		u.hanging = []string{"broken.service"}
		m.tell("broken.service starts and starts")
		return
	case Fails:
		u.failed = append(u.failed, failedUnit{"broken.service", m.sinceBoot()})
	}
	u.up = true
	m.tell("multi-user.target is reached in %s", root)
	go m.startConfirm(u)
}

// sicken does what an ill root does early. It reports whether the start goes on.
func (m *Machine) sicken(u *userspace, ill Illness) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.user != u {
		return false
	}
	switch ill {
	case Panics:
		m.panicKernel()
		return false
	case Restarts:
		m.tell("%s reboots the machine", m.mounted.id)
		m.bootKernel(true)
		return false
	case FillsDisk:
		m.disk.Fill(true)
	case CutsNetwork:
		m.cut = true
	case ReadOnly:
		m.disk.ReadOnly = true
	case HangsDisk:
		if m.disk.Hung() == nil {
			m.disk.Hang(false)
		}
	case Deafens:
		m.deafUntil = forEver
	}
	return true
}

// resumeFirst runs updatectl-resume.service, which its stamp in /run keeps from running again. It reports whether the
// start goes on.
func (m *Machine) resumeFirst(u *userspace) bool {
	m.mu.Lock()
	if m.user != u || m.shutdown != nil {
		m.mu.Unlock()
		return false
	}
	if m.stay || !m.disk.Now.Exists(record.RecordFile) || m.run.Exists(startedFile) {
		m.mu.Unlock()
		return true
	}
	p := m.spawn("resume", true, func(ctx context.Context, a *agent.Agent) error {
		_, err := a.Resume(ctx)
		return err
	})
	u.resume = p
	m.mu.Unlock()
	const startTimeout = 5 * time.Minute
	select {
	case <-p.gone:
	case <-u.ended:
		return false
	case <-time.After(startTimeout):
		m.mu.Lock()
		m.terminate(p)
		m.mu.Unlock()
	}
	m.jitter("after resume")
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user == u && m.shutdown == nil
}

// startedFile is what the resume unit's condition asks for.
const startedFile = switcher.RunDir + "/started"

// startConfirm runs updatectl-confirm.service, and runs it again when it is killed.
func (m *Machine) startConfirm(u *userspace) {
	if !pause(m.between("confirm", 10*time.Millisecond, 500*time.Millisecond), u.ended) {
		return
	}
	for {
		m.mu.Lock()
		if m.user != u || m.shutdown != nil || u.confirm.state == active || u.confirm.state == activating ||
			!m.disk.Now.Exists(record.RecordFile) {
			m.mu.Unlock()
			return
		}
		p := m.spawn("confirm", true, func(ctx context.Context, a *agent.Agent) error {
			_, err := a.Confirm(ctx)
			return err
		})
		if m.ills[m.mounted.id] == KillsConfirm && !slices.Contains(m.rec.Good, m.mounted.id) {
			p.doom = 1 + int(m.chance("doom")%12)
		}
		u.confirm = confirmUnit{activating, p}
		m.mu.Unlock()
		<-p.gone
		m.jitter(p.String())
		m.mu.Lock()
		again := m.user == u && u.confirm.process == p && p.killed
		switch {
		case u.confirm.process != p:
		case p.killed || p.err != nil:
			u.confirm.state = failed
		default:
			u.confirm.state = active
		}
		m.mu.Unlock()
		if !again || !pause(2*time.Second, u.ended) {
			return
		}
	}
}
