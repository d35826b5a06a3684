// Package simulation is a machine behind the agent's seam that exists in memory only: a disk with a page cache,
// systemd with its soft reboot and the silent ways in which that fails, logind, a kernel that can panic, roots that
// are ill, and a power supply. The agent's own commands run on it as processes that can be killed at every crossing
// of the seam. Run in a bubble of testing/synctest, a history of hours takes milliseconds, and the same seed gives
// the same history.
//
// It is for tests; nothing else imports it.
package simulation

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/simulation/disk"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Options are what is the same for a machine's whole life.
type Options struct {
	Seed uint64
	// Systemd is its major version: before 256 it does not count soft reboots, and 254 ends the guard with the root.
	Systemd int
	// Stuck and Fallback are those of [switch] in the configuration.
	Stuck, Fallback string
	// Sluggish: a call may take seconds now and then.
	Sluggish bool
	// Keeps: the operator has a socket kept over switches.
	Keeps bool
	// Holds: the operator has connections held, at the port of the first service.
	Holds bool
	// Filters: the machine has a packet filter, and the operator has all connections held while it is away.
	Filters bool
	// Kernels: every image brings a kernel of its own. NoOnce: the boot loader cannot start one once. FullBoot: there is
	// no room for it on the host root. OldHost: the updatectl of the host root does not know kernels of images.
	Kernels, NoOnce, FullBoot, OldHost bool
	// Prompt: nobody has asked logind for a moment before a reboot begins.
	Prompt bool
	// Unlucky: a power cut loses all that it can. Otherwise that is by chance.
	Unlucky bool
	// Story: keep a story of what happens, for people.
	Story bool
}

// Fault is what happens at a crossing of the seam.
type Fault string

// The faults.
const (
	Kill     Fault = "kill"      // the process is killed
	PowerCut Fault = "power cut" // the machine starts anew
)

// Machine is the simulated machine. Its methods are for whoever plays the world around it.
type Machine struct {
	// Trace, when not nil, is called at every crossing of the seam, with the machine locked.
	Trace func(verb, op string)

	options   Options
	publisher *Publisher
	began     time.Time
	sluggish  atomic.Bool

	mu sync.Mutex
	// story is what happened, line by line; broken is what must not have happened.
	story, broken []string
	// journal is what happened, for programs. No fault takes anything from it.
	journal []eventtest.Logged

	// The world around: the version that is published, how far the wall clock is off, and who is ill of what.
	published string
	clock     time.Duration
	ills      map[string]Illness
	// illKernels are kernels that do not come up, by their release.
	illKernels map[string]Illness
	damaged    map[string]bool // the roots that are not what was signed any more

	// Faults: the fault at a crossing of the seam, counted from 1; and the next processes of a verb to be killed.
	fault     Fault
	faultAt   int
	crossings int
	dooms     map[string]int
	// holdUps are how much longer the next such crossing of the seam takes, by verb and operation; losesAnswer: the
	// answer to the next request for a reboot is lost.
	holdUps     map[string]time.Duration
	losesAnswer bool
	// slowFetch is how much longer a part of an image takes to arrive.
	slowFetch time.Duration

	disk   *disk.Disk
	loader loader

	processes int
	running   map[int]*process
	locks     map[string]heldLock

	// What a full reboot makes new.

	boots       int
	kernel      rootfs.Kernel
	commandLine string
	once        bool // whether the kernel was started only once
	bootedAt    time.Time
	run         disk.Files
	softReboots int
	mounted     mountedRoot
	arrived     int // the mount that was counted as an arrival last
	mounts      int // how many roots were mounted at /
	armed       *armedRoot
	half        bool   // a root is half put together
	modulesFrom string // where the modules of the running kernel are bound from, "" for the root at /
	panics      bool   // the kernel boots again when it panics
	cut         bool   // the network is, by rules in the kernel
	stay        bool   // updatectl.resume=0 on the kernel's command line
	dead        bool   // it panicked, and waits for a person
	power       chan struct{}

	// PID 1.

	user      *userspace
	shutdown  *shutdown
	preparing bool // logind has announced a reboot
	inhibited bool
	frozen    bool
	reexec    bool          // PID 1 is being executed anew
	deafUntil time.Duration // since boot
	// neverCancels: PID 1 goes on with a shutdown that it is asked to cancel.
	neverCancels bool
	arm          armUnit
	guard        *process

	// What is counted for whoever judges a history.

	rec      *record.Record
	goodEtc  map[string]string
	arrivals map[string]int // of the automatic kind, in roots that were never good
	reboots  int
	etcs     int
	// used are the image roots that ran on the state of the machine itself, and not on a copy.
	used map[string]bool
	// left are the image roots that an operator rolled back from.
	left map[string]bool
	// killedGuard and killedArm: a guard, or an arming step, was killed.
	killedGuard, killedArm bool
	lastSetBy              *process // the process that began the switch in the record

	// slowStop is how long the first service takes to stop, 0 for the usual; unkillable, whether a kill ends it.
	slowStop   time.Duration
	unkillable bool
	// slowArming is how long the next arming unit takes before it begins.
	slowArming time.Duration

	// lingers: a user runs something that no shutdown stops; frozenUser: it is frozen, until somebody thaws it.
	lingers, frozenUser bool

	// held: systemd does not look for connections to the kept socket.
	held bool
	// holds is what processes have held at ports.
	holds []*held
}

// mountedRoot is what is mounted at /.
type mountedRoot struct {
	id, etc  string
	mount    int
	volatile bool // on a throw-away copy of the state
}

// armedRoot is what is mounted at /run/nextroot.
type armedRoot struct {
	next assembly.Next
	etc  string
}

// Snapshot is a machine that rests.
type Snapshot struct {
	machine *Machine
	disk    disk.Files
	run     disk.Files
}

// Snapshot returns what the machine is now. It rests.
func (m *Machine) Snapshot() *Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Snapshot{m, m.disk.Now.Clone(), m.run.Clone()}
}

// NewFrom returns a machine that goes on from a snapshot: userspace has been up for some time.
func NewFrom(s *Snapshot, o Options, p *Publisher) *Machine {
	old := s.machine
	m := New(o, p)
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.power) // the host root that starts
	m.power = make(chan struct{})
	m.bootedAt = m.began.Add(-time.Hour)
	m.clock = 24 * time.Hour
	m.disk = disk.New(s.disk)
	m.run = s.run.Clone()
	m.loader, m.kernel, m.commandLine = old.loader.clone(), old.kernel, old.commandLine
	m.softReboots, m.mounted, m.mounts, m.modulesFrom = old.softReboots, old.mounted, old.mounts, old.modulesFrom
	m.arrived = m.mounted.mount
	m.rec, m.etcs, m.published = old.rec, old.etcs, old.published
	for id, etc := range old.goodEtc {
		m.goodEtc[id] = etc
	}
	for id, ill := range old.ills {
		m.ills[id] = ill
	}
	m.startUserspace()
	m.user.up, m.user.confirm.state = true, active
	for _, v := range m.user.services {
		v.state = active
	}
	close(m.user.starting)
	m.user.starting = make(chan struct{})
	return m
}

// New returns a machine that was installed and runs its host root. Nothing was staged on it yet.
func New(o Options, p *Publisher) *Machine {
	m := &Machine{
		options: o, publisher: p, began: time.Now(), ills: map[string]Illness{}, damaged: map[string]bool{},
		dooms: map[string]int{}, holdUps: map[string]time.Duration{}, disk: disk.New(disk.Files{}),
		running: map[int]*process{}, locks: map[string]heldLock{},
		goodEtc: map[string]string{}, arrivals: map[string]int{}, left: map[string]bool{}, used: map[string]bool{},
		power: make(chan struct{}), illKernels: map[string]Illness{}, loader: newLoader(),
	}
	m.sluggish.Store(o.Sluggish)
	m.disk.Change(time.Now(), func(f disk.Files) { f.MakeDir("/etc"); f.MakeDir("/var/lib/updatectl") })
	m.disk.Sync()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.startKernel()
	return m
}

// config is what the operator of the machine wants.
func (m *Machine) config() config.Config {
	c := config.Default()
	c.Source.Image = m.publisher.reference(m.published)
	c.Verify.Keys = []string{keyFile}
	c.Switch.Stuck, c.Switch.Fallback = m.options.Stuck, m.options.Fallback
	c.Switch.ShutdownDeadline, c.Health.Deadline = config.Duration(15*time.Second), config.Duration(20*time.Second)
	c.Health.Settle = config.Duration(2 * time.Second)
	c.LivePatch.Deadline = config.Duration(10 * time.Second)
	if m.options.Kernels {
		c.Boot.Kernel = config.KernelImage
	}
	if m.options.Keeps {
		c.Keep = []config.KeepRule{{Unit: socket}}
	}
	if m.options.Holds {
		c.Switch.Hold = []string{config.HoldListening}
	}
	c.Switch.HoldFirewall = m.options.Filters
	return c
}

// now is the wall clock.
func (m *Machine) now() time.Time {
	const installed = 26 * 365 * 24 * time.Hour // bubbles of synctest begin in 2000
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(installed + m.clock)
}

// sinceBoot is the clock that nobody sets.
func (m *Machine) sinceBoot() time.Duration { return time.Since(m.bootedAt) }

// chance is a number that depends on the seed, on what it is for and on when it is asked for, and on nothing else: so
// the order in which goroutines run does not matter.
func (m *Machine) chance(what string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	x := offset ^ m.options.Seed*prime ^ uint64(time.Since(m.began))
	for i := range len(what) {
		x = (x ^ uint64(what[i])) * prime
	}
	for range 2 { // and as well mixed as murmur's end
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
	}
	return x ^ x>>33
}

// latency is how long a crossing of the seam takes.
func (m *Machine) latency(p *process, op string) time.Duration {
	x := m.chance(p.String() + op)
	d := 100*time.Microsecond + time.Duration(x%uint64(time.Millisecond))
	if x >>= 32; m.sluggish.Load() && x%100 == 0 {
		d += time.Duration(x/100%uint64(1000)) * 5 * time.Millisecond
		if x%1000 == 0 {
			d *= 10
		}
	}
	return d
}

// jitter keeps what happens at once in an order.
func (m *Machine) jitter(what string) {
	time.Sleep(time.Duration(1 + m.chance(what)%uint64(100*time.Microsecond)))
}

// between is a time that depends on the seed.
func (m *Machine) between(what string, least, most time.Duration) time.Duration {
	return least + time.Duration(m.chance(what)%uint64(most-least))
}

// tell adds a line to the story. The machine is locked.
func (m *Machine) tell(format string, args ...any) {
	if !m.options.Story {
		return
	}
	m.story = append(m.story, fmt.Sprintf("%4d  %9.3fs  %s", len(m.story)+1, time.Since(m.began).Seconds(),
		m.shorten(fmt.Sprintf(format, args...))))
}

// breach notes what must not happen. The machine is locked.
func (m *Machine) breach(format string, args ...any) {
	text := m.shorten(fmt.Sprintf(format, args...))
	m.broken = append(m.broken, text)
	m.tell("WRONG: %s", text)
}

// shorten calls roots by their versions.
func (m *Machine) shorten(text string) string {
	if !m.options.Story {
		return text
	}
	for id, version := range m.publisher.versions {
		text = strings.ReplaceAll(text, id, version)
	}
	return strings.ReplaceAll(text, record.StateDir+"/", "")
}

func trimLine(line []byte) string { return strings.TrimSpace(string(line)) }

// recorded looks at a record that a process has just written. The machine is locked.
func (m *Machine) recorded(p *process, text []byte) {
	rec := &record.Record{}
	if err := json.Unmarshal(text, rec); err != nil || len(rec.Good) == 0 {
		m.breach("%s writes a record that cannot be read: %v", p, err)
		return
	}
	if rec.Switch != nil && (m.rec == nil || m.rec.Switch == nil || !m.rec.Switch.At.Equal(rec.Switch.At)) {
		m.lastSetBy = p
	}
	if s := rec.Switch; s != nil && rec.Phase == record.PhaseArmed && s.Verb == record.VerbApply && m.left[s.Target] {
		if m.lastSetBy != nil && m.lastSetBy.automatic {
			m.breach("%s goes to %s, which an operator has rolled back from", p, s.Target)
		}
		delete(m.left, s.Target)
	}
	m.rec = rec
	m.tell("%s writes the record: %s", p, describeRecord(rec))
	m.checkRecord(p)
	if m.mounted.volatile && rec.LastGood() == m.mounted.id && (m.goodEtc[m.mounted.id] == "") {
		m.breach("%s calls %s good, which only ran on a copy of the state", p, m.mounted.id)
	}
	if !m.mounted.volatile && rec.Switch != nil && rec.Phase == record.PhaseGood && rec.Switch.Target == m.mounted.id &&
		slices.Contains(rec.Good, m.mounted.id) {
		m.goodEtc[m.mounted.id] = m.mounted.etc
		delete(m.arrivals, m.mounted.id)
	}
}

// checkRecord looks at whether all that a record names as good is there. The machine is locked.
func (m *Machine) checkRecord(who fmt.Stringer) {
	for _, id := range m.rec.Good {
		if id != switcher.HostRoot && !m.complete(id) {
			m.breach("after %s the record calls %s good, which is not on the disk", who, id)
		}
	}
	if m.modulesFrom != "" && m.modulesFrom != switcher.HostRoot && !m.complete(m.modulesFrom) {
		m.breach("after %s the root whose modules the running kernel uses is gone: %s", who, m.modulesFrom)
	}
	if m.mounted.id != switcher.HostRoot && !m.complete(m.mounted.id) {
		m.breach("after %s the root that runs is not on the disk: %s", who, m.mounted.id)
	}
}

// complete reports whether a root is on the disk as a whole. The machine is locked.
func (m *Machine) complete(id string) bool {
	dir := path.Join(record.StateDir, "roots", id)
	return m.disk.Now.Exists(dir+"/image.json") && m.disk.Now.Exists(dir+"/root.cfs")
}

// describeRecord is a record in a line of a story.
func describeRecord(r *record.Record) string {
	text := string(r.Phase)
	if s := r.Switch; s != nil && r.Moving() {
		text += fmt.Sprintf(" (%s from %s to %s)", s.Verb, s.From, s.Target)
	}
	text += fmt.Sprintf(", good %v", r.Good)
	if r.Staged != "" {
		text += ", staged " + r.Staged
	}
	if len(r.Bad) > 0 {
		var bad []string
		for id := range r.Bad {
			bad = append(bad, id)
		}
		slices.Sort(bad)
		text += fmt.Sprintf(", bad %v", bad)
	}
	if r.Last != nil && !r.Moving() {
		text += fmt.Sprintf(", last %s: %s", r.Last.Target, r.Last.Outcome)
	}
	return text
}
