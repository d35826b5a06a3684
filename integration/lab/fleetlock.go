package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// EtcdTree returns a tree with etcd, which runs chrooted.
func EtcdTree(ctx context.Context) (string, error) {
	return tree(ctx, "etcd", recipe{Suites: []string{"bookworm"}, Packages: []string{"etcd-server"}})
}

// FleetLockBinary returns the path of the FleetLock server.
func FleetLockBinary(ctx context.Context) (string, error) {
	return program(ctx, "labfleetlock", "the FleetLock server", "integration/lab/fleetlockd")
}

// Etcd is Debian's etcd, serving on the loopback interface of the enclosure, with its data in the run's directory.
type Etcd struct {
	URL string
	daemon
}

// StartEtcd starts etcd; inside the enclosure only.
func StartEtcd(ctx context.Context) (*Etcd, error) {
	tree, err := EtcdTree(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := serving(tree, "etcd")
	if err != nil {
		return nil, err
	}
	return startEtcd(dir, func(args ...string) *exec.Cmd {
		return Chrooted(context.Background(), tree, "etcd", args...)
	})
}

// Start starts etcd again after Stop, and waits until it serves: it listens before it has elected itself.
func (e *Etcd) Start() error {
	if err := e.daemon.Start(); err != nil {
		return err
	}
	err := poll(startTime, func() (bool, error) {
		answer, err := http.Get(e.URL + "/health")
		if err != nil {
			return false, nil
		}
		return answer.StatusCode == http.StatusOK, answer.Body.Close()
	})
	if err != nil {
		e.Stop()
		return fmt.Errorf("etcd does not serve: %w", err)
	}
	return nil
}

// startEtcd starts etcd as a command, with its data in a directory.
func startEtcd(dir string, command func(args ...string) *exec.Cmd) (*Etcd, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	peers, err := freePort()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	e := &Etcd{URL: "http://" + address}
	e.daemon = daemon{name: "etcd", address: address, log: filepath.Join(dir, "log"), command: func() *exec.Cmd {
		peer := "http://127.0.0.1:" + strconv.Itoa(peers) // of a cluster of one
		return command("--data-dir="+filepath.Join(dir, "data"), "--listen-client-urls="+e.URL,
			"--advertise-client-urls="+e.URL, "--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer,
			"--initial-cluster=default="+peer)
	}}
	return e, e.Start()
}

// FleetLock is a FleetLock server that the enclosure and every host can reach.
type FleetLock struct {
	URL string
	daemon
}

// StartFleetLock starts a FleetLock server, which gives groups that etcd does not have yet a number of slots; inside
// the enclosure only.
func StartFleetLock(ctx context.Context, e *Etcd, slots int) (*FleetLock, error) {
	binary, err := FleetLockBinary(ctx)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(RunDir(), "fleetlock-")
	if err != nil {
		return nil, fmt.Errorf("cannot make the directory of the FleetLock server: %w", err)
	}
	return startFleetLock(dir, binary, Addr, port, e, slots)
}

func startFleetLock(dir, binary, host string, port int, e *Etcd, slots int) (*FleetLock, error) {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	f := &FleetLock{URL: "http://" + address}
	f.daemon = daemon{name: "the FleetLock server", address: address, log: filepath.Join(dir, "log"),
		command: func() *exec.Cmd {
			return exec.Command(binary, "--listen="+address, "--etcd="+e.URL, "--slots="+strconv.Itoa(slots))
		}}
	return f, f.Start()
}

// daemon is a program that serves on a TCP port.
type daemon struct {
	name, address, log string
	command            func() *exec.Cmd
	cmd                *exec.Cmd
}

// startTime is how long a program may take until it listens, beside a lab that is busy.
const startTime = time.Minute

// Start starts the program again after [daemon.Stop], with what it had stored.
func (d *daemon) Start() error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", d.name, err)
	}
	defer log.Close()
	d.cmd = d.command()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", d.name, err)
	}
	err = poll(startTime, func() (bool, error) {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
	if err != nil {
		d.Stop()
		text, _ := os.ReadFile(d.log)
		return fmt.Errorf("cannot start %s: %w\n%s", d.name, err, text)
	}
	return nil
}

// Stop kills the program, as a crash does.
func (d *daemon) Stop() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}
