// Package health judges a root that is being tried: has everything started, are the units active that must be, and can
// everything be reached that could be reached before? It promises one report within its deadline, whatever the checks
// do, and changes nothing itself.
//
// [Observe] notes before a switch what the new root is compared with; [Gate.Run] judges after it.
package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/listening"
	"github.com/updatectl/updatectl/agent/network"
	"github.com/updatectl/updatectl/agent/systemd"
)

// Config says what a root must do to be good. It is the [health] table of the configuration.
type Config struct {
	// Deadline bounds all checks together.
	Deadline time.Duration
	// CheckDeadline bounds each run of a check program.
	CheckDeadline time.Duration
	// Settle is how long services are watched for restarts, and thereby the pause between two rounds.
	Settle time.Duration
	// Active lists units that must be active.
	Active []string
	// Ports lists the TCP ports that must accept connections: "22" or "tcp:22" on this host, "192.0.2.1:80" on another.
	Ports []string
	// Reachable is [ReachableAuto], so that what could be reached before the switch must be reachable after it, or
	// [ReachableOff].
	Reachable string
	// Ignore lists units, as patterns like "fwupd*.service", that may fail.
	Ignore []string
}

// The values of [Config.Reachable].
const (
	ReachableAuto = "auto"
	ReachableOff  = "off"
)

// DefaultConfig returns the configuration before any file is read. systemd restarts a service that dies at once after
// 100 ms and gives up after five starts within ten seconds, unless its unit says otherwise (systemd.service(5)): five
// seconds are enough to see a restart loop.
func DefaultConfig() Config {
	return Config{Deadline: 5 * time.Minute, CheckDeadline: time.Minute, Settle: 5 * time.Second, Reachable: ReachableAuto}
}

// Validate returns an error that names the first key with an invalid value, and why.
func (c Config) Validate() error {
	if c.Reachable != ReachableAuto && c.Reachable != ReachableOff {
		return fmt.Errorf("reachable: %q is neither %q nor %q", c.Reachable, ReachableAuto, ReachableOff)
	}
	for _, p := range c.Ports {
		if _, err := addresses(p); err != nil {
			return fmt.Errorf("ports: %w", err)
		}
	}
	for _, p := range c.Ignore {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("ignore: %q: %w", p, err)
		}
	}
	for _, u := range c.Active {
		if !strings.Contains(u, ".") {
			return fmt.Errorf("active: %q has no suffix: name the unit as %s.service", u, u)
		}
	}
	return nil
}

// Before is what was true before the switch. What had failed by then does not count against the new root.
type Before struct {
	// Failed lists the units that had failed, Restarting the services that kept crashing and being restarted.
	Failed     []string `json:"failed_units,omitempty"`
	Restarting []string `json:"restarting_units,omitempty"`
	// Reachable lists what answered: "gateway 192.0.2.1", "registry.example.org:443".
	Reachable []string `json:"reachable,omitempty"`
	// Uplinks are the interfaces of the default routes.
	Uplinks []network.Uplink `json:"uplinks,omitempty"`
	// Running lists the services that ran and the sockets that waited, Ports where services listened; neither has those of
	// users, sessions and containers.
	Running []string         `json:"running_units,omitempty"`
	Ports   []listening.Port `json:"ports,omitempty"`
	// Repaired lists the units that had failed when the root that is left became good, and that somebody repaired since.
	Repaired []string `json:"repaired_units,omitempty"`
	// FailedWhenGood lists the units that had failed when the root to judge was last good, and Repaired.
	FailedWhenGood []string `json:"-"`
	// Unknown is whether nothing was observed before the switch. A unit that fails is then only a warning.
	Unknown bool `json:"unknown,omitempty"`
}

// State is what a good root is like, to compare it with when it runs again.
type State struct {
	// Failed lists the units that have failed in the root, whether they count or not.
	Failed []string `json:"failed_units,omitempty"`
	// Uplinks are the interfaces of the default routes.
	Uplinks []network.Uplink `json:"uplinks,omitempty"`
}

// Verdict is the result of a check.
type Verdict string

// The verdicts. Only Fail makes a root unhealthy.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
)

// The kinds of checks.
const (
	KindBoot    = "boot"
	KindUnits   = "units"
	KindPort    = "port"
	KindNetwork = "network"
	KindUplink  = "uplink"
	KindCheck   = "check"
)

// Result is the result of one check.
type Result struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Verdict Verdict `json:"verdict"`
	// Reason is why it is not ok.
	Reason string `json:"reason,omitempty"`
	// Output is the end of a check program's output. What a terminal would obey is escaped.
	Output string `json:"output,omitempty"`
	// Took is how long it took, in nanoseconds.
	Took time.Duration `json:"took_ns"`

	// final is whether another round cannot change it, cutShort whether the deadline came before the answer.
	final, cutShort bool
}

// Report is what [Gate.Run] found.
type Report struct {
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"`
	Results []Result      `json:"results"`
	// State is what the root was like at the last round of checks.
	State State `json:"-"`
}

// Healthy reports whether no check failed. Without any result a root is not healthy.
func (r Report) Healthy() bool { return len(r.Results) > 0 && len(r.failed()) == 0 }

// namedFailures is how many failures [Report.Reason] names; the report has them all.
const namedFailures = 3

// Reason names the checks that failed, and why; it is "" when none did.
func (r Report) Reason() string {
	var parts []string
	failed := r.failed()
	for _, f := range failed[:min(len(failed), namedFailures)] {
		parts = append(parts, f.Name+": "+f.Reason)
	}
	if more := len(failed) - namedFailures; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	if len(r.Results) == 0 {
		return "nothing was checked"
	}
	return strings.Join(parts, "; ")
}

// CutOff reports whether the host has lost its network: every address that could be reached before the switch was
// tried, and none answered.
func (r Report) CutOff() bool {
	asked := slices.DeleteFunc(slices.Clone(r.Results), func(r Result) bool { return r.Kind != KindNetwork })
	return len(asked) > 0 && !slices.ContainsFunc(asked, func(r Result) bool { return r.Verdict != Fail || r.cutShort })
}

func (r Report) failed() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(r Result) bool { return r.Verdict != Fail })
}

// Gate judges the running root. [New] makes the gate of this host.
type Gate struct {
	Config Config
	// Root is the directory of the root that has the check programs.
	Root string
	// Since is when this root started, as the time since the kernel booted; 0 when the kernel booted into it. A unit that
	// failed earlier failed in another root.
	Since time.Duration
	// Systemd is PID 1.
	Systemd systemd.Manager
	// Own lists the agent's units: one of them runs the gate, and their state says nothing about the root.
	Own []string
	// Sources are the "host:port" that images come from.
	Sources []string
	// Dial opens a connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Gateways lists the default gateways. AskGateway returns nil when one answers, otherwise why it does not.
	Gateways   func() ([]netip.Addr, error)
	AskGateway func(context.Context, netip.Addr) error
	// Uplinks lists the interfaces of the default routes; nil when they are not known here. ManagerOf returns what
	// configures an interface, see [network.Host.Manager]. Both get the active units.
	Uplinks   func(active []string) ([]network.Uplink, error)
	ManagerOf func(name string, active []string) string
	// Ports lists where units listen; nil when that is not known here.
	Ports func() ([]listening.Port, error)
	// Now is the clock.
	Now func() time.Time
}

// New returns the gate of the running host.
func New(c Config) Gate {
	return Gate{
		Config: c, Root: "/", Systemd: systemd.PID1(), Dial: new(net.Dialer).DialContext,
		Gateways: network.Gateways, AskGateway: network.AskGateway,
		Uplinks: network.Running().Uplinks, ManagerOf: network.Running().Manager,
		Ports: listening.Ports, Now: time.Now,
	}
}

// observeTime bounds how long observing delays a switch. Services still run during that time.
const observeTime = 8 * time.Second

// Observe returns what is true in the root that is about to be left. What cannot be found out is left out, so that the
// new root is not asked for it.
func Observe(ctx context.Context, g Gate) Before {
	ctx, cancel := context.WithTimeout(ctx, observeTime)
	defer cancel()
	reachable := make(chan []string, 1)
	go func() { reachable <- g.listReachable(ctx) }()
	var b Before
	if units, err := g.Systemd.Units(ctx); err == nil {
		b.Failed = systemd.NamesOf(units, g.failedHere)
		noteRunning(g, units, &b)
		if comparesUplinks(g) {
			b.Uplinks, _ = g.Uplinks(activeOf(units)) // what is not known is not compared
		}
	}
	if looping, _, err := g.looping(ctx, true); err == nil {
		b.Restarting = looping
	}
	b.Reachable = <-reachable
	return b
}

// Busy reports whether units other than the agent's own are being started, or systemd does not answer.
func (g Gate) Busy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, observeTime)
	defer cancel()
	waiting, err := g.Systemd.Starting(ctx)
	return err != nil || len(slices.DeleteFunc(waiting, g.isOwn)) > 0
}

// errDeadline is the cause of a context that ended with [Config.Deadline].
var errDeadline = errors.New("the health deadline passed")

// Run waits until the root is up and runs every check. A failure that may pass, such as the port of a slow service, is
// checked again until the deadline; one that cannot, such as a failed unit, ends the run.
func (g Gate) Run(ctx context.Context, before Before) Report {
	start := g.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, g.Config.Deadline, errDeadline)
	defer cancel()
	boot := []Result{g.timed("start jobs", KindBoot, func() Result { return g.started(ctx) })}
	if boot[0].Verdict == OK {
		boot = append(boot, g.timed(bootComplete, KindBoot, func() Result { return g.bootComplete(ctx) }))
	}
	results, state := boot, State{}
	if boot[0].Verdict == OK {
		results = append(results, g.rounds(ctx, before, &state)...)
	}
	return Report{At: start.UTC(), Took: g.Now().Sub(start), Results: results, State: state}
}

// rounds runs the checks that can be repeated until they pass, one fails for good, or the time is up. It notes in state
// what the root is like.
func (g Gate) rounds(ctx context.Context, before Before, state *State) []Result {
	programs := programsBelow(g.Root)
	passed := map[string]Result{}
	var last []Result
	for {
		results := g.round(ctx, before, programs, passed, state)
		// The deadline cut this round short: the round before it says more.
		if timeIsUp(ctx) && last != nil && !settled(results) {
			break
		}
		if last = results; settled(results) || timeIsUp(ctx) {
			break
		}
	}
	if (Report{Results: last}).Healthy() { // otherwise the rollback would wait for checks that cannot prevent it
		last = append(last, g.runWanted(ctx, programs)...)
	}
	return last
}

// timeIsUp reports whether the deadline has passed. It compares the clock, too: a check that ended with the deadline
// may be faster than the context.
func timeIsUp(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// whyTimeIsUp returns the cause of a context that ended, or will in a moment.
func whyTimeIsUp(ctx context.Context) error { return cmp.Or(context.Cause(ctx), errDeadline) }

// settled reports whether another round would change nothing: every check passed, or one failed for good.
func settled(results []Result) bool {
	final := slices.ContainsFunc(results, func(r Result) bool { return r.final && r.Verdict == Fail })
	return final || !slices.ContainsFunc(results, func(r Result) bool { return r.Verdict == Fail })
}

// round runs every check once. A required program that passed in an earlier round, as passed has it, is not run again.
func (g Gate) round(ctx context.Context, before Before, programs []check, passed map[string]Result,
	state *State) []Result {
	results := []Result{
		g.timed("restarts", KindUnits, func() Result { return g.noneLooping(ctx, before) }),
		g.timed("failed units", KindUnits, func() Result { return g.noneFailed(ctx, before, state) }),
	}
	for _, u := range g.Config.Active {
		results = append(results, g.timed(u, KindUnits, func() Result { return g.active(ctx, u) }))
	}
	for _, p := range g.Config.Ports {
		results = append(results, g.timed("port "+p, KindPort, func() Result { return g.port(ctx, p) }))
	}
	results = append(results, g.network(ctx, before)...)
	results = append(results, checkUplinks(ctx, g, before, state)...)
	results = append(results, asBefore(ctx, g, before)...)
	for _, p := range programs {
		if !p.required {
			continue
		}
		r, done := passed[p.name]
		if !done {
			r = g.timed(p.name, KindCheck, func() Result { return g.run(ctx, p) })
		}
		if r.Verdict == OK {
			passed[p.name] = r
		}
		results = append(results, r)
	}
	return results
}

// timed runs a check and adds its name, its kind and how long it took.
func (g Gate) timed(name, kind string, check func() Result) Result {
	start := g.Now()
	r := check()
	r.Name, r.Kind, r.Took = name, kind, g.Now().Sub(start)
	if r.Verdict == "" {
		r.Verdict = OK
	}
	return r
}

// warnf returns the result of a check that did not pass, which alone does not make a root unhealthy.
func warnf(format string, args ...any) Result {
	return Result{Verdict: Warn, Reason: fmt.Sprintf(format, args...)}
}

// failf returns the result of a check that failed.
func failf(format string, args ...any) Result {
	return Result{Verdict: Fail, Reason: fmt.Sprintf(format, args...)}
}

// sleep waits for d and returns true, or returns false as soon as the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
