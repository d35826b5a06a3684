package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/level"
)

// withKernels are machines whose images bring kernels.
func withKernels() Options {
	o := ordinary()
	o.Kernels = true
	return o
}

// full is `updatectl apply --level full`.
var full = agent.ApplyOptions{Level: level.Full}

// checkKernels notes what is wrong with the kernels of a machine at rest.
func (m *Machine) checkKernels() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loader.once != "" {
		m.breach("the boot loader still starts %s once", m.loader.once)
	}
	for id := range m.loader.files {
		if _, there := m.loader.entries[id]; !there {
			m.breach("%s is on the disk, and not in the menu", id)
		}
	}
	if _, there := m.loader.entries[m.loader.standard]; m.loader.standard != "" && !there {
		m.breach("full reboots start %s, which is not in the menu", m.loader.standard)
	}
	const most = 3 // of two good roots, and the running one
	if n := len(m.loader.files); n > most {
		m.breach("%d kernels of images are on the host root", n)
	}
}

// TestFullKernel: a full reboot starts the image's kernel, and from when the root is good, every full reboot does.
func TestFullKernel(t *testing.T) {
	for _, systemd := range versions() {
		o := withKernels()
		o.Systemd = systemd.Systemd
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Healthy)
			if err := m.Apply(full).Wait(); err != nil {
				t.Error(err)
			}
			m.rest()
			for range 2 {
				if k, def := m.Kernel(), m.loader.standard; k != "6.13.2" || !strings.HasPrefix(def, "k2") || m.Booted() != "v2" {
					t.Errorf("%s runs on %s, and full reboots start %q", m.Booted(), k, def)
				}
				m.CutPower()
				m.rest()
			}
			m.checkKernels()
			m.CheckRest()
		})
		expect(t, m, "v2")
	}
}

// TestFullKernelFails: where the kernel or the root on it is ill, the host is back in the old root on the old kernel,
// with the reason, and takes a later good release.
func TestFullKernelFails(t *testing.T) {
	for _, c := range []struct {
		kernel, root Illness
		resets       int // by a person
		outcome      level.Outcome
	}{
		{kernel: Panics, outcome: level.OldKernel},
		{kernel: Hangs, resets: 1, outcome: level.OldKernel},
		{kernel: Stops, outcome: level.OldKernel},
		{root: Fails, outcome: level.Unhealthy},
		{root: Hangs, outcome: level.Unhealthy},
		{root: CutsNetwork, outcome: level.Unhealthy},
		{root: ReadOnly, outcome: level.Rebooted}, // nothing can be written there before the full reboot
		{root: Deafens, outcome: level.Unhealthy},
	} {
		t.Run(fmt.Sprintf("kernel %q root %q", c.kernel, c.root), func(t *testing.T) {
			m := playFrom(t, "v1", withKernels(), func(m *Machine) {
				m.Publish("v2", c.root)
				m.InfectKernel("v2", c.kernel)
				if err := m.Apply(full).Wait(); err != nil {
					t.Error(err)
				}
				if resets := m.rest(); resets != c.resets {
					t.Errorf("a person had to reset the machine %d times, want %d", resets, c.resets)
				}
				if m.Booted() != "v1" || m.Kernel() != kernelRelease || m.loader.standard != "" {
					t.Errorf("%s runs on %s, and full reboots start %q", m.Booted(), m.Kernel(), m.loader.standard)
				}
				if last := m.Record().Last; last.Outcome != c.outcome || last.Target != releases.roots["v2"] {
					t.Errorf("the switch ended with %+v, want %s", last, c.outcome)
				}
				m.Publish("v3", Healthy)
				if err := m.Apply(full).Wait(); err != nil {
					t.Error(err)
				}
				m.rest()
				if m.Kernel() != "6.13.3" || !strings.HasPrefix(m.loader.standard, "k3") {
					t.Errorf("v3 runs on %s, and full reboots start %q", m.Kernel(), m.loader.standard)
				}
				m.tire()
				m.checkKernels()
				m.CheckRest()
			})
			expect(t, m, "v3")
		})
	}
}

// TestLoaderFails: a boot loader that cannot be told what to start keeps no switch back, and the next command that
// can tell it does.
func TestLoaderFails(t *testing.T) {
	m := playFrom(t, "v1", withKernels(), func(m *Machine) {
		runs := func(version, kernel, standard string) {
			t.Helper()
			m.rest()
			if m.Booted() != version || m.Kernel() != kernel || !strings.HasPrefix(m.loader.standard, standard) ||
				standard == "" && m.loader.standard != "" {
				t.Errorf("%s runs on %s, and full reboots start %q; want %s on %s, and %q", m.Booted(), m.Kernel(),
					m.loader.standard, version, kernel, standard)
			}
		}
		m.Publish("v2", Healthy)
		m.FailLoader(changesOnce)
		if err := m.Apply(full).Wait(); err == nil || !strings.Contains(err.Error(), "input/output error") {
			t.Errorf("apply ends with %v", err)
		}
		runs("v1", kernelRelease, "")
		m.CutPower()
		runs("v1", kernelRelease, "")

		m.FailLoader(changesDefault)
		if err := m.Apply(agent.ApplyOptions{Level: level.Full, Retry: true}).Wait(); err != nil {
			t.Error(err)
		}
		runs("v2", "6.13.2", "")
		m.FailLoader("")
		m.GC().Wait()
		runs("v2", "6.13.2", "k2")
		m.CutPower()
		runs("v2", "6.13.2", "k2")

		m.FailLoader(changesDefault)
		if err := m.RollBack("").Wait(); err != nil {
			t.Error(err)
		}
		runs("v1", "6.13.2", "k2")
		m.FailLoader("")
		m.GC().Wait()
		runs("v1", "6.13.2", "")
		m.CutPower()
		runs("v1", kernelRelease, "")
		m.checkKernels()
		m.CheckRest()
	})
	expect(t, m, "v1")
}

// TestPanicsTwice: the timer of a host that may do full reboots tries a kernel that panics no more than twice.
func TestPanicsTwice(t *testing.T) {
	o := withKernels()
	m := playFrom(t, "v1", o, func(m *Machine) {
		m.Publish("v2", NeedsFull)
		m.InfectKernel("v2", Panics)
		m.tire()
		m.CheckRest()
		m.checkKernels()
		if _, bad := m.Record().Bad[releases.roots["v2"]]; !bad {
			t.Error("v2 was not given up")
		}
		if n := strings.Count(m.Story(), "6.13.2 panics"); n != 2 {
			t.Errorf("the kernel was started %d times", n)
		}
	})
	expect(t, m, "v1")
}

// TestNoFullKernel: where the kernel cannot be started once, or does not fit, apply refuses, and nothing is left.
func TestNoFullKernel(t *testing.T) {
	for want, o := range map[error]Options{
		roots.ErrFullReboot: {NoOnce: true}, imagekernel.ErrInstall: {FullBoot: true}, imagekernel.ErrHost: {OldHost: true},
	} {
		o.Seed, o.Systemd, o.Stuck, o.Story, o.Kernels = 1, 257, "cancel", true, true
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Healthy)
			if err := m.Apply(full).Wait(); !errors.Is(err, want) {
				t.Errorf("apply ended with %v, want %v", err, want)
			}
			m.rest()
			if m.Reboots() != 0 {
				t.Errorf("%d reboots", m.Reboots())
			}
			if err := m.Apply(agent.ApplyOptions{Level: level.Soft}).Wait(); err != nil {
				t.Error(err)
			}
			m.rest()
			m.checkKernels()
			m.CheckRest()
		})
		expect(t, m, "v2")
		if k := m.Kernels(); len(k) > 0 {
			t.Errorf("%q are left", k)
		}
	}
}

// TestPlanKnows: what a full reboot would be refused for is known before, and stops no soft reboot.
func TestPlanKnows(t *testing.T) {
	for name, o := range map[string]Options{
		"": {}, "cannot start the kernel": {NoOnce: true}, "/boot is full": {FullBoot: true},
		"the host root": {OldHost: true},
	} {
		o.Seed, o.Systemd, o.Stuck, o.Story, o.Kernels = 1, 257, "cancel", true, true
		m := playFrom(t, "v1", o, func(m *Machine) {
			m.Publish("v2", Healthy)
			m.Stage().Wait()
			var plan agent.Plan
			err := m.Run("plan", false, func(ctx context.Context, a *agent.Agent) (err error) {
				plan, err = a.Plan(ctx, "")
				return err
			}).Wait()
			if err != nil || plan.Refusal != nil || plan.Decision == nil {
				t.Errorf("plan: %v, %v, %+v", err, plan.Refusal, plan.Decision)
				return
			}
			checks := plan.Decision.Checks
			i := slices.IndexFunc(checks, func(c level.Check) bool { return c.Name == "kernel of a full reboot" })
			if (i >= 0) != (name != "") ||
				i >= 0 && (!strings.Contains(checks[i].Reason, name) || checks[i].Verdict != level.VerdictNote) {
				t.Errorf("%q: the checks are %+v", name, checks)
			}
			if err := unattended(m); err != nil {
				t.Error(err)
			}
			m.rest()
			m.CheckRest()
		})
		expect(t, m, "v2")
		if k := m.Kernels(); len(k) > 0 {
			t.Errorf("%q are left", k)
		}
	}
}

// TestRollbackBringsKernel: after a rollback to a root that was good before any kernel of an image was installed, full
// reboots start the host's own kernel, as they did then.
func TestRollbackBringsKernel(t *testing.T) {
	m := playFrom(t, "v1", withKernels(), func(m *Machine) {
		m.Publish("v2", Healthy)
		if err := m.Apply(full).Wait(); err != nil {
			t.Error(err)
		}
		m.rest()
		if m.Kernel() != "6.13.2" {
			t.Errorf("v2 runs on %s", m.Kernel())
		}
		if err := m.RollBack("").Wait(); err != nil {
			t.Error(err)
		}
		m.rest()
		m.Reboot(true)
		m.rest()
		if m.Kernel() != kernelRelease {
			t.Errorf("after a rollback and a reboot, v1 runs on %s", m.Kernel())
		}
		m.checkKernels()
		m.CheckRest()
	})
	expect(t, m, "v1")
}

// TestKernelsDoNotPileUp: soft and full switches and rollbacks in turns leave no more kernels than good roots need, and
// a rollback brings the kernel of its root with the next full reboot.
func TestKernelsDoNotPileUp(t *testing.T) {
	m := playFrom(t, "v1", withKernels(), func(m *Machine) {
		for round := range 10 {
			v := fmt.Sprintf("v%d", 2+round%3)
			m.Publish(v, Healthy)
			o := agent.ApplyOptions{Retry: true, AllowDowngrade: true}
			if round%2 == 0 {
				o.Level = level.Full
			}
			if err := m.Apply(o).Wait(); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
			m.rest()
			m.checkKernels()
			if round%2 == 0 && m.Kernel() != "6.13."+v[1:] {
				t.Errorf("round %d: %s runs on %s", round, v, m.Kernel())
			}
		}
		before := m.loader.standard
		m.RollBack("").Wait()
		m.rest()
		m.Reboot(true)
		m.rest()
		m.checkKernels()
		m.CheckRest()
		if m.loader.standard == "" && before == "" {
			t.Error("no kernel of an image was ever the default")
		}
		if err := m.RollBack("host").Wait(); err != nil {
			t.Error(err)
		}
		m.rest()
		m.Reboot(true)
		m.rest()
		if m.Kernel() != kernelRelease || m.loader.standard != "" {
			t.Errorf("the host root runs on %s, and full reboots start %q", m.Kernel(), m.loader.standard)
		}
	})
	expect(t, m, "host")
}

// TestFullKernelInterrupted: wherever the power is cut or a process is killed on the way to an image with its kernel,
// the machine comes up in the old root or the new one, and nothing is left half done.
func TestFullKernelInterrupted(t *testing.T) {
	const stride, most = 4, 300 // the guard looks around more often than that
	for _, fault := range []Fault{PowerCut, Kill} {
		for _, ill := range []Illness{Healthy, Fails} {
			crossings := 0
			for at := 1; at == 1 || at <= crossings; at += stride {
				o := withKernels()
				o.Story, o.Seed, o.Unlucky = false, uint64(at), at%2 == 0
				m := playFrom(t, "v1", o, func(m *Machine) {
					m.Publish("v2", ill)
					before := m.Crossings()
					m.Strike(fault, at)
					m.Apply(full).Wait()
					m.rest()
					if at == 1 || crossings < m.Crossings()-before {
						crossings = min(m.Crossings()-before, most)
					}
					m.Heal()
					m.tire()
					m.checkKernels()
					m.CheckRest()
					booted, kernel := m.Booted(), m.Kernel()
					if booted != "v1" && booted != "v2" || ill == Fails && kernel != kernelRelease {
						t.Errorf("%s runs on %s", booted, kernel)
					}
				})
				for _, b := range m.Broken() {
					t.Errorf("%s at crossing %d, %q: %s", fault, at, ill, b)
				}
				if t.Failed() {
					return
				}
			}
			t.Logf("%s, %q: %d crossings", fault, ill, crossings)
		}
	}
}
