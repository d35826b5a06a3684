package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab/guest"
)

// A port is the lab's end of a serial port. The guest at the other end runs one command at a time.
type port struct {
	socket string // where QEMU listens

	mu   sync.Mutex // for out
	conn net.Conn
	out  *json.Encoder
	in   chan guest.Message

	guest string // the one that spoke last
}

// silence is how long a guest may take to start a command. Between two userspaces it is away for less.
const silence = time.Minute

// run runs a command. If no guest is there now, the next one runs it.
func (p *port) run(ctx context.Context, gone <-chan struct{}, stdin io.Reader, args []string) Result {
	if err := p.connect(gone); err != nil {
		return Result{Code: -1, Stderr: err.Error()}
	}
	c := &call{port: p, id: rand.Text(), args: args, stdin: stdin}
	c.ask()
	limit := time.NewTimer(silence)
	defer limit.Stop()
	canceled := ctx.Done()
	for {
		select {
		case m, ok := <-p.in:
			if !ok {
				return c.lost(-1, errHostGone)
			}
			if c.take(m) {
				return c.result
			}
		case <-canceled:
			p.send(guest.Message{ID: c.id, Kill: true})
			if !c.started {
				return c.lost(-1, ctx.Err())
			}
			canceled = nil
			limit.Reset(patience)
		case <-limit.C:
			switch {
			case canceled == nil: // it was asked to kill the command and does not answer
				return c.lost(128+int(unix.SIGKILL), ctx.Err())
			case !c.started:
				p.send(guest.Message{ID: c.id, Kill: true})
				return c.lost(-1, fmt.Errorf("%w: %s", ErrTimeout, silence))
			}
		case <-gone:
			return c.lost(-1, errHostGone)
		}
	}
}

// connect connects to QEMU, which listens shortly after its start.
func (p *port) connect(gone <-chan struct{}) error {
	if p.conn != nil {
		return nil
	}
	return poll(startTime, func() (bool, error) {
		select {
		case <-gone:
			return false, errHostGone
		default:
		}
		conn, err := net.Dial("unix", p.socket)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		p.conn, p.out, p.in = conn, json.NewEncoder(conn), make(chan guest.Message, 1)
		go p.read()
		return true, nil
	})
}

// read passes on the messages of guests until QEMU ends.
func (p *port) read() {
	defer close(p.in)
	lines := bufio.NewReaderSize(p.conn, guest.MaxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		var m guest.Message
		if json.Unmarshal(line, &m) == nil { // otherwise a guest was stopped in the middle of the line
			p.in <- m
		}
	}
}

func (p *port) send(m guest.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(m) // whoever reads notices when QEMU is gone
}

// A call is one command that runs, or is about to.
type call struct {
	port    *port
	id      string
	args    []string
	stdin   io.Reader
	started bool
	result  Result
}

// ask asks the known guest to run the command, or, if none is known, any guest for its name.
func (c *call) ask() {
	if c.port.guest == "" {
		c.port.send(guest.Message{Ask: true})
		return
	}
	c.port.send(guest.Message{Guest: c.port.guest, ID: c.id, Run: c.args})
}

// take handles a message of a guest and reports whether the command has ended.
func (c *call) take(m guest.Message) bool {
	switch {
	case m.Guest == c.port.guest && m.Guest != "": // a repetition
	case m.Guest != "":
		c.port.guest = m.Guest
		if c.started { // the guest was killed, and the command with it
			c.result = c.lost(128+int(unix.SIGKILL), nil)
			return true
		}
		c.ask()
	case m.ID != c.id: // of an earlier command that nobody waits for
	case m.Started:
		c.started = true
		go c.feed()
	case m.Ended:
		c.result.Code = m.Code
		return true
	default:
		c.result.Stdout += string(m.Stdout)
		c.result.Stderr += string(m.Stderr)
	}
	return false
}

// feed sends standard input.
func (c *call) feed() {
	buffer := make([]byte, guest.Chunk)
	for c.stdin != nil {
		n, err := c.stdin.Read(buffer)
		if n > 0 {
			c.port.send(guest.Message{ID: c.id, Input: buffer[:n]})
		}
		if err != nil {
			break
		}
	}
	c.port.send(guest.Message{ID: c.id, EOF: true})
}

// lost returns the result of a command whose end was not reported.
func (c *call) lost(code int, why error) Result {
	c.result.Code = code
	if why != nil {
		c.result.Stderr += why.Error()
	}
	return c.result
}

// guestBinary returns the path of the program that runs in machines.
func guestBinary(ctx context.Context) (string, error) {
	return program(ctx, "labguest", "the program that runs commands in machines", "integration/lab/guest")
}

// KeepBinary returns the path of the program whose services show what is handed over to the next root.
func KeepBinary(ctx context.Context) (string, error) {
	return program(ctx, "labkeep", "the program whose services are kept")
}

// program returns the path of a program below cmd, built from the project's sources: its own, and those of more
// directories.
func program(ctx context.Context, name, what string, more ...string) (string, error) {
	module, err := moduleDir()
	if err != nil {
		return "", err
	}
	dir := "integration/lab/cmd/" + name
	var text bytes.Buffer
	for _, dir := range append([]string{dir}, more...) {
		files, err := filepath.Glob(filepath.Join(module, dir, "*.go"))
		if err != nil {
			return "", err
		}
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				return "", err
			}
			text.Write(source)
		}
	}
	return keep(ctx, name, what, sha256.Sum256(text.Bytes()), func(ctx context.Context, path string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./"+dir)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot run go build: %w\n%s", err, out)
		}
		return nil
	})
}
