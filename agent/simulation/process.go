package simulation

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/machine"
)

// process is one run of the agent. It ends when its command returns, or when it is killed: at the next crossing of the
// seam, each of its goroutines ends, too.
type process struct {
	m    *Machine
	id   int
	verb string
	// automatic: a timer or a unit started it, and no person.
	automatic bool
	// gone is closed when the process has ended, one way or the other.
	gone   chan struct{}
	cancel context.CancelFunc

	// What follows is guarded by the machine's lock.

	dead bool
	// killed: a signal ended it. Otherwise err is how its command ended.
	killed bool
	err    error
	// calls counts crossings of the seam; the process is killed at the one called doom, 0 for none.
	calls, doom int
	// ready is closed when the process has notified systemd.
	ready    chan struct{}
	notified bool
}

// spawn starts a process. The machine is locked.
func (m *Machine) spawn(verb string, automatic bool, run func(context.Context, *agent.Agent) error) *process {
	m.processes++
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{
		m: m, id: m.processes, verb: verb, automatic: automatic,
		gone: make(chan struct{}), ready: make(chan struct{}), cancel: cancel,
	}
	m.running[p.id] = p
	p.doom = m.dooms[verb]
	delete(m.dooms, verb)
	m.tell("%s starts", p)
	go func() {
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.bury(p, false)
		}()
		m.jitter(p.String())
		err := run(ctx, p.agent())
		m.mu.Lock()
		p.err = err
		m.mu.Unlock()
	}()
	return p
}

func (p *process) String() string { return fmt.Sprintf("%s[%d]", p.verb, p.id) }

// bury ends a process. The machine is locked.
func (m *Machine) bury(p *process, killed bool) {
	if p.dead {
		return
	}
	p.dead, p.killed = true, killed
	for name, holder := range m.locks {
		if holder.process == p {
			delete(m.locks, name)
		}
	}
	delete(m.running, p.id)
	p.cancel()
	close(p.gone)
	switch {
	case killed:
		m.tell("%s is killed", p)
	case p.err != nil:
		m.tell("%s ends: %v", p, p.err)
	default:
		m.tell("%s ends well", p)
	}
}

// terminate sends SIGTERM, and SIGKILL when that is not enough. The machine is locked.
func (m *Machine) terminate(p *process) {
	if p == nil || p.dead {
		return
	}
	m.tell("%s gets SIGTERM", p)
	p.cancel()
	go func() {
		select {
		case <-p.gone:
		case <-time.After(stopTimeout):
			m.jitter(p.String()) // a shutdown looks at this very time whether the process has ended
			m.mu.Lock()
			defer m.mu.Unlock()
			m.bury(p, true)
		}
	}()
}

// stopTimeout is systemd's DefaultTimeoutStopSec=.
const stopTimeout = 90 * time.Second

// agent returns the agent that a process runs, on the machine as that process sees it.
func (p *process) agent() *agent.Agent {
	m := p.m
	c := m.config()
	seam := machine.Machine{
		Root: m.publisher.root, Running: true, Superuser: true, Systemd: pid1{p}, Kernel: kernel{p}, Mounts: mounts{p},
		Units: units{p}, Groups: groups{p},
		Disk: processDisk{p}, Trees: trees{p}, Boot: boot{p}, Now: m.now,
		Gate: func(c health.Config) health.Gate { return p.gate(c) },
	}
	if m.options.Holds || m.options.Filters {
		seam.Ports, seam.Observe = ports{p}, p.observe
	}
	return agent.On(seam, c, p.log())
}

// enter is a crossing of the seam, before anything happens behind it. It takes some time, in which the process may
// die, and returns with the machine locked.
func (p *process) enter(op string) {
	m := p.m
	time.Sleep(m.latency(p, op) + m.holdUp(p, op))
	m.mu.Lock()
	if p.dead {
		m.mu.Unlock()
		runtime.Goexit()
	}
	p.calls++
	m.crossings++
	if m.Trace != nil {
		m.Trace(p.verb, op)
	}
	switch {
	case m.faultAt == m.crossings && m.fault == PowerCut:
		m.tell("the power is cut as %s is about to %s", p, op)
		m.bootKernel(false)
	case m.faultAt == m.crossings && m.fault == Kill, p.doom > 0 && p.calls == p.doom:
		m.tell("%s is about to %s", p, op)
		m.killedGuard, m.killedArm = m.killedGuard || p == m.guard, m.killedArm || p.verb == "arm"
		m.bury(p, true)
	default:
		return
	}
	m.mu.Unlock()
	runtime.Goexit()
}

// holdUp returns how much longer than usual a crossing of the seam takes.
func (m *Machine) holdUp(p *process, op string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := p.verb + " " + op
	by, held := m.holdUps[key]
	if held {
		delete(m.holdUps, key)
		m.tell("%s takes %v to %s", p, by, op)
	}
	return by
}

// ask is [process.enter] for questions that others wait for: they get an error where the process has died.
func (p *process) ask(op string) error {
	m := p.m
	time.Sleep(m.latency(p, op))
	m.mu.Lock()
	if p.dead {
		m.mu.Unlock()
		return errDied
	}
	return nil
}

var errDied = fmt.Errorf("the process has died")

// wait lets time pass for a process inside a call, with the machine unlocked, until one of the channels is closed.
// It reports whether that was so; otherwise the time was over or the context ended.
func (p *process) wait(ctx context.Context, limit time.Duration, until <-chan struct{}) bool {
	p.m.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	reached := false
	select {
	case <-until:
		reached = true
	case <-timer.C:
	case <-ctx.Done():
	case <-p.gone:
	}
	p.m.jitter(p.String())
	p.m.mu.Lock()
	if p.dead {
		p.m.mu.Unlock()
		runtime.Goexit()
	}
	return reached
}

// log writes the events that the agent logs into the journal, and all that it logs into the story.
func (p *process) log() *zap.Logger {
	events := eventtest.Core(p.journal)
	if !p.m.options.Story {
		return zap.New(events)
	}
	encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{LevelKey: "L", MessageKey: "M",
		EncodeLevel: zapcore.CapitalLevelEncoder, ConsoleSeparator: " "})
	return zap.New(zapcore.NewTee(zapcore.NewCore(encoder, storyWriter{p}, zapcore.InfoLevel), events))
}

// journal adds an event to the journal.
func (p *process) journal(l eventtest.Logged) {
	m := p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.dead {
		m.journal = append(m.journal, l)
	}
}

type storyWriter struct{ p *process }

func (w storyWriter) Write(line []byte) (int, error) {
	m := w.p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if !w.p.dead {
		m.tell("  %s: %s", w.p, trimLine(line))
	}
	return len(line), nil
}

func (storyWriter) Sync() error { return nil }
