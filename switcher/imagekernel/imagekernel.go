// Package imagekernel answers what of an image's kernel is on the host root, and how it gets there. It promises that a
// kernel is in the menu of the boot loader only when it is complete, and that nothing of the distribution's own kernels
// is changed or removed.
package imagekernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/hostroot"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Kernel is the kernel of an image.
type Kernel struct {
	// Build is made from the content of the kernel, and ID from that and the parameters that the image wants: the same
	// kernel with the same parameters is installed once, however many images have it.
	Build string `json:"build"`
	ID    string `json:"id"`
	rootfs.Kernel
}

// With returns the kernel with some parameters.
func (k Kernel) With(options []string) Kernel {
	const length = 2 // bytes
	sum := sha256.Sum256([]byte(strings.Join(options, "\n")))
	k.ID = k.Build + hex.EncodeToString(sum[:length])
	return k
}

var (
	// ErrNone means that an image has no kernel that could be started.
	ErrNone = errors.New("the image has no kernel")
	// ErrInstall means that a kernel cannot be installed on this host.
	ErrInstall = errors.New("cannot install the kernel of the image")
	// ErrHost means that the host root lacks what a kernel of an image needs, whichever it is.
	ErrHost = errors.New("the host root cannot start the kernel of an image")
)

const (
	modulesDir = "/usr/lib/modules"
	// marker is a file in a directory of modules that updatectl has made, with the build of the kernel.
	marker = ".updatectl"
	// unfinished begins the names of directories of modules that are being copied.
	unfinished = ".updatectl-"

	maxKernel = 256 << 20 // of a kernel, in bytes
)

// Find returns the newest kernel of an image that has both an image file and modules, without parameters. The error
// is an ErrNone.
func Find(image rootfs.Dir) (Kernel, error) {
	var found Kernel
	for _, k := range image.Kernels() {
		if found.Release != "" && rootfs.CompareKernels(k.Release, found.Release) < 0 {
			continue
		}
		if f, err := open(image, k.Release); err == nil {
			f.Close()
			found.Kernel = k
		}
	}
	if found.Release == "" {
		return found, ErrNone
	}
	f, err := open(image, found.Release)
	if err != nil {
		return found, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxKernel+1))
	if err == nil && n > maxKernel {
		err = fmt.Errorf("%w: %s is larger than %d MiB", ErrInstall, f.Name(), maxKernel>>20)
	}
	const idLength = 6 // bytes: enough to tell a dozen kernels apart
	found.Build = hex.EncodeToString(h.Sum(nil)[:idLength])
	return found.With(nil), err
}

// open opens the file of a kernel in an image.
func open(image rootfs.Dir, release string) (*os.File, error) {
	f, err := image.Open(filepath.Join(modulesDir, release, "vmlinuz"))
	if err != nil {
		f, err = image.Open("/boot/vmlinuz-" + release)
	}
	return f, err
}

// Place is where a kernel is installed.
type Place struct {
	Host   bootloader.Tree
	Loader bootloader.Loader
}

// InHostRoot calls a function with the host root of this machine, writable, and its boot loader. The error may be a
// [bootloader.ErrUnsupported] or [bootloader.ErrContainer].
func InHostRoot(ctx context.Context, do func(Place) error) error {
	if bootloader.IsContainer() {
		return bootloader.ErrContainer
	}
	running, err := facts.MountedRoot()
	if err != nil {
		return err
	}
	from := switcher.PrivateDir + "/host"
	if running == switcher.HostRoot {
		from = "/"
	}
	return hostroot.Do(from, func(r hostroot.Root) error {
		loader, err := bootloader.Find(ctx, r)
		if err != nil {
			return err
		}
		return do(Place{Host: r, Loader: loader})
	})
}

// Install installs a kernel of an image beside those of the host, as an entry with some options on its command line.
// What is complete stays. It is no default afterwards. The error is an ErrInstall.
func (p Place) Install(ctx context.Context, image rootfs.Dir, k Kernel, title string, options []string) error {
	steps := []func() error{
		func() error { return p.check(image, k) },
		func() error { return p.copyModules(image, k) },
		func() error { return p.copyKernel(image, k) },
		func() error { return p.makeInitrd(ctx, k) },
		func() error {
			return p.Loader.Add(ctx, bootloader.Entry{ID: k.ID, Title: title, Release: k.Release, Options: options})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("%w %s: %w", ErrInstall, k.Release, err)
		}
	}
	return nil
}

// copyModules copies the modules of the kernel to the host root, unless they are there.
func (p Place) copyModules(image rootfs.Dir, k Kernel) error {
	at := p.Host.Path(filepath.Join(modulesDir, k.Release))
	half := p.Host.Path(filepath.Join(modulesDir, unfinished+k.Release))
	if err := durable.RemoveAll(half); err != nil {
		return err
	}
	if _, err := os.Lstat(at); err == nil {
		return p.checkModules(k)
	}
	if err := os.Mkdir(half, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(half)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := copies.Into(string(image)+filepath.Join(modulesDir, k.Release), dir, copies.Owners{}); err != nil {
		return err
	}
	// The tools of the host take a directory with a kernel for one of the host's own.
	if err := os.Remove(filepath.Join(half, "vmlinuz")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.WriteFile(filepath.Join(half, marker), []byte(k.Build+"\n"), 0o644); err != nil {
		return err
	}
	if err := durable.SyncFS(half); err != nil {
		return err
	}
	return errors.Join(os.Rename(half, at), durable.SyncDir(p.Host.Path(modulesDir)))
}

// checkModules returns why the modules that are there already are not those of the kernel.
func (p Place) checkModules(k Kernel) error {
	at := p.Host.Path(filepath.Join(modulesDir, k.Release))
	const longest = 256
	build, err := durable.ReadRegular(filepath.Join(at, marker), longest)
	switch {
	case errors.Is(err, fs.ErrNotExist) && rootfs.Dir(p.Host.Path("/")).Brings(k.Kernel):
		return nil // the host's own, of the same build
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the host root has another build of this kernel, or a part of one, in %s; an image whose kernel "+
			"has another release can be installed", filepath.Join(modulesDir, k.Release))
	case err == nil && strings.TrimSpace(string(build)) != k.Build:
		return fmt.Errorf("%s of the host root belongs to another build of this kernel, from another image; "+
			"`updatectl gc` removes it when no root needs it", filepath.Join(modulesDir, k.Release))
	}
	return err
}

// copyKernel copies the kernel to the directory of its entry.
func (p Place) copyKernel(image rootfs.Dir, k Kernel) error {
	from, err := open(image, k.Release)
	if err != nil {
		return err
	}
	defer from.Close()
	dir := p.Host.Path(p.Loader.Dir(k.ID))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	half := filepath.Join(dir, bootloader.Kernel+".new")
	to, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.LimitReader(from, maxKernel))
	if err := errors.Join(err, to.Sync(), to.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(half, filepath.Join(dir, bootloader.Kernel)), durable.SyncFS(dir))
}

// Remove removes a kernel from the host root: its entry first, then its files and, if asked, the modules, unless the
// distribution has a kernel of that release now. It is no error if some or all of it is gone.
func (p Place) Remove(ctx context.Context, k Kernel, modules bool) error {
	if err := p.Loader.Remove(ctx, k.ID); err != nil {
		return fmt.Errorf("cannot remove the kernel %s from the host root: %w", k.Release, err)
	}
	if !modules {
		return nil
	}
	if err := p.removeModules(k); err != nil {
		return fmt.Errorf("cannot remove the modules of the kernel %s from the host root: %w", k.Release, err)
	}
	return nil
}

func (p Place) removeModules(k Kernel) error {
	at := p.Host.Path(filepath.Join(modulesDir, k.Release))
	half := p.Host.Path(filepath.Join(modulesDir, unfinished+k.Release))
	if err := durable.RemoveAll(half); err != nil {
		return err
	}
	const longest = 256
	build, err := durable.ReadRegular(filepath.Join(at, marker), longest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || strings.TrimSpace(string(build)) != k.Build {
		return err
	}
	for _, own := range []string{p.Host.Path("/boot/vmlinuz-" + k.Release), filepath.Join(at, "vmlinuz")} {
		if _, err := os.Lstat(own); err == nil { // a package has come for it
			return os.Remove(filepath.Join(at, marker))
		}
	}
	if err := os.Rename(at, half); err != nil { // a directory without some of its modules has no final name
		return err
	}
	return durable.RemoveAll(half)
}
