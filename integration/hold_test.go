//go:build lab && (vm || endurance)

package integration

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMHold: the web server knows nothing of descriptor stores. While it is away, nobody who connects is refused or
// lost.
func TestVMHold(t *testing.T) {
	beside(t, lab.QEMU)
	s := newPublisher(t)
	s.publish("1", "os/server:stable")
	s.boot(lab.Options{Name: "vmhold", Kind: lab.QEMU}, func(root string) error {
		return s.stageAhead(root, "os/server:stable")
	})
	s.holds(200 * time.Millisecond) // an emulated web server has no time for more
}

// TestHoldTwenty: fifty clients a second connect to a container while it switches there and back twenty times. Nobody
// is refused or lost. Where the kernel has no nf_tables, it fails.
func TestHoldTwenty(t *testing.T) {
	beside(t, lab.Nspawn)
	const switches, interval = 20, 20 * time.Millisecond
	s := newSite(t, "holdtwenty")
	s.settlesAtOnce()
	one := s.roots["1"]
	refused, _ := s.askAtSwitch(interval, "apply")
	if s.runs(one, "1"); refused == 0 {
		t.Error("without a hold nobody was refused: this shows nothing")
	}
	s.publish("2", "os/server:stable")
	for i := range switches {
		root, version, command := s.roots["2"], "2", []string{"apply", "--retry"}
		if i%2 == 1 {
			root, version, command = one, "1", []string{"rollback"}
		}
		s.configuresHold()
		refused, lost := s.askAtSwitch(interval, command...)
		if s.runs(root, version); refused+lost > 0 {
			t.Errorf("%s: %d connections were refused and %d lost", command[0], refused, lost)
		}
	}
	s.holdEnds()
}

const webPort = "80"

// holds switches the host there and back while clients connect, without a hold and with one, and shows what ends it.
func (s *site) holds(interval time.Duration) {
	s.Helper()
	s.settlesAtOnce()
	one := s.roots["1"]
	refused, _ := s.askAtSwitch(interval, "apply")
	s.runs(one, "1")
	if refused == 0 {
		s.Error("without a hold nobody was refused: this shows nothing")
	}
	for _, step := range []struct {
		root, version string
		command       []string
	}{
		{"host", "host", []string{"rollback"}}, {one, "1", []string{"apply", "--retry"}},
	} {
		s.configuresHold()
		if step.root == one {
			text := s.host.Run(s.Context(), "updatectl", "plan").Stdout
			if !mentions(text, "new connections to TCP port 80 wait") {
				s.Errorf("plan does not say what is held:\n%s", text)
			}
		}
		refused, lost := s.askAtSwitch(interval, step.command...)
		s.runs(step.root, step.version)
		if refused+lost > 0 {
			s.Errorf("%s: %d connections were refused and %d lost\n%s", step.command[0], refused, lost, s.host.Console())
		}
	}
	s.holdsFirewall(one, interval)
	s.holdEnds()
}

// filteredPort is a port at which the packet filter drops everything. Nobody listens there: without the filter, the
// kernel refuses connections.
const filteredPort = "8081"

// filterRules has systemd set up a packet filter at every start, which flushes its rules when it stops.
const filterRules = `cat >/etc/nftables.conf <<'END'
flush ruleset
table inet site {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport ` + filteredPort + ` drop
	}
}
END
systemctl enable --now nftables.service`

// holdsFirewall switches the host back and there while somebody knocks at a port that the packet filter closes, without
// [switch] hold-firewall and with it.
func (s *site) holdsFirewall(one string, interval time.Duration) {
	s.Helper()
	s.host.Must(s.T, "sh", "-ec", filterRules)
	s.configures("")
	if seen := s.knocksAtSwitch(interval, "rollback"); seen == 0 {
		s.Error("without a hold nobody got past the packet filter: this shows nothing")
	}
	s.runs("host", "host")
	s.host.Must(s.T, "sh", "-ec", filterRules)
	s.configures("[switch]\nhold-firewall = true\n")
	text := s.host.Run(s.Context(), "updatectl", "plan").Stdout
	if !mentions(text, "new TCP connections from other hosts wait until nftables.service runs") {
		s.Errorf("plan does not say what is held:\n%s", text)
	}
	if seen := s.knocksAtSwitch(interval, "apply", "--retry"); seen > 0 {
		s.Errorf("%d connections got past the packet filter\n%s", seen, s.host.Console())
	}
	s.runs(one, "1")
	s.host.Must(s.T, "sh", "-ec", "nft list table inet site")
	s.configuresHold()
}

// knocksAtSwitch switches while somebody connects to the filtered port, and returns how often the kernel answered.
func (s *site) knocksAtSwitch(interval time.Duration, command ...string) (seen int) {
	s.Helper()
	const patience = 500 * time.Millisecond
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		answered := 0
		for {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(s.host.Addr, filteredPort), patience)
			if err == nil {
				conn.Close()
			}
			if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
				answered++
			}
			select {
			case <-stop:
				done <- answered
				return
			case <-time.After(interval):
			}
		}
	}()
	s.switches(command...)
	close(stop)
	seen = <-done
	s.Logf("%s: %d knocks were answered", command[0], seen)
	return seen
}

// configuresHold writes the configuration into the running root.
func (s *site) configuresHold() { s.configures("[switch]\nhold = [\"tcp:80\"]\n") }

// configures writes what these tests add to the configuration of the running root.
func (s *site) configures(config string) {
	s.Helper()
	if err := s.host.WriteFile("/etc/updatectl/conf.d/60-hold.toml", config, 0o644); err != nil {
		s.Fatal(err)
	}
}

// askAtSwitch switches while clients ask the web server, and returns how many were refused, and how many were lost.
func (s *site) askAtSwitch(interval time.Duration, command ...string) (refused, lost int) {
	s.Helper()
	c := connectEvery(interval, s.host.Addr, webPort, "GET / HTTP/1.0\r\n\r\n")
	time.Sleep(time.Second)
	s.switches(command...)
	time.Sleep(3 * time.Second)
	all := c.end()
	var longest time.Duration
	for _, a := range all {
		switch longest = max(longest, a.took); {
		case a.err == nil && strings.Contains(a.answer, "200 OK"):
		case errors.Is(a.err, syscall.ECONNREFUSED):
			refused++
		default:
			if lost++; lost <= 3 {
				s.Logf("%s: lost after %v and %v: %v, %q", command[0], a.at, a.took, a.err, a.answer)
			}
		}
	}
	s.Logf("%s: %d connections, %d refused, %d lost, longest wait %v, outage %v", command[0], len(all), refused,
		lost, longest.Round(time.Millisecond), longestOutage(all).Round(time.Millisecond))
	return refused, lost
}

// holdEnds shows that a firewall which flushes all rules leaves the hold in place, and that it ends with the guard,
// however that ends.
func (s *site) holdEnds() {
	s.Helper()
	h := s.host
	h.Must(s.T, "sh", "-ec", `mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nInhibitDelayMaxSec=10min\n' > /etc/systemd/logind.conf.d/delay.conf
systemctl kill -s HUP systemd-logind
systemd-run --quiet --unit=slow systemd-inhibit --what=shutdown --mode=delay --who=slow --why=slow sleep infinity`)
	if r := h.Run(s.Context(), "updatectl", "rollback"); r.Code != 0 {
		s.Fatal(r)
	}
	// The shutdown is announced now, and logind waits.
	set := func() string { return h.Run(s.Context(), "nft", "list", "set", "inet", "updatectl", "held").Stdout }
	before := set()
	h.Must(s.T, "nft", "flush", "ruleset")
	_, err := net.DialTimeout("tcp", net.JoinHostPort(h.Addr, webPort), 800*time.Millisecond)
	var late net.Error
	if after := set(); !strings.Contains(before, "80 timeout 1m") || !strings.Contains(after, "80 timeout 1m") ||
		!errors.As(err, &late) || !late.Timeout() {
		s.Errorf("what is held was\n%s\nand is after a flush\n%s\na client sees %v", before, after, err)
	}
	h.Must(s.T, "systemctl", "kill", "--signal=KILL", "updatectl-guard.service")
	if !h.Await(s.T, 10*time.Second, func() bool { return set() == "" }) {
		s.Errorf("when the guard has been killed, this is held:\n%s", set())
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(h.Addr, webPort), 800*time.Millisecond)
	if err != nil { // its first packet is answered
		s.Fatal(err)
	}
	conn.Close()
}
