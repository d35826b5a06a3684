// Package health judges a root that is being tried: did all of it start, does what must run run, and is what could be
// reached before reachable again? It promises one report within its deadline, whatever the checks do, and that it
// changes nothing itself.
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
)

// Config is what a root must do to be good, the [health] table of the configuration.
type Config struct {
	// Deadline is for everything together.
	Deadline time.Duration
	// CheckDeadline is for each run of a check program.
	CheckDeadline time.Duration
	// Settle is how long services are watched for restarts, and so the pause between two rounds, too.
	Settle time.Duration
	// Active lists units that must be active.
	Active []string
	// Ports lists what must answer: "22" or "tcp:22" on this host, or with a host, "192.0.2.1:80".
	Ports []string
	// Reachable is "auto": what could be reached before the switch must be reachable after it. Or "off".
	Reachable string
	// Ignore lists units, as patterns like "fwupd*.service", that may fail.
	Ignore []string
}

// The values of [Config.Reachable].
const (
	ReachableAuto = "auto"
	ReachableOff  = "off"
)

// DefaultConfig is the configuration before any file is read. A service that dies as soon as it is started is started
// again after 100 ms, and given up after five starts within ten seconds, unless its unit says otherwise
// (systemd.service(5)): within five seconds it is seen to loop.
func DefaultConfig() Config {
	return Config{Deadline: 5 * time.Minute, CheckDeadline: time.Minute, Settle: 5 * time.Second, Reachable: ReachableAuto}
}

// Validate names the key that cannot be used, and why.
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

// Before is what was true before the switch. What did not work then is not held against the new root.
type Before struct {
	// Failed and Restarting list units that had failed, and services that crashed again and again.
	Failed     []string `json:"failed_units,omitempty"`
	Restarting []string `json:"restarting_units,omitempty"`
	// Reachable lists what answered: "gateway 192.0.2.1", "registry.example.org:443".
	Reachable []string `json:"reachable,omitempty"`
	// Unknown tells that nobody could look at how the root's own units had done: one that fails is warned of, no more.
	Unknown bool `json:"unknown,omitempty"`
}

// Verdict is how a check ended.
type Verdict string

// The verdicts; only fail makes a root unhealthy.
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
	KindCheck   = "check"
)

// Result is how one check ended.
type Result struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Verdict Verdict `json:"verdict"`
	// Reason is why it is not ok.
	Reason string `json:"reason,omitempty"`
	// Output is the end of what a check program wrote, with everything escaped that a terminal would obey.
	Output string `json:"output,omitempty"`
	// Took is how long it took, in nanoseconds.
	Took time.Duration `json:"took_ns"`

	// final: asking again would not change it. hurried: there was no time to ask.
	final, hurried bool
}

// Report is what the gate found.
type Report struct {
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"`
	Results []Result      `json:"results"`
}

// Healthy tells whether nothing failed. A gate that asked nothing has not found the root healthy.
func (r Report) Healthy() bool { return len(r.Results) > 0 && len(r.failed()) == 0 }

// namedFailures is how many failures a reason names; the report has them all.
const namedFailures = 3

// Reason names what failed, "" when nothing did.
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

// CutOff tells whether nothing can be reached any more of what could be before the switch, and all of it was asked.
func (r Report) CutOff() bool {
	asked := slices.DeleteFunc(slices.Clone(r.Results), func(r Result) bool { return r.Kind != KindNetwork })
	return len(asked) > 0 && !slices.ContainsFunc(asked, func(r Result) bool { return r.Verdict != Fail || r.hurried })
}

func (r Report) failed() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(r Result) bool { return r.Verdict != Fail })
}

// Gate judges the root that runs. [New] makes one for this host.
type Gate struct {
	Config Config
	// Root is the directory that check programs are looked for in.
	Root string
	// Since is when the root began, by the clock that runs since the kernel booted; 0 for the kernel's boot. What failed
	// before that failed in another root.
	Since time.Duration
	// Systemd is PID 1.
	Systemd Systemd
	// Own lists the agent's units: one of them calls the gate, and none of them says anything about the root.
	Own []string
	// Sources are the "host:port" that images come from.
	Sources []string
	// Dial opens a connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Gateways lists the default gateways, and AskGateway tells why one does not answer.
	Gateways   func() ([]netip.Addr, error)
	AskGateway func(context.Context, netip.Addr) error
	// Now is the clock.
	Now func() time.Time
}

// New makes the gate of the running host.
func New(c Config) Gate {
	return Gate{Config: c, Root: "/", Systemd: PID1(), Dial: new(net.Dialer).DialContext, Gateways: Gateways, AskGateway: askGateway, Now: time.Now}
}

// observeTime bounds what a switch is delayed by; nothing is away yet in that time.
const observeTime = 8 * time.Second

// Observe notes what is true in the root that is about to be left. What cannot be found out is not noted, so that it is
// not asked for later.
func Observe(ctx context.Context, g Gate) Before {
	ctx, cancel := context.WithTimeout(ctx, observeTime)
	defer cancel()
	reachable := make(chan []string, 1)
	go func() { reachable <- g.reached(ctx) }()
	var b Before
	if units, err := g.Systemd.Units(ctx); err == nil {
		b.Failed = names(units, g.failedHere)
	}
	if looping, _, err := g.looping(ctx, true); err == nil {
		b.Restarting = looping
	}
	b.Reachable = <-reachable
	return b
}

// Busy tells whether other units than the agent's own are being started, or nobody can tell.
func (g Gate) Busy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, observeTime)
	defer cancel()
	waiting, err := g.Systemd.Starting(ctx)
	return err != nil || len(slices.DeleteFunc(waiting, g.own)) > 0
}

// errDeadline is the cause when the gate's time is over.
var errDeadline = errors.New("the gate's deadline was over")

// Run waits until the root is up and asks every check. What fails and may come right, such as a port of a slow service,
// is asked again until the deadline; what cannot, such as a unit that failed, ends it.
func (g Gate) Run(ctx context.Context, before Before) Report {
	start := g.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, g.Config.Deadline, errDeadline)
	defer cancel()
	boot := []Result{g.timed("start jobs", KindBoot, func() Result { return g.started(ctx) })}
	if boot[0].Verdict == OK {
		boot = append(boot, g.timed(bootComplete, KindBoot, func() Result { return g.bootComplete(ctx) }))
	}
	results := boot
	if boot[0].Verdict == OK {
		results = append(results, g.rounds(ctx, before)...)
	}
	return Report{At: start.UTC(), Took: g.Now().Sub(start), Results: results}
}

// rounds asks everything that can be asked more than once.
func (g Gate) rounds(ctx context.Context, before Before) []Result {
	programs := g.programs()
	passed := map[string]Result{}
	var last []Result
	for {
		results := g.round(ctx, before, programs, passed)
		// The deadline cut this round short: what the one before it found says more.
		if over(ctx) && last != nil && !settled(results) {
			break
		}
		if last = results; settled(results) || over(ctx) {
			break
		}
	}
	if (Report{Results: last}).Healthy() { // the way back does not wait for what cannot change it
		last = append(last, g.wanted(ctx, programs)...)
	}
	return last
}

// over tells whether there is no time for more. What ran into the deadline by its own clock may know before the context.
func over(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// why tells why there is no time for more.
func why(ctx context.Context) error { return cmp.Or(context.Cause(ctx), errDeadline) }

// settled tells whether another round would change nothing: all is well, or something is beyond repair.
func settled(results []Result) bool {
	final := slices.ContainsFunc(results, func(r Result) bool { return r.final && r.Verdict == Fail })
	return final || !slices.ContainsFunc(results, func(r Result) bool { return r.Verdict == Fail })
}

func (g Gate) round(ctx context.Context, before Before, programs []program, passed map[string]Result) []Result {
	results := []Result{
		g.timed("restarts", KindUnits, func() Result { return g.steady(ctx, before) }),
		g.timed("failed units", KindUnits, func() Result { return g.noneFailed(ctx, before) }),
	}
	for _, u := range g.Config.Active {
		results = append(results, g.timed(u, KindUnits, func() Result { return g.active(ctx, u) }))
	}
	for _, p := range g.Config.Ports {
		results = append(results, g.timed("port "+p, KindPort, func() Result { return g.port(ctx, p) }))
	}
	results = append(results, g.network(ctx, before)...)
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

// timed runs a check and notes how it is called and how long it took.
func (g Gate) timed(name, kind string, check func() Result) Result {
	start := g.Now()
	r := check()
	r.Name, r.Kind, r.Took = name, kind, g.Now().Sub(start)
	if r.Verdict == "" {
		r.Verdict = OK
	}
	return r
}

// warnf is a check that did not pass and makes no root unhealthy.
func warnf(format string, args ...any) Result {
	return Result{Verdict: Warn, Reason: fmt.Sprintf(format, args...)}
}

// failf is a check that failed.
func failf(format string, args ...any) Result {
	return Result{Verdict: Fail, Reason: fmt.Sprintf(format, args...)}
}

// sleep waits and tells whether the time was to be had.
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
