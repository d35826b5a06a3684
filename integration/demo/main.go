// Demo shows the main job on a real Debian host in a container: the host switches to image 1, to image 2, and rolls
// back, while a client outside measures how long its web server is away. "make demo" runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab"
)

const repository = "os/server:stable"

func main() {
	os.Exit(lab.Enter(prepare, func() int {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		if err := play(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "demo: %v\n", err)
			return 1
		}
		return 0
	}))
}

// prepare builds what the demo needs: the disk of a host, the tree of a second image, a registry and cosign.
func prepare(ctx context.Context) error {
	fmt.Printf("Setting up two Debian roots and a registry in %s. The first time takes a few minutes.\n",
		lab.CacheDir())
	return lab.Prepare(lab.HostDisk, lab.V2, lab.Tools)(ctx)
}

// stage holds the host and everything around it.
type stage struct {
	host      *lab.Host
	registry  *lab.Registry
	publisher *lab.Publisher
	probe     *lab.Probe
	seen      int // outages already reported
	last      moment
}

// moment is the state of the host that is compared before and after each switch.
type moment struct {
	stamp            lab.BootStamp
	kernel, os, page string
	packages         map[string]string // versions by name
}

func play(ctx context.Context) error {
	s, err := build(ctx)
	if err != nil {
		return err
	}
	defer s.registry.Stop()
	defer s.host.Stop()
	defer s.probe.Stop()
	steps := []struct {
		title string
		do    func(ctx context.Context) error
	}{
		{"A publisher packs image 1, signs it and pushes it to a registry", s.release("1", lab.V1)},
		{"The host checks, stages what it has verified, and plans the switch", s.ask},
		{"updatectl apply: from the host root to image 1", s.move("apply")},
		{"Debian has updates: the publisher releases image 2", s.release("2", lab.V2)},
		{"updatectl apply: from image 1 to image 2", s.move("apply")},
		{"Second thoughts. updatectl rollback: from image 2 to image 1", s.move("rollback")},
		{"Back to the start. updatectl rollback: from image 1 to the host root", s.move("rollback")},
		{"What the host remembers", s.remember},
	}
	for i, step := range steps {
		fmt.Printf("\n%d. %s\n", i+1, step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// build boots the host, with updatectl installed and with data of its own.
func build(ctx context.Context) (*stage, error) {
	s := &stage{}
	var err error
	if s.registry, err = lab.StartRegistry(ctx, lab.RegistryOptions{}); err != nil {
		return nil, err
	}
	if s.publisher, err = lab.NewPublisher(ctx); err != nil {
		return nil, err
	}
	s.host, err = lab.Boot(ctx, lab.Options{Name: "demo", Customise: func(root string) error {
		if err := lab.Install(root); err != nil {
			return err
		}
		return lab.Follow(root, s.registry, repository, s.publisher)
	}})
	if err != nil {
		return nil, err
	}
	if s.probe, err = lab.StartProbe("http://"+s.host.Addr+"/", s.host.Patience()); err != nil {
		return nil, err
	}
	if _, err := s.run(ctx, "sh", "-ec",
		"useradd --create-home alice; redis-cli set visits 42; echo mine >/home/alice/notes"); err != nil {
		return nil, err
	}
	if s.last, err = s.now(ctx); err != nil {
		return nil, err
	}
	fmt.Printf("A Debian host has booted: %s, kernel %s.\n"+
		"It has a user alice, a redis with data, and a web server that a client "+
		"outside polls.\n", s.last.os, s.last.kernel)
	return s, nil
}

// release packs, signs and pushes a tree with releasectl, and lets cosign verify the signature.
func (s *stage) release(version string, tree func(context.Context) (string, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		root, err := tree(ctx)
		if err != nil {
			return err
		}
		layout := filepath.Join(lab.RunDir(), "image-"+version)
		reference := s.registry.Host + "/" + repository
		for _, args := range [][]string{
			{"pack", "--version", version, root, layout},
			{"sign", "--key", s.publisher.Key, "oci:" + layout},
			{"push", "--plain-http", layout, reference},
		} {
			if err := releasectl(ctx, args...); err != nil {
				return err
			}
		}
		if err := s.publisher.Verify(ctx, s.registry, reference); err != nil {
			return err
		}
		fmt.Println("   cosign verify accepts the signature.")
		return nil
	}
}

func releasectl(ctx context.Context, args ...string) error {
	program, err := lab.FindBinary("releasectl")
	if err != nil {
		return err
	}
	typed("releasectl", args)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot run releasectl: %w\n%s", err, out)
	}
	return nil
}

// ask shows what the host finds out before it switches.
func (s *stage) ask(ctx context.Context) error {
	for _, args := range [][]string{{"check"}, {"stage"}, {"plan"}} {
		const available = 10 // the exit code, which is an answer and not an error
		if err := s.show(ctx, available, args...); err != nil {
			return err
		}
	}
	return nil
}

// move runs a command that switches to another root, and prints what changed and what did not.
func (s *stage) move(verb string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.show(ctx, 0, verb); err != nil {
			return err
		}
		if _, err := s.host.AwaitBoot(ctx, s.last.stamp); err != nil {
			return err
		}
		if _, err := s.run(ctx, "systemctl", "start", "updatectl-confirm.service"); err != nil {
			return err
		}
		now, err := s.now(ctx)
		if err != nil {
			return err
		}
		before := s.last
		s.last = now
		return s.compare(ctx, before, now)
	}
}

func (s *stage) compare(ctx context.Context, before, now moment) error {
	if now.kernel != before.kernel || now.stamp.BootID != before.stamp.BootID {
		return fmt.Errorf("that was a full reboot: %+v, then %+v", before, now)
	}
	kept, err := s.run(ctx, "sh", "-ec", "redis-cli get visits; cat /home/alice/notes; id -un alice")
	if err != nil {
		return err
	}
	if got := strings.Join(strings.Fields(kept), " "); got != "42 mine alice" {
		return fmt.Errorf("the host has lost data: %q", got)
	}
	failed, err := s.host.FailedUnits(ctx)
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("units have failed: %s", strings.Join(failed, ", "))
	}
	outage, err := s.outage()
	if err != nil {
		return err
	}
	fmt.Printf("   Userspace    %s -> %s\n", before.os, now.os)
	fmt.Printf("   Packages     %s\n", difference(before.packages, now.packages))
	fmt.Printf("   Web page     %q -> %q\n", before.page, now.page)
	fmt.Printf("   Kernel       %s, unchanged; boot id %s, unchanged; soft reboots %d\n", now.kernel, now.stamp.BootID,
		now.stamp.SoftReboots)
	fmt.Printf("   Kept         alice, her notes, redis' data; no failed unit\n")
	fmt.Printf("   Outage       %d ms, as the client outside saw it\n", outage.Milliseconds())
	return nil
}

// outage returns how long the web server was away since the last call.
func (s *stage) outage() (time.Duration, error) {
	all := s.probe.Outages()
	fresh := all[s.seen:]
	s.seen = len(all)
	var sum time.Duration
	for _, o := range fresh {
		sum += o.Length()
	}
	if sum == 0 {
		return 0, errors.New("the client saw no outage, so it did not poll")
	}
	return sum, nil
}

func (s *stage) remember(ctx context.Context) error {
	if err := s.show(ctx, 0, "status"); err != nil {
		return err
	}
	return s.show(ctx, 0, "history")
}

// now returns the state of the host, seen from inside, and its web page, seen from outside.
func (s *stage) now(ctx context.Context) (moment, error) {
	stamp, err := s.host.Stamp(ctx)
	if err != nil {
		return moment{}, err
	}
	kernel, err := s.run(ctx, "uname", "-r")
	if err != nil {
		return moment{}, err
	}
	system, err := s.run(ctx, "sh", "-ec",
		`. /etc/os-release; echo "Debian $DEBIAN_VERSION_FULL${IMAGE_VERSION:+, image $IMAGE_VERSION}"`)
	if err != nil {
		return moment{}, err
	}
	list, err := s.run(ctx, "dpkg-query", "--show", "--showformat", "${binary:Package} ${Version}\n")
	if err != nil {
		return moment{}, err
	}
	packages := map[string]string{}
	for line := range strings.Lines(list) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		packages[name] = version
	}
	answers := s.probe.Answers()
	return moment{stamp: stamp, kernel: kernel, os: system, page: answers[len(answers)-1].Text,
		packages: packages}, nil
}

// difference describes how a list of packages changed.
func difference(before, now map[string]string) string {
	var added, removed, changed int
	for name, version := range now {
		if old, known := before[name]; !known {
			added++
		} else if old != version {
			changed++
		}
	}
	for name := range before {
		if _, still := now[name]; !still {
			removed++
		}
	}
	if added+removed+changed == 0 {
		return fmt.Sprintf("the same %d", len(now))
	}
	return fmt.Sprintf("%d of %d changed, %d added, %d removed", changed, len(now), added, removed)
}

// run runs a command in the host and returns its output.
func (s *stage) run(ctx context.Context, args ...string) (string, error) {
	r := s.host.Run(ctx, args...)
	if r.Code != 0 {
		return "", fmt.Errorf("%s: %s", strings.Join(args, " "), r)
	}
	return strings.TrimSpace(r.Stdout), nil
}

// show runs updatectl in the host and prints its output, indented. It expects an exit code, or that the soft reboot
// has killed the command before its end.
func (s *stage) show(ctx context.Context, code int, args ...string) error {
	typed("updatectl", args)
	r := s.host.Run(ctx, append([]string{"updatectl"}, args...)...)
	for line := range strings.Lines(r.Stdout) {
		fmt.Print("     ", line)
	}
	if r.Code != code && r.Code < 128 {
		return fmt.Errorf("updatectl %s: %s", strings.Join(args, " "), r)
	}
	return nil
}

// typed prints a command as a person would type it.
func typed(program string, args []string) {
	short := make([]string, len(args))
	for i, arg := range args {
		short[i] = arg
		if filepath.IsAbs(arg) {
			short[i] = filepath.Base(arg)
		}
	}
	fmt.Printf("   $ %s %s\n", program, strings.Join(short, " "))
}
