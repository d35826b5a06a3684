// Labkeep is what a test of kept units runs in a host: services whose state shows whether they were handed over.
//
//	labkeep counter [PORT]   counts connections in a memory file, and keeps it, and its listening socket if it has
//	                         opened one, in systemd's store of file descriptors. Without PORT, a socket unit listens.
//	labkeep process PORT     counts connections in its own memory: the count goes on as long as the process lives
//
// A connection is answered with the count, the process and what was handed over.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "labkeep: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "process":
		return process(args[1])
	case len(args) >= 1 && args[0] == "counter":
		return counter(args[1:])
	}
	return errors.New("usage: labkeep counter [PORT] | process PORT")
}

// process answers from its own memory.
func process(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	var count atomic.Uint64
	return serve(l, func() string { return fmt.Sprintf("%d %d process", count.Add(1), os.Getpid()) })
}

// counter answers from the memory file.
func counter(args []string) error {
	memory, l, err := handedOver()
	if err != nil {
		return err
	}
	handed := "new"
	if memory != nil {
		handed = "handed"
	} else if memory, err = newMemory(); err != nil {
		return err
	}
	if l == nil && len(args) == 1 {
		if l, err = listen(args[0]); err != nil {
			return err
		}
	}
	if l == nil {
		return errors.New("no socket was handed over, and no port is given")
	}
	return serve(l, func() string {
		var b [8]byte
		_, _ = memory.ReadAt(b[:], 0)
		n := binary.LittleEndian.Uint64(b[:]) + 1
		binary.LittleEndian.PutUint64(b[:], n)
		if _, err := memory.WriteAt(b[:], 0); err != nil {
			return "error " + err.Error()
		}
		return fmt.Sprintf("%d %d %s", n, os.Getpid(), handed)
	})
}

// handedOver returns what systemd has given this process: a memory file from its store, and a listening socket from
// there or from a socket unit (sd_listen_fds(3)). Both are nil if there is none.
func handedOver() (memory *os.File, l net.Listener, err error) {
	const first = 3
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		file := os.NewFile(uintptr(first+i), names[i])
		if names[i] == "memory" {
			memory = file
			continue
		}
		if l, err = net.FileListener(file); err != nil {
			return nil, nil, fmt.Errorf("cannot use the socket %s: %w", names[i], err)
		}
		file.Close()
	}
	return memory, l, nil
}

// newMemory makes a memory file, and puts it into the store.
func newMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate("count", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a memory file: %w", err)
	}
	if err := notify("FDSTORE=1\nFDNAME=memory", fd); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "memory"), nil
}

// listen opens a socket, and puts it into the store.
func listen(port string) (net.Listener, error) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return nil, err
	}
	file, err := l.(*net.TCPListener).File()
	if err == nil {
		err = notify("FDSTORE=1\nFDNAME=listener", int(file.Fd()))
	}
	return l, err
}

// notify sends a state to systemd, with file descriptors (sd_pid_notify_with_fds(3)).
func notify(state string, fds ...int) error {
	to := os.Getenv("NOTIFY_SOCKET")
	if to == "" {
		return nil
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot talk to systemd: %w", err)
	}
	defer unix.Close(s)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(s, []byte(state), rights, &unix.SockaddrUnix{Name: to}, 0); err != nil {
		return fmt.Errorf("cannot talk to systemd: %w", err)
	}
	return nil
}

// serve answers each connection, and tells systemd that it does. At SIGTERM it answers what it has accepted, and ends:
// the next process accepts the rest.
func serve(l net.Listener, answer func() string) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGTERM)
	go func() {
		<-ended
		_ = l.(*net.TCPListener).SetDeadline(time.Now())
	}()
	if err := notify("READY=1"); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(conn, answer())
		conn.Close()
	}
}
