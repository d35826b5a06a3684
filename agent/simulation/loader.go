package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// loader is the boot loader, with what it has on the disk. Each change of it is on the disk at once.
type loader struct {
	// entries are the kernels of images in the menu, by their ID; files are those of which something is on the disk.
	entries, files map[string]rootfs.Kernel
	// options are those on the command lines of the entries.
	options map[string][]string
	// once is started at the next boot only, standard at every other; "" is the host's own kernel.
	once, standard string
	// fails is the change that cannot be made, "" for none.
	fails loaderChange
}

// loaderChange is a change of what the boot loader starts.
type loaderChange string

const (
	changesOnce    loaderChange = "start a kernel once"
	changesDefault loaderChange = "set the default"
)

// FailLoader has a change of the boot loader fail from now on; "" ends that.
func (m *Machine) FailLoader(c loaderChange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loader.fails = c
}

// fault returns why a change cannot be made, nil if it can.
func (l loader) fault(c loaderChange) error {
	if l.fails == c {
		return fmt.Errorf("cannot %s: input/output error", c)
	}
	return nil
}

func newLoader() loader {
	return loader{entries: map[string]rootfs.Kernel{}, files: map[string]rootfs.Kernel{}, options: map[string][]string{}}
}

// startsKernel chooses the kernel of a boot. The machine is locked.
func (m *Machine) startsKernel() {
	id := m.loader.standard
	if m.once = m.loader.once != ""; m.once {
		id, m.loader.once = m.loader.once, ""
	}
	k, there := m.loader.entries[id]
	switch {
	case id == "":
		k = hostKernel
	case !there:
		m.breach("the boot loader is told to start %s, which is not in its menu", id)
		k = hostKernel
	}
	m.kernel, m.commandLine = k, strings.Join(m.loader.options[id], " ")
	if there {
		m.commandLine += " " + bootloader.Word(id)
	}
	m.tell("the boot loader starts %s", k.Release)
}

// hostKernel is the kernel of the host's distribution.
var hostKernel = rootfs.Kernel{Release: kernelRelease, Version: kernelVersion}

// kernelOf returns the kernel of an image. The machine is locked.
func (m *Machine) kernelOf(id string) rootfs.Kernel {
	if !m.options.Kernels || id == switcher.HostRoot {
		return hostKernel
	}
	return rootfs.Kernel{Release: "6.13." + m.publisher.versions[id][1:], Version: kernelVersion}
}

// InfectKernel makes the kernel of a version panic or hang when it starts.
func (m *Machine) InfectKernel(version string, ill Illness) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.illKernels[m.kernelOf(m.publisher.roots[version]).Release] = ill
}

// Kernel returns the release of the running kernel, and Kernels those of images that something on the disk is of.
func (m *Machine) Kernel() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kernel.Release
}

// Kernels returns the releases of the kernels of images that something on the disk is of.
func (m *Machine) Kernels() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var releases []string
	for _, k := range m.loader.files {
		releases = append(releases, k.Release)
	}
	slices.Sort(releases)
	return releases
}

// kernelComesUp reports whether the kernel of a boot starts userspace. The machine is locked.
func (m *Machine) kernelComesUp() bool {
	switch m.illKernels[m.kernel.Release] {
	case Panics:
		m.tell("%s panics", m.kernel.Release)
		m.rebootsIn(30 * time.Second) // panic=
		return false
	case Stops:
		m.tell("%s reaches emergency.target", m.kernel.Release)
		m.rebootsIn(15 * time.Minute) // updatectl-kernel.timer waits longer, and the person here does not
		return false
	case Hangs:
		m.tell("%s hangs: the machine is dead until somebody comes", m.kernel.Release)
		m.dead = true
		return false
	}
	return true
}

// rebootsIn has a kernel that does not come up reboot after a time, if its boot loader has said so: it is started once.
// The machine is locked.
func (m *Machine) rebootsIn(wait time.Duration) {
	if !m.once {
		m.tell("nobody has asked it to reboot: the machine is dead until somebody comes")
		m.dead = true
		return
	}
	power := m.power
	go func() {
		if !pause(wait, power) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.power == power {
			m.bootKernel(false)
		}
	}()
}

// boot is the boot loader as one process sees it.
type boot struct{ p *process }

func (b boot) Kernel(n assembly.Next) (imagekernel.Kernel, error) {
	b.p.enter("look for the kernel of a root")
	m := b.p.m
	defer m.mu.Unlock()
	if !m.options.Kernels {
		return imagekernel.Kernel{}, imagekernel.ErrNone
	}
	k := m.kernelOf(n.ID)
	return imagekernel.Kernel{Build: "k" + k.Release[len("6.13."):], Kernel: k}, nil
}

func (b boot) CanStartOnce(context.Context, assembly.Next, imagekernel.Kernel) (string, error) {
	b.p.enter("ask the boot loader")
	defer b.p.m.mu.Unlock()
	if b.p.m.options.NoOnce {
		return "", bootloader.ErrUnsupported
	}
	if b.p.m.options.OldHost {
		return "", imagekernel.ErrHost
	}
	if b.p.m.options.FullBoot {
		return "", fmt.Errorf("%w: /boot is full", imagekernel.ErrInstall)
	}
	return "GRUB", nil
}

// Renew does nothing: the disks of a simulated host keep their names.
func (b boot) Renew(context.Context, []imagekernel.Kernel) ([]string, error) {
	b.p.enter("look whether initrds are old")
	b.p.m.mu.Unlock()
	return nil, nil
}

// Install takes its time, between its two effects: files, and the entry in the menu.
func (b boot) Install(_ context.Context, _ assembly.Next, k imagekernel.Kernel, _ string, options []string) error {
	m := b.p.m
	b.p.enter("begin to install a kernel")
	if m.options.FullBoot || m.options.OldHost {
		m.breach("%s installs %s, which does not fit", b.p, k.Release)
	}
	m.loader.files[k.ID] = k.Kernel
	m.mu.Unlock()
	b.p.enter("put a kernel into the menu")
	defer m.mu.Unlock()
	if _, there := m.loader.files[k.ID]; !there {
		return errors.New("somebody has removed the kernel meanwhile")
	}
	m.loader.entries[k.ID], m.loader.options[k.ID] = k.Kernel, options
	m.tell("%s installs %s", b.p, k.Release)
	return nil
}

func (b boot) Remove(_ context.Context, k imagekernel.Kernel, _ bool) error {
	m := b.p.m
	b.p.enter("take a kernel out of the menu")
	if m.loader.standard == k.ID {
		m.breach("%s removes %s, which full reboots start", b.p, k.Release)
	}
	delete(m.loader.entries, k.ID)
	m.mu.Unlock()
	b.p.enter("remove a kernel")
	defer m.mu.Unlock()
	if m.kernel == k.Kernel && strings.HasSuffix(m.commandLine, bootloader.Word(k.ID)) {
		m.breach("%s removes %s, which runs", b.p, k.Release)
	}
	delete(m.loader.files, k.ID)
	m.tell("%s removes %s", b.p, k.Release)
	return nil
}

func (b boot) StartOnce(_ context.Context, id string) error {
	b.p.enter("have a kernel started once")
	defer b.p.m.mu.Unlock()
	if err := b.p.m.loader.fault(changesOnce); err != nil && id != "" {
		return err
	}
	b.p.m.loader.once = id
	b.p.m.tell("%s has %q started once", b.p, id)
	return nil
}

func (b boot) SetDefault(_ context.Context, id string) error {
	b.p.enter("set the default of the boot loader")
	m := b.p.m
	defer m.mu.Unlock()
	if _, there := m.loader.entries[id]; !there && id != "" {
		m.breach("%s makes %s the default, which is not in the menu", b.p, id)
	}
	if err := m.loader.fault(changesDefault); err != nil {
		return err
	}
	m.loader.standard = id
	m.tell("%s makes %q the default", b.p, id)
	return nil
}

// clone returns a copy of the boot loader.
func (l loader) clone() loader {
	l.entries, l.files, l.options = maps.Clone(l.entries), maps.Clone(l.files), maps.Clone(l.options)
	return l
}
