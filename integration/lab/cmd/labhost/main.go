// Labhost runs one lab host for a person to work with.
//
//	labhost up            boot a host and a registry in the background, and print how to reach them
//	labhost run CMD...    run a command in the host
//	labhost in CMD...     run a command in the enclosure, which reaches the registry and the host's network
//	labhost copy FROM TO  copy a file or directory into the host
//	labhost down          end the host and the registry
//	labhost prepare       install and build what all hosts and tests need
//
// LABHOST is the name of the host, "lab" by default: several can run at once. LABKIND=qemu boots it in a machine
// instead of a container.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: labhost up | run CMD... | in CMD... | copy FROM TO | down | prepare")
		os.Exit(2)
	}
	os.Exit(command(os.Args[1], os.Args[2:]))
}

// name returns the host's name.
func name() string {
	if name := os.Getenv("LABHOST"); name != "" {
		return name
	}
	return "lab"
}

// mark returns the name of the file by which its run is found.
func mark() string { return "labhost-" + name() }

func command(verb string, args []string) int {
	ctx := context.Background()
	switch verb {
	case "serve": // started by "up", and again inside the enclosure
		return lab.Enter(needs(), func() int { return report(serve(ctx)) })
	case "prepare":
		return lab.Enter(prepare, func() int { return report(lab.Pack(ctx)) })
	}
	switch verb {
	case "visit": // started by "run" in the enclosure of a machine
		r := lab.VisitMachine(ctx, name(), os.Stdin, args...)
		fmt.Fprint(os.Stdout, r.Stdout)
		fmt.Fprint(os.Stderr, r.Stderr)
		return r.Code & 0xff
	case "up":
		return report(up(ctx))
	}
	visit, err := lab.FindRun(mark())
	if err != nil {
		return report(err)
	}
	switch {
	case verb == "run" && len(args) > 0:
		cmd, err := inHost(ctx, visit, args...)
		if err != nil {
			return report(err)
		}
		return pass(cmd)
	case verb == "in" && len(args) > 0:
		return pass(visit.Enclosure(ctx, args...))
	case verb == "copy" && len(args) == 2:
		return report(copyIn(ctx, visit, args[0], args[1]))
	case verb == "down":
		return report(visit.End())
	}
	return report(fmt.Errorf("unknown command %q", verb))
}

func report(err error) int {
	if err != nil {
		fmt.Fprintf(os.Stderr, "labhost: %v\n", err)
		return 1
	}
	return 0
}

// inHost returns a command in the host.
func inHost(ctx context.Context, visit *lab.Visit, args ...string) (*exec.Cmd, error) {
	if !visit.IsMachine(name()) {
		return visit.Host(ctx, name(), args...)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return visit.Enclosure(ctx, append([]string{self, "visit"}, args...)...), nil
}

// pass runs a command with this one's standard streams and returns its exit code.
func pass(cmd *exec.Cmd) int {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := lab.RunAwake(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	}
	return report(err)
}

// copyIn copies a file or a directory into the host. It belongs to root there.
func copyIn(ctx context.Context, visit *lab.Visit, from, to string) error {
	return lab.Copy(ctx, from, to, func(ctx context.Context, stdin io.Reader, args ...string) error {
		unpack, err := inHost(ctx, visit, args...)
		if err != nil {
			return err
		}
		unpack.Stdin, unpack.Stderr = stdin, os.Stderr
		return lab.RunAwake(unpack)
	}, "--no-same-owner")
}

// prepare also installs what the race detector and the unit tests need, and git for the version of the binaries.
func prepare(ctx context.Context) error {
	if err := lab.EnsurePackages(ctx, "gcc", "libc6-dev", "git", "erofs-utils", "ca-certificates"); err != nil {
		return err
	}
	return lab.Prepare(lab.Everything...)(ctx)
}

// needs returns the function that builds what "up" needs.
func needs() func(ctx context.Context) error {
	things := []lab.Thing{lab.HostDisk, lab.V2, lab.Tools}
	if kind() == lab.QEMU {
		things = append(things, lab.Machines)
	}
	return lab.Prepare(things...)
}

// kind returns how the host is run.
func kind() lab.Kind {
	if os.Getenv("LABKIND") == "qemu" {
		return lab.QEMU
	}
	return lab.Nspawn
}

// up starts the enclosure as a background process and waits until the host in it is up.
func up(ctx context.Context) error {
	if _, err := lab.FindRun(mark()); err == nil {
		return fmt.Errorf("%s is already up", name())
	}
	if err := needs()(ctx); err != nil { // here, where a person sees its progress
		return err
	}
	if err := os.MkdirAll(lab.CacheDir(), 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(lab.CacheDir(), "labhost-"+name()+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	ready, told, err := os.Pipe()
	if err != nil {
		return err
	}
	// "go run" removes its binary when this process ends, and the background process executes itself once more.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	program := filepath.Join(lab.CacheDir(), "labhost-"+name())
	if err := os.WriteFile(program, self, 0o755); err != nil {
		return err
	}
	cmd := exec.Command(program, "serve")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Stdin = told // serve, which runs inside the enclosure, reports through it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	told.Close()
	text := make([]byte, 1<<10)
	_ = ready.SetReadDeadline(time.Now().Add(15 * time.Minute)) // a busy processor slows a machine down
	n, err := ready.Read(text)
	if err != nil {
		return fmt.Errorf("cannot boot %s, see %s: %w", name(), log.Name(), err)
	}
	fmt.Print(string(text[:n]))
	return nil
}

// serve boots the host, reports it and runs it until a signal ends it.
func serve(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := os.WriteFile(filepath.Join(lab.RunDir(), mark()), nil, 0o644); err != nil {
		return err
	}
	registry, err := lab.StartRegistry(ctx, lab.RegistryOptions{})
	if err != nil {
		return err
	}
	defer registry.Stop()
	host, err := lab.Boot(ctx, lab.Options{Name: name(), Kind: kind()})
	if err != nil {
		return err
	}
	defer host.Stop()
	v1, err := lab.V1(ctx)
	if err != nil {
		return err
	}
	v2, err := lab.V2(ctx)
	if err != nil {
		return err
	}
	tools, err := lab.Tools(ctx)
	if err != nil {
		return err
	}
	told := os.NewFile(0, "told")
	fmt.Fprintf(told, "host %s is up\n  address   %s (from \"labhost in\")\n  registry  %s (plain HTTP, from both)\n"+
		"  console   %s\n"+
		"  tree v1   %s\n  tree v2   %s\n  tools     %s\n",
		host.Name, host.Addr, registry.Host, filepath.Join(lab.RunDir(), host.Name, "console.log"), v1, v2, tools)
	told.Close()
	<-ctx.Done()
	return nil
}
