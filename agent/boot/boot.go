// Package boot answers which kernel the next full reboot starts, and which kernels of images are on the host root for
// that. It promises that a kernel which is not proven is started once at most, that the one before stays the default
// until a root became good on it, and that whatever is done is recorded before: the next command completes it or takes
// it back.
package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Boot is what a host starts with.
type Boot struct {
	*host.Host
	Roots roots.Roots
}

const (
	file    = record.StateDir + "/kernels.json"
	maxFile = 1 << 20
)

// CheckKernel is the name of the check about the kernel that a full reboot starts.
const CheckKernel = "kernel of a full reboot"

// Read returns what is known of the kernels. A host without the file has none.
func (b *Boot) Read() (Kernels, error) {
	var k Kernels
	text, err := b.Machine.Disk.ReadFile(b.Path(file), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return k, fmt.Errorf("cannot read which kernels are installed: %w", err)
	}
	return k, nil
}

func (b *Boot) write(k Kernels) error {
	text, err := json.MarshalIndent(k, "", "  ")
	if err == nil {
		err = b.Machine.Disk.WriteFile(b.Path(file), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot record which kernels are installed: %w", err)
	}
	return nil
}

// plan is what a full reboot for a root does about the kernel.
type plan struct {
	kernel imagekernel.Kernel
	// options are the parameters that the image wants.
	options []string
	// fresh is whether the kernel is another than the one that runs, so that it is started once.
	fresh bool
	check level.Check
}

// Check adds the check about the kernel that a full reboot for a root starts to a decision. The error is a
// [roots.ErrFullReboot] if that is not the kernel of the image, and the operator has not said that this is right. It is
// an [imagekernel.ErrHost] or [imagekernel.ErrInstall] if the host root is in the way. At other levels, what would be
// in the way is a note, so that nobody learns of it in the night of the full reboot.
func (b *Boot) Check(ctx context.Context, root store.Root, f facts.Facts, d *level.Decision) error {
	if d.Level != level.Full && b.Config.Boot.Kernel == config.KernelHost {
		return nil
	}
	p, err := b.plan(ctx, root, f)
	if d.Level == level.Full {
		d.Checks = append(d.Checks, p.check)
		return err
	}
	if err != nil {
		p.check.Verdict, p.check.Reason = level.VerdictNote, "a full reboot would be refused: "+err.Error()
		d.Checks = append(d.Checks, p.check)
	}
	return nil
}

func (b *Boot) plan(ctx context.Context, root store.Root, f facts.Facts) (plan, error) {
	p := plan{check: level.Check{Name: CheckKernel, Verdict: level.VerdictNote}}
	if b.Config.Boot.Kernel == config.KernelHost {
		p.check.Reason = "the full reboot starts the host's own kernel ([boot] kernel)"
		return p, nil
	}
	next := b.Roots.Next(root.ID, f)
	var err error
	p.kernel, err = b.Machine.Boot.Kernel(next)
	if errors.Is(err, imagekernel.ErrNone) {
		p.check.Reason = "the image has no kernel, so the full reboot starts the same one as the last"
		return p, nil
	}
	if err != nil {
		return p, err
	}
	image, err := b.Machine.Trees.Inspect(next)
	if err != nil {
		return p, err
	}
	p.options, p.kernel = image.Kargs, p.kernel.With(image.Kargs)
	k, err := b.Read()
	if err != nil {
		return p, err
	}
	if b.starts(k, p, f) {
		p.check.Verdict = level.VerdictOK
		p.check.Reason = fmt.Sprintf("full reboots start the image's kernel, %s, already", p.kernel.Kernel)
		if k.Default == "" {
			p.check.Reason = fmt.Sprintf("the host's own kernel is that of the image, %s", p.kernel.Kernel)
		}
		return p, nil
	}
	if err := bootloader.Usable(p.kernel.Release, p.options); err != nil {
		return p, refuse(&p, err)
	}
	loader, err := b.Machine.Boot.CanStartOnce(ctx, next, p.kernel)
	if errors.Is(err, bootloader.ErrContainer) {
		p.check.Reason = err.Error()
		return p, nil
	}
	if errors.Is(err, imagekernel.ErrHost) || errors.Is(err, imagekernel.ErrInstall) {
		p.check.Verdict, p.check.Reason = level.VerdictRefuse, err.Error()
		return p, err
	}
	if err != nil {
		return p, refuse(&p, err)
	}
	p.fresh = true
	p.check.Verdict = level.VerdictOK
	p.check.Reason = fmt.Sprintf("%s starts %s, the image's kernel, once; it becomes the default when the root is good",
		loader, p.kernel.Kernel)
	return p, nil
}

// refuse returns a [roots.ErrFullReboot] for a plan that cannot be carried out, and why.
func refuse(p *plan, why error) error {
	p.check.Verdict, p.check.Reason = level.VerdictRefuse, why.Error()
	return fmt.Errorf("%w:\n%w; with `kernel = \"host\"` in [boot], the full reboot starts the host's own kernel",
		roots.ErrFullReboot, why)
}

// starts reports whether every full reboot starts the kernel of a plan already. Of the host's own kernel, that is known
// only while it runs.
func (*Boot) starts(k Kernels, p plan, f facts.Facts) bool {
	if k.Default != "" {
		return k.Default == p.kernel.ID
	}
	running := rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion}
	return k.Running(f) == "" && p.kernel.SameBuild(running) && len(rootfs.MissingKargs(f.CommandLine, p.options)) == 0
}

// Install installs the kernel of an image for a full reboot, unless it is there. It returns what that reboot starts,
// the zero value if what runs stays. Nothing starts it yet.
func (b *Boot) Install(ctx context.Context, root store.Root, version string, f facts.Facts) (level.Start, error) {
	p, err := b.plan(ctx, root, f)
	if err != nil || !p.fresh {
		return level.Start{}, err
	}
	k, err := b.Read()
	if err != nil {
		return level.Start{}, err
	}
	err = b.install(ctx, k, p, root, version, f)
	return level.Start{Entry: p.kernel.ID, Word: bootloader.Word(p.kernel.ID), Kernel: p.kernel.Kernel}, err
}

// StartOnce has the next full reboot start a kernel that was installed. [Boot.TakeBack] undoes it.
func (b *Boot) StartOnce(ctx context.Context, id string) error {
	k, err := b.Read()
	if err != nil {
		return err
	}
	if i := k.find(id); i < 0 || !k.Installed[i].Complete {
		return errors.New("the kernel of the image is not installed any more; try again")
	}
	k.Once = id
	if err := b.write(k); err != nil {
		return err
	}
	if err := b.Machine.Boot.StartOnce(ctx, k.Once); err != nil {
		b.TakeBack(ctx)
		return fmt.Errorf("cannot have the kernel of the image started: %w", err)
	}
	return nil
}

// install installs the kernel of a plan, unless it is complete.
func (b *Boot) install(ctx context.Context, k Kernels, p plan, root store.Root, version string, f facts.Facts) error {
	i := k.find(p.kernel.ID)
	if i < 0 {
		k.Installed = append(k.Installed, Installed{Kernel: p.kernel})
		i = len(k.Installed) - 1
	}
	if k.Installed[i].Complete {
		k.Installed[i].For = root.ID
		return b.write(k)
	}
	k.Installed[i] = Installed{Kernel: p.kernel, For: root.ID, Options: p.options, At: b.Now().UTC()}
	if err := b.write(k); err != nil {
		return err
	}
	b.Log.Info("installing the kernel of the image on the host root", zap.String("kernel", p.kernel.Release))
	title := strings.TrimSpace(fmt.Sprintf("%s %s with Linux %s", root.Info.OS.PrettyName, version, p.kernel.Release))
	if err := b.Machine.Boot.Install(ctx, b.Roots.Next(root.ID, f), p.kernel, title, p.options); err != nil {
		return err // the next command removes what is there
	}
	k.Installed[i].Complete = true
	return b.write(k)
}

// TakeBack has the boot loader start no kernel once any more, after a full reboot was refused or withdrawn.
func (b *Boot) TakeBack(ctx context.Context) {
	k, err := b.Read()
	if err == nil && k.Once != "" {
		err = b.takeBack(context.WithoutCancel(ctx), &k)
	}
	if err != nil {
		b.Log.Warn("cannot take back which kernel the next full reboot starts", zap.Error(err))
	}
}

func (b *Boot) takeBack(ctx context.Context, k *Kernels) error {
	if err := b.Machine.Boot.StartOnce(ctx, ""); err != nil {
		return err
	}
	k.Once = ""
	return b.write(*k)
}

// NoteLeft notes in the record that the kernel which a full reboot has started is left, for a reason: nothing can
// complete that switch any more.
func NoteLeft(rec *record.Record, why string) {
	if rec.Switch.Start.Entry != "" {
		rec.Last.Outcome, rec.Last.Reason = level.NotArmed, why
	}
}

// NoteProving notes that the running root is about to be recorded as good on the running kernel. [Boot.Settle] makes
// that the default afterwards. If it cannot be noted, the default stays.
func (b *Boot) NoteProving(f facts.Facts, rec *record.Record) {
	k, err := b.Read()
	if err == nil && (len(k.Installed) > 0 || len(k.Roots) > 0) {
		err = b.write(k.Proving(f, rec))
	}
	if err != nil {
		b.Log.Warn("cannot note which kernel the root is good on; full reboots start the one before", zap.Error(err))
	}
}

// Settle does what is left to do about the kernels of a host at rest, see [Kernels.Task]. What cannot be done is
// logged, and the next command tries again: none of it stands in the way of a rollback.
func (b *Boot) Settle(ctx context.Context, f facts.Facts, rec *record.Record) {
	if !b.Machine.Running {
		return
	}
	k, err := b.Read()
	if err == nil {
		err = b.settle(ctx, &k, k.Task(f, rec, b.Config.Boot.Kernel == config.KernelHost))
	}
	if err == nil && f.Root == switcher.HostRoot && !rec.Moving() {
		err = b.renew(ctx, k)
	}
	if err != nil {
		b.Log.Warn("cannot put the kernels of this host in order; the next command tries again", zap.Error(err))
	}
}

// Renew makes the initrds of images' kernels again, if those of the host root are newer.
func (b *Boot) Renew(ctx context.Context) {
	k, err := b.Read()
	if err == nil {
		err = b.renew(ctx, k)
	}
	if err != nil {
		b.Log.Warn("cannot make the initrds of kernels of images again", zap.Error(err))
	}
}

// renew makes initrds again. What they are made from is changed in the host root only.
func (b *Boot) renew(ctx context.Context, k Kernels) error {
	var complete []imagekernel.Kernel
	for _, i := range k.Installed {
		if i.Complete {
			complete = append(complete, i.Kernel)
		}
	}
	if len(complete) == 0 {
		return nil
	}
	renewed, err := b.Machine.Boot.Renew(ctx, complete)
	if len(renewed) > 0 {
		b.Log.Info("made initrds of kernels of images again, since the host's own are newer",
			zap.Strings("kernels", renewed))
	}
	return err
}

func (b *Boot) settle(ctx context.Context, k *Kernels, t Task) error {
	if t.TakeBack {
		if err := b.takeBack(ctx, k); err != nil {
			return err
		}
	}
	if t.SetDefault {
		k.Default, k.Unsure = t.Default, true
		if err := b.write(*k); err != nil {
			return err
		}
		if err := b.Machine.Boot.SetDefault(ctx, t.Default); err != nil {
			return fmt.Errorf("cannot set which kernel full reboots start: %w", err)
		}
		k.Unsure = false
		if err := b.write(*k); err != nil {
			return err
		}
		b.Log.Info("full reboots start another kernel now", zap.String("kernel", b.release(*k, t.Default)))
	}
	for _, i := range t.Remove {
		k.Installed[k.find(i.ID)].Complete = false
		if err := b.write(*k); err != nil {
			return err
		}
		if err := b.Machine.Boot.Remove(ctx, i.Kernel, !k.sharesModules(i)); err != nil {
			return err
		}
		k.Installed = slices.DeleteFunc(k.Installed, func(other Installed) bool { return other.ID == i.ID })
		if err := b.write(*k); err != nil {
			return err
		}
		b.Log.Info("removed a kernel that nothing needs from the host root", zap.String("kernel", i.Release))
	}
	return nil
}

// Default returns the release of the kernel of an image that full reboots start, "" if they start the host's own.
func (b *Boot) Default() string {
	k, err := b.Read()
	if i := k.find(k.Default); err == nil && i >= 0 {
		return k.Installed[i].Release
	}
	return ""
}

// release returns the release of a kernel, in words for one of the host's own.
func (*Boot) release(k Kernels, id string) string {
	if i := k.find(id); i >= 0 {
		return k.Installed[i].Release
	}
	return "the host's own"
}
