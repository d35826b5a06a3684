package machine

import (
	"cmp"
	"context"

	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/hostroot"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Boot is the boot loader of this machine, and the kernels of images on its host root.
type Boot interface {
	// Kernel returns the kernel of a root. The error is an [imagekernel.ErrNone] if it has none.
	Kernel(assembly.Next) (imagekernel.Kernel, error)
	// CanStartOnce returns the name of the boot loader. The error may be a bootloader.ErrUnsupported, or that of
	// [imagekernel.Place.Fits].
	CanStartOnce(ctx context.Context, n assembly.Next, k imagekernel.Kernel) (loader string, err error)
	// Renew makes the initrds of these kernels again that are older than those of the host's own. It returns the
	// releases of those that are new.
	Renew(ctx context.Context, kernels []imagekernel.Kernel) ([]string, error)
	// Install and Remove are those of [imagekernel.Place], StartOnce and SetDefault those of [bootloader.Loader].
	Install(ctx context.Context, n assembly.Next, k imagekernel.Kernel, title string, options []string) error
	Remove(ctx context.Context, k imagekernel.Kernel, modules bool) error
	StartOnce(ctx context.Context, id string) error
	SetDefault(ctx context.Context, id string) error
}

// HostRoot is the host root, for who maintains it.
type HostRoot interface {
	// Run is documented at [hostroot.Programs].
	Run(ctx context.Context, from string, p hostroot.Program) (code int, err error)
}

type hostBoot struct{}

func (hostBoot) Kernel(n assembly.Next) (k imagekernel.Kernel, err error) {
	err = inTree(n, func(image rootfs.Dir) error { k, err = imagekernel.Find(image); return err })
	return k, err
}

func (hostBoot) CanStartOnce(ctx context.Context, n assembly.Next, k imagekernel.Kernel) (loader string, err error) {
	err = besideImage(ctx, n, func(p imagekernel.Place, image rootfs.Dir) error {
		loader = p.Loader.Name()
		return cmp.Or(p.Loader.CanStartOnce(ctx), p.Fits(image, k))
	})
	return loader, err
}

func (hostBoot) Install(ctx context.Context, n assembly.Next, k imagekernel.Kernel, title string,
	options []string) error {
	return besideImage(ctx, n, func(p imagekernel.Place, image rootfs.Dir) error {
		return p.Install(ctx, image, k, title, options)
	})
}

// besideImage calls do in the host root, with the tree of an image.
func besideImage(ctx context.Context, n assembly.Next, do func(imagekernel.Place, rootfs.Dir) error) error {
	return inTree(n, func(image rootfs.Dir) error {
		return imagekernel.InHostRoot(ctx, func(p imagekernel.Place) error { return do(p, image) })
	})
}

func (hostBoot) Renew(ctx context.Context, kernels []imagekernel.Kernel) (renewed []string, err error) {
	err = imagekernel.InHostRoot(ctx, func(p imagekernel.Place) error {
		renewed, err = p.Renew(ctx, kernels)
		return err
	})
	return renewed, err
}

func (hostBoot) Remove(ctx context.Context, k imagekernel.Kernel, modules bool) error {
	return imagekernel.InHostRoot(ctx, func(p imagekernel.Place) error { return p.Remove(ctx, k, modules) })
}

func (hostBoot) StartOnce(ctx context.Context, id string) error {
	return imagekernel.InHostRoot(ctx, func(p imagekernel.Place) error { return p.Loader.StartOnce(ctx, id) })
}

func (hostBoot) SetDefault(ctx context.Context, id string) error {
	return imagekernel.InHostRoot(ctx, func(p imagekernel.Place) error { return p.Loader.SetDefault(ctx, id) })
}
