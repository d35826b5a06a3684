package lab

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

// A Thing is what the lab builds once and keeps in its cache, such as [V2]. It returns the path.
type Thing func(ctx context.Context) (string, error)

// Everything is what the hosts, the registries and the publishers of all tests need.
var Everything = []Thing{HostDisk, V2, V3, Tools, OldTools, oldDisk, builder, Machines, EtcdTree, FleetLockBinary,
	PrometheusTree}

// Prepare returns a function that installs what the lab needs and builds things, for [Enter], which calls it outside,
// where the network is: what a run needs has to be named in advance. Things are built side by side.
func Prepare(things ...Thing) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		if err := EnsurePackages(ctx, packages...); err != nil {
			return err
		}
		return build(ctx, things...)
	}
}

// build builds things side by side and returns the first error.
func build(ctx context.Context, things ...Thing) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all sync.WaitGroup
	for _, thing := range things {
		all.Go(func() {
			if _, err := thing(ctx); err != nil {
				fail(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// Pack builds what the tests of "make hosts" need besides and only the enclosure can build: images and kernel
// modules. The first run that needs others builds them.
func Pack(ctx context.Context) error {
	packed := func(tree Thing) Thing {
		return func(ctx context.Context) (string, error) {
			path, err := tree(ctx)
			if err != nil {
				return "", err
			}
			return layout(ctx, path)
		}
	}
	modules := func(tree Thing) Thing {
		return func(ctx context.Context) (string, error) {
			path, err := tree(ctx)
			if err != nil {
				return "", err
			}
			_, err = Modules(ctx, path)
			return "", err
		}
	}
	return build(ctx, packed(V1), packed(V2), modules(V1), modules(V2))
}

// atOnce limits how many steps run side by side. One alone leaves a processor idle: dpkg uses one, and waits for the
// network before.
var atOnce = make(chan struct{}, 2)

// step does what takes a while, beside one other at most. It says so on standard error, and then how long it took.
func step(name, what string, do func() error) error {
	atOnce <- struct{}{}
	defer func() { <-atOnce }()
	fmt.Fprintf(os.Stderr, "lab: %s: %s ...\n", name, what)
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "lab: %s: done in %s\n", name, time.Since(start).Round(time.Second))
	return nil
}
