package imagekernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/bootloader"
)

// This file has the initrds of kernels, which the tools of the host make.

// initrdTime is how long the host's own tool may take to make an initrd, on a slow machine.
const initrdTime = 20 * time.Minute

// maker is a tool that makes an initrd. KERNEL and FILE stand for the release of the kernel and the file to write.
type maker struct {
	program string
	command []string
}

// makers are looked for in this order. An initrd of mkinitcpio that does not find its disk waits for a person, whatever
// the command line says, so it is not among them.
var makers = []maker{
	{"/usr/sbin/mkinitramfs", []string{"mkinitramfs", "-o", "FILE", "KERNEL"}},
	{"/usr/bin/dracut", []string{"dracut", "--force", "--quiet", "FILE", "KERNEL"}},
}

// maker returns the tool of the host, or an ErrHost.
func (p Place) maker() (maker, error) {
	for _, m := range makers {
		if _, err := os.Stat(p.Host.Path(m.program)); err == nil {
			return m, nil
		}
	}
	return maker{}, fmt.Errorf("%w: it has no tool to make an initrd that reboots if it does not find its disk: install "+
		"initramfs-tools or dracut there (the initrds of mkinitcpio wait for a person)", ErrHost)
}

// makeInitrd has the host make an initrd for the kernel, as it does for its own.
func (p Place) makeInitrd(ctx context.Context, k Kernel) error {
	ctx, cancel := context.WithTimeout(ctx, initrdTime)
	defer cancel()
	p.buildModules(ctx, k)
	inHost := filepath.Join(p.Loader.Dir(k.ID), bootloader.Initrd)
	half := inHost + ".new"
	m, err := p.maker()
	if err != nil {
		return err
	}
	var args []string
	for _, a := range m.command {
		args = append(args, strings.NewReplacer("FILE", half, "KERNEL", k.Release).Replace(a))
	}
	if out, err := p.Host.Run(ctx, nil, args...); err != nil {
		return errors.Join(err, os.RemoveAll(p.Host.Path(half)))
	} else if st, err := os.Stat(p.Host.Path(half)); err != nil || st.Size() == 0 {
		return fmt.Errorf("%s has made no initrd: %s", m.program, out)
	}
	if err := durable.SyncFS(p.Host.Path(filepath.Dir(half))); err != nil {
		return err
	}
	return errors.Join(os.Rename(p.Host.Path(half), p.Host.Path(inHost)),
		durable.SyncFS(p.Host.Path(filepath.Dir(half))))
}

// hostInitrds are the names that tools give the initrds of the host's own kernels.
var hostInitrds = []string{"/boot/initrd.img-*", "/boot/initramfs-*.img"}

// Renew makes the initrds of kernels again if the host has made one for its own kernels since: disks may have other
// names now. An old one stays if that fails. It returns the releases of those that are new.
func (p Place) Renew(ctx context.Context, kernels []Kernel) (renewed []string, errs error) {
	for _, k := range kernels {
		is, err := p.renew(ctx, k)
		if is {
			renewed = append(renewed, k.Release)
		}
		errs = errors.Join(errs, err)
	}
	return renewed, errs
}

// renew reports whether there is a new initrd.
func (p Place) renew(ctx context.Context, k Kernel) (bool, error) {
	ours, err := os.Stat(p.Host.Path(filepath.Join(p.Loader.Dir(k.ID), bootloader.Initrd)))
	if err != nil {
		return false, fmt.Errorf("cannot find out how old the initrd of %s is: %w", k.Release, err)
	}
	newer := false
	for _, pattern := range hostInitrds {
		names, err := filepath.Glob(p.Host.Path(pattern))
		if err != nil {
			return false, err
		}
		for _, name := range names {
			st, err := os.Stat(name)
			newer = newer || err == nil && st.ModTime().After(ours.ModTime())
		}
	}
	if !newer {
		return false, nil
	}
	if err := cmp.Or(p.haveRoom(map[string]int64{filepath.Dir(filepath.Dir(p.Loader.Dir(k.ID))): roomForInitrd,
		"/var/tmp": roomForInitrd}), p.makeInitrd(ctx, k)); err != nil {
		return false, fmt.Errorf("cannot make the initrd of %s again: %w", k.Release, err)
	}
	return true, nil
}

// buildModules has the host build the modules that it has only the source of (dkms(8)). One that cannot be built is no
// error here: if the host needs it to start, the kernel does not come up, and the one before does.
func (p Place) buildModules(ctx context.Context, k Kernel) {
	if _, err := os.Stat(p.Host.Path("/usr/sbin/dkms")); err == nil {
		_, _ = p.Host.Run(ctx, nil, "dkms", "autoinstall", "-k", k.Release)
	}
}
