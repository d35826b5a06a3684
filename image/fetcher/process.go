package fetcher

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userID is the user and the group of fetchers. No distribution gives this number to anybody (systemd's UIDS-GIDS.md).
const userID = 65533

const (
	// maxStderr bounds what is kept of what a fetcher writes before it ends.
	maxStderr = 1 << 10
	// endTime is how long the end of a fetcher may take when its socket is closed already.
	endTime = 2 * time.Second
	// heapLimit makes the fetcher collect its garbage early. It needs a few MiB.
	heapLimit = "GOMEMLIMIT=64MiB"
)

// variables are what a fetcher gets of the environment: the proxies, and what the libraries of Go obey.
var variables = []string{
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "GODEBUG", "TZ",
}

// process is a fetcher that runs.
type process struct {
	pid     int
	control *net.UnixConn
	done    chan struct{} // is closed when it has ended
	reason  string        // how it ended
}

// startProcess starts a fetcher with settings; name is what it is for, for those who list processes.
func startProcess(name string, settings []byte) (*process, error) {
	control, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		control.Close()
		return nil, err
	}
	defer null.Close()
	// Whoever started this process may have left it descriptors that no program gets unasked.
	if err := unix.CloseRange(controlFD, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		control.Close()
		return nil, fmt.Errorf("cannot keep descriptors from it: %w", err)
	}
	stderr := &beginning{}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{argument0, name}, Dir: "/", Env: environment(),
		Stdin: bytes.NewReader(settings), Stdout: null, Stderr: stderr, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: userID, Gid: userID}, Pdeathsig: unix.SIGKILL,
			Setsid: true, // no terminal
		},
		WaitDelay: endTime,
	}
	p := &process{control: control, done: make(chan struct{})}
	started := make(chan error)
	onOwnThread(func() {
		err := confineThread()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		if started <- err; err != nil {
			return
		}
		// The thread that started it is there until it ends: with the thread, it would be killed (PR_SET_PDEATHSIG).
		err = cmd.Wait()
		p.reason = strings.TrimSpace(fmt.Sprintf("%s %s", endOf(cmd, err), stderr.line()))
		close(p.done)
	})
	if err := <-started; err != nil {
		control.Close()
		return nil, err
	}
	return p, nil
}

// endOf says how a process ended.
func endOf(cmd *exec.Cmd, err error) string {
	if cmd.ProcessState == nil {
		return fmt.Sprint(err)
	}
	return cmd.ProcessState.String()
}

// environment returns the environment of a fetcher.
func environment() []string {
	env := []string{heapLimit}
	for _, name := range variables {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// connect returns a connection for a request; the fetcher gets the other end.
func (p *process) connect() (net.Conn, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if _, _, err = p.control.WriteMsgUnix([]byte{0}, unix.UnixRights(int(theirs.Fd())), nil); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// receiveConn returns the connection of the next request, or io.EOF when there will be none.
func receiveConn(control *net.UnixConn) (net.Conn, error) {
	rights := make([]byte, unix.CmsgSpace(4))
	n, oob, _, _, err := control.ReadMsgUnix(make([]byte, 1), rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oob])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%w: it has %d descriptors: %v", errFrame, len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%w: it has %d descriptors: %v", errFrame, len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	file := os.NewFile(uintptr(fds[0]), "request")
	defer file.Close()
	return net.FileConn(file)
}

// hasEnded reports whether a fetcher has ended.
func (p *process) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ending returns why a fetcher does not answer, if it has ended, and otherwise err.
func (p *process) ending(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, unix.EPIPE) &&
		!errors.Is(err, unix.ECONNRESET) {
		return err
	}
	select {
	case <-p.done:
		return fmt.Errorf("the process that fetches has ended: %s", p.reason)
	case <-time.After(endTime):
		return fmt.Errorf("the process that fetches ended the request: %w", err)
	}
}

// socketPair returns a connection, and the other end as a file.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "fetcher"), os.NewFile(uintptr(fds[1]), "fetcher")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// beginning keeps the beginning of what is written to it.
type beginning struct {
	mu   sync.Mutex
	text []byte
}

func (b *beginning) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p[:min(len(p), maxStderr-len(b.text))]...)
	return len(p), nil
}

// line returns the first line in brackets, "" if there is none.
func (b *beginning) line() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	line, _, _ := strings.Cut(string(b.text), "\n")
	if line == "" {
		return ""
	}
	return "(" + plain(line) + ")"
}
