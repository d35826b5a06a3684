//go:build lab

package integration

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab"
)

// The ports of services that are kept: by a store of file descriptors, by a socket, as a process, by a socket whose
// service starts on demand only, and as a process with a root directory of its own, as a container is.
const (
	storePort, socketPort, processPort, demandPort, jailPort = "7001", "7002", "7003", "7004", "7005"

	// labKeep is where the program lies in images, and keptProgram in kept state, where it holds no root.
	labKeep, keptProgram, jail = "/usr/lib/lab/labkeep", "/var/lib/lab/labkeep", "/var/lib/lab/jail"
)

// keptUnits returns the units of those services, for an image.
func keptUnits(program string) []layerEntry {
	const wanted, sockets = unitDir + "multi-user.target.wants/", unitDir + "sockets.target.wants/"
	service := func(command, more string) string { return "[Service]\nType=notify\nExecStart=" + command + "\n" + more }
	return []layerEntry{
		aProgram(strings.TrimPrefix(labKeep, "/"), program),
		aFile(unitDir+"store.service", service(labKeep+" counter "+storePort, "FileDescriptorStoreMax=2\n")),
		aFile(unitDir+"web.socket", "[Socket]\nListenStream="+socketPort+"\n"),
		aFile(unitDir+"web.service", service(labKeep+" counter", "FileDescriptorStoreMax=1\n")),
		aFile(unitDir+"demand.socket", "[Socket]\nListenStream="+demandPort+"\n"),
		aFile(unitDir+"demand.service", service(labKeep+" counter", "FileDescriptorStoreMax=1\n")),
		aFile(unitDir+"alive.service", service(keptProgram+" process "+processPort, "")),
		aFile(unitDir+"jail.service", "[Service]\nType=exec\nRootDirectory="+jail+"\nExecStart=/labkeep process "+
			jailPort+"\n"),
		aLink(wanted+"jail.service", "../jail.service"),
		aLink(wanted+"store.service", "../store.service"),
		aLink(wanted+"web.service", "../web.service"),
		aLink(wanted+"alive.service", "../alive.service"),
		aLink(sockets+"web.socket", "../web.socket"),
		aLink(sockets+"demand.socket", "../demand.socket"),
	}
}

const keepConfig = "[[keep]]\nunit = \"store.service\"\n[[keep]]\nunit = \"web.socket\"\n" +
	"[[keep]]\nunit = \"demand.socket\"\n[[keep]]\nunit = \"alive.service\"\n[[keep]]\nunit = \"jail.service\"\n"

// connection is one connection of a client.
type connection struct {
	at, took time.Duration // since the client began
	answer   string
	err      error
}

// clients connects to a port of the host 50 times a second, until it is stopped.
type clients struct {
	port    string
	request string // what each client says first
	dialer  net.Dialer
	began   time.Time
	stop    chan struct{}

	mu  sync.Mutex
	all []connection
	run sync.WaitGroup
}

const (
	clientInterval = 20 * time.Millisecond
	clientPatience = time.Minute
)

func connect(host, port string) *clients { return connectEvery(clientInterval, host, port, "") }

// connectEvery connects at another rate, and says something first.
func connectEvery(interval time.Duration, host, port, request string) *clients {
	c := &clients{port: port, request: request, began: time.Now(), stop: make(chan struct{})}
	c.dialer.Control = func(_, _ string, socket syscall.RawConn) error {
		const tries = 8 // minutes: an emulated machine may be away longer than clients wait by default
		var failure error
		err := socket.Control(func(fd uintptr) {
			failure = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SYNCNT, tries)
		})
		return errors.Join(err, failure)
	}
	c.run.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-c.stop:
				return
			case <-tick.C:
			}
			c.run.Go(func() { c.ask(host) })
		}
	})
	return c
}

// ask makes one connection, and notes how it ended.
func (c *clients) ask(host string) {
	r := connection{at: time.Since(c.began)}
	conn, err := c.dialer.Dial("tcp", net.JoinHostPort(host, c.port))
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(clientPatience))
		var text []byte
		if _, err = io.WriteString(conn, c.request); err == nil {
			text, err = io.ReadAll(conn)
		}
		conn.Close()
		if r.answer = strings.TrimSpace(string(text)); err == nil && r.answer == "" {
			err = io.ErrUnexpectedEOF
		}
	}
	r.took, r.err = time.Since(c.began)-r.at, err
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, r)
}

// end stops the clients and returns all of their connections, in the order in which they were opened.
func (c *clients) end() []connection {
	close(c.stop)
	c.run.Wait()
	slices.SortFunc(c.all, func(a, b connection) int { return int(a.at - b.at) })
	return c.all
}

// longestOutage returns the longest time without an answer: from when the last answer before it was asked for to when
// the first one after it came, as [lab.Outage] has it.
func longestOutage(all []connection) (longest time.Duration) {
	all = slices.DeleteFunc(slices.Clone(all), func(c connection) bool { return c.err != nil })
	slices.SortFunc(all, func(a, b connection) int { return cmp.Compare(a.at+a.took, b.at+b.took) })
	asked := time.Duration(0) // latest of those that are answered
	for i, c := range all {
		if i > 0 {
			longest = max(longest, c.at+c.took-asked)
		}
		asked = max(asked, c.at)
	}
	return longest
}

// planned is the part of `updatectl plan --output json` that the test reads.
type planned struct {
	Units []struct {
		Unit, Fate, Reason string
		Named              bool
	}
}

// runningUnits returns the active services, sockets, timers and paths, each with the identity of its invocation.
func (s *site) runningUnits() map[string]string {
	s.Helper()
	units := map[string]string{}
	text := s.host.Must(s.T, "sh", "-c", "systemctl show --property=Id,InvocationID $(systemctl list-units --plain "+
		"--no-legend --state=active --type=service,socket,timer,path | cut -d' ' -f1)")
	for block := range strings.SplitSeq(text, "\n\n") {
		var id, invocation string
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if key == "Id" {
				id = value
			} else if key == "InvocationID" {
				invocation = value
			}
		}
		if id != "" && !strings.HasPrefix(id, "updatectl") {
			units[id] = invocation
		}
	}
	return units
}

// newKeptSite returns a site whose host runs an image with units to keep, and keeps them; and two such images, with
// their roots. One runs.
func newKeptSite(t *testing.T, name string) (s *site, images, roots [2]string) {
	t.Helper()
	binary, err := lab.KeepBinary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	s = newPublisher(t)
	s.boot(lab.Options{Name: name}, nil)
	s.settlesAtOnce()
	s.host.Must(t, "sh", "-ec", "mkdir -p "+jail+"; cd "+jail+"; mkdir proc sys dev run tmp etc var usr")
	for _, name := range []string{keptProgram, jail + "/labkeep"} {
		if err := s.host.WriteFile(name, string(program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, version := range []string{"1", "2"} {
		images[i], roots[i] = s.variant(name+"-"+version, version, keptUnits(string(program))...)
	}
	s.switches("apply", "--from", images[0])
	s.runs(roots[0], "1")
	if err := s.host.WriteFile("/etc/updatectl/conf.d/60-keep.toml", keepConfig, 0o644); err != nil {
		t.Fatal(err)
	}
	demand := &clients{port: demandPort, began: time.Now()}
	if demand.ask(s.host.Addr); demand.all[0].err != nil { // its service starts on demand
		t.Fatal(demand.all[0].err)
	}
	return s, images, roots
}

// TestKeptUnits: through apply and rollback, nobody who connects to a kept socket is refused or lost, or waits longer
// than the services are away; a service gets its memory back; a process goes on; and units become what plan says.
// It measures, so it runs alone.
func TestKeptUnits(t *testing.T) {
	s, images, roots := newKeptSite(t, "keep")
	two, oneRoot, twoRoot := images[1], roots[0], roots[1]
	s.updatectl(exitAvailable, "stage", "--from", two)
	var plan planned
	s.answer(&plan, exitAvailable, "plan", "--from", two)
	t.Logf("plan:\n%s", s.updatectl(exitAvailable, "plan", "--from", two).Stdout)
	s.refusesToKeep(two)
	before := s.runningUnits()
	for i := range keptSwitches {
		s.keepsConnections("apply", "--from", two, "--retry")
		s.runs(twoRoot, "2")
		if i == 0 {
			s.became(plan, before)
		}
		s.keepsConnections("rollback")
		s.runs(oneRoot, "1")
	}
	if text := s.updatectl(exitDone, "status").Stdout; strings.Contains(text, "Held") {
		t.Errorf("a root is held:\n%s", text)
	}
}

// keepsConnections switches while clients connect to the kept services, and measures them.
func (s *site) keepsConnections(args ...string) {
	s.Helper()
	var all []*clients
	ports := []string{storePort, socketPort, processPort, demandPort, jailPort}
	for _, port := range ports {
		all = append(all, connect(s.host.Addr, port))
	}
	time.Sleep(time.Second) // so that there is something to compare with
	s.switches(args...)
	time.Sleep(2 * time.Second)
	for i, c := range all {
		s.judge(ports[i], c.end())
	}
}

// TestKeptUnitsStuck: when a shutdown is stuck and cancelled, who waits at a kept socket is answered, and nothing is
// left of how it was kept.
func TestKeptUnitsStuck(t *testing.T) {
	s, images, roots := newKeptSite(t, "keepstuck")
	s.hastens("[switch]\nshutdown-deadline = \"8s\"\n")
	if err := s.host.WriteFile("/etc/systemd/system/stubborn.service", stubborn, 0o644); err != nil {
		t.Fatal(err)
	}
	s.host.Must(t, "sh", "-ec", "systemctl daemon-reload; systemctl start stubborn")
	s.updatectl(exitAvailable, "stage", "--from", images[1])
	ports := []string{storePort, socketPort, processPort, demandPort, jailPort}
	var all []*clients
	for _, port := range ports {
		all = append(all, connect(s.host.Addr, port))
	}
	if r := s.host.Run(t.Context(), "updatectl", "apply", "--from", images[1]); r.Code != 0 && r.Code < 128 {
		t.Fatal(r)
	}
	var v status
	if !s.host.Await(t, s.host.Patience(), func() bool { v = s.status(); return v.Phase != "armed" }) {
		t.Fatalf("the shutdown is not cancelled: %+v\n%s", v, s.host.Console())
	}
	s.unguarded()
	s.upAgain()
	if v.Booted.Root != roots[0] || v.Last == nil || v.Last.Outcome != "stuck" {
		t.Errorf("status is %+v", v)
	}
	for i, c := range all {
		s.judge(ports[i], c.end())
	}
	s.nothingKept("store.service.d") // it may have stopped
}

// nothingKept checks that systemd has all units but some as their files say.
func (s *site) nothingKept(but string) {
	s.Helper()
	list := "ls /run/systemd/system/*.d/*-updatectl-*.conf | grep --fixed-strings --invert-match '" + but + "'"
	if r := s.host.Run(s.Context(), "sh", "-c", list); r.Code == 0 {
		s.Errorf("a switch that did not happen leaves %s", r.Stdout)
	}
	if got := s.host.Must(s.T, "systemctl", "show", "--property=Triggers", "web.socket"); got != "Triggers=web.service" {
		s.Errorf("after a switch that did not happen, web.socket says %s", got)
	}
}

// keptSwitches is how often the host switches, there and back each time.
const keptSwitches = 2

// refusesToKeep checks what apply and plan say about units that cannot be kept, and that nothing is left of a switch
// that an inhibitor lock prevents.
func (s *site) refusesToKeep(image string) {
	s.Helper()
	const site = "/etc/updatectl/conf.d/70-site.toml"
	if err := s.host.WriteFile(site, "[[keep]]\nunit = \"ssh.service\"\n[[keep]]\nunit = \"memcached.socket\"\n",
		0o644); err != nil {
		s.Fatal(err)
	}
	s.refused(exitIncompatible, "[[keep]] ssh.service: it would hold the root that is left: the program /usr/sbin/sshd,",
		"", "apply", "--from", image)
	s.refused(exitIncompatible, "[[keep]] memcached.socket: it is not active", "", "apply", "--from", image)
	s.host.Must(s.T, "rm", site)
	release := s.inhibit()
	s.refused(exitBlocked, "the backup runs", "", "apply", "--from", image)
	release()
	s.nothingKept("none")
}

// judge prints what clients of a port saw, and checks it.
func (s *site) judge(port string, all []connection) {
	s.Helper()
	var failed []connection
	var longest time.Duration
	for _, c := range all {
		if longest = max(longest, c.took); c.err != nil {
			failed = append(failed, c)
		}
	}
	outage := longestOutage(all)
	s.Logf("port %s: %d connections, %d failed, longest wait %v, outage %v; first %q, last %q", port, len(all),
		len(failed), longest.Round(time.Millisecond), outage.Round(time.Millisecond), all[0].answer, all[len(all)-1].answer)
	if len(failed) > 0 {
		s.Errorf("port %s: %d connections failed, the first after %v: %v", port, len(failed), failed[0].at, failed[0].err)
	}
	if longest > outage+100*time.Millisecond {
		s.Errorf("port %s: somebody waited %v, and the outage was %v", port, longest, outage)
	}
	// Two that connect at once may be served in another order, so the counts are compared by their ends.
	first, last := all[0].served(), all[0].served()
	for _, c := range all {
		if c.err == nil {
			first.count, last.count = min(first.count, c.served().count), max(last.count, c.served().count)
			last.pid = c.served().pid
		}
	}
	switch {
	case (port == processPort || port == jailPort) && (first.pid != last.pid || last.count-first.count != len(all)-1):
		s.Errorf("process %d with count %d has become process %d with count %d", first.pid, first.count, last.pid,
			last.count)
	case port == storePort && (first.pid == last.pid || last.count < first.count+len(all)-1-len(failed)):
		s.Errorf("the count of process %d, %d, has become that of process %d, %d", first.pid, first.count, last.pid,
			last.count)
	}
}

// served is who answered a connection: a process, and how many it had counted by then.
type served struct{ count, pid int }

func (c connection) served() (by served) {
	fmt.Sscan(c.answer, &by.count, &by.pid)
	return by
}

// became checks that units have become what plan said.
func (s *site) became(plan planned, before map[string]string) {
	s.Helper()
	after := s.runningUnits()
	wrong := 0
	for _, u := range plan.Units {
		was, is := before[u.Unit], after[u.Unit]
		_, ran := before[u.Unit]
		_, runs := after[u.Unit]
		right := map[string]bool{
			"survives":          ran && runs && was == is,
			"keeps descriptors": ran && runs,
			"restarts":          ran && runs && was != is,
			"goes away":         ran && !runs,
			"is new":            !ran && runs,
		}[u.Fate]
		if !right {
			wrong++
			s.Errorf("%s %s, says plan (%s); before %q %v, after %q %v", u.Unit, u.Fate, u.Reason, was, ran, is, runs)
		}
	}
	for unit := range after {
		if !slices.ContainsFunc(plan.Units, func(u struct {
			Unit, Fate, Reason string
			Named              bool
		}) bool {
			return u.Unit == unit
		}) {
			wrong++
			s.Errorf("%s runs, and plan does not name it", unit)
		}
	}
	s.Logf("%d units in plan, %d otherwise than seen", len(plan.Units), wrong)
}
