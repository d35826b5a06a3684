// Package guest runs commands inside a machine of the lab, over virtio serial ports: it needs no network, no login and
// nothing of the booted root, and so reaches a host that has lost all of these.
//
// A port carries lines, each a [Message] in JSON, and one command at a time. Either end may vanish in the middle of a
// line: a soft reboot ends the guest with its userspace, while the port and its unread bytes stay. Therefore every
// guest has a name of its own, announces it when it starts, and runs no command for another one: a new guest does not
// run what an old one left unread, and whoever waits for an answer of the old one learns that there will be none.
package guest

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A Message is one line, in either direction.
type Message struct {
	// Guest is the name of the sender, when it starts or is asked, or of the guest that is to run a command.
	Guest string `json:",omitempty"`
	Ask   bool   `json:",omitempty"` // asks for Guest

	ID      string   `json:",omitempty"` // of the command to which all below belongs
	Run     []string `json:",omitempty"`
	Input   []byte   `json:",omitempty"`
	EOF     bool     `json:",omitempty"` // no more Input
	Kill    bool     `json:",omitempty"`
	Started bool     `json:",omitempty"`
	Stdout  []byte   `json:",omitempty"`
	Stderr  []byte   `json:",omitempty"`
	Ended   bool     `json:",omitempty"`
	Code    int      `json:",omitempty"` // with Ended: as in package lab's Result
}

const (
	// Chunk is the most that one message carries of a stream.
	Chunk = 32 << 10
	// MaxLine is longer than a chunk in base64 or a command line.
	MaxLine = 1 << 20
	// absence is how long to wait between two looks for ports, and when one is not connected at the other end.
	absence = time.Second
)

// Serve serves all ports that match a pattern, also those that appear later: udev makes them one after the other. It
// returns only with an error.
func Serve(pattern string) error {
	name := rand.Text()
	served, failed := map[string]bool{}, make(chan error)
	look := time.NewTicker(absence)
	defer look.Stop()
	for {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("cannot look for ports: %w", err)
		}
		for _, path := range paths {
			if served[path] {
				continue
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return fmt.Errorf("cannot open port: %w", err)
			}
			served[path] = true
			go func() { failed <- ServePort(name, f) }()
		}
		select {
		case err := <-failed:
			return err
		case <-look.C:
		}
	}
}

// ServePort serves one port for a guest of this name, until it can no longer be read.
func ServePort(name string, rw io.ReadWriter) error { return newPort(name, rw).serve(rw) }

// A port is the guest's end of one.
type port struct {
	name string

	mu  sync.Mutex
	out *json.Encoder

	current string // the command's ID
	stdin   *io.PipeWriter
	kill    func()
}

func newPort(name string, w io.Writer) *port {
	return &port{name: name, out: json.NewEncoder(w)}
}

func (p *port) send(m Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(m) // on failure, nobody is there to report it to
}

// serve handles messages until the port can no longer be read.
func (p *port) serve(r io.Reader) error {
	lines := bufio.NewReaderSize(r, MaxLine)
	p.mu.Lock()
	_ = p.out.Encode(struct{}{}) // ends a line in which an earlier guest may have been stopped
	p.mu.Unlock()
	p.send(Message{Guest: p.name})
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) { // the other end is not connected
			time.Sleep(absence)
			continue
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("cannot read from port: %w", err)
		}
		var m Message
		if json.Unmarshal(line, &m) == nil { // otherwise it is the rest of a line for an earlier guest
			p.take(m)
		}
	}
}

func (p *port) take(m Message) {
	switch {
	case m.Ask, len(m.Run) > 0 && m.Guest != p.name:
		p.send(Message{Guest: p.name})
	case len(m.Run) > 0:
		p.start(m)
	case m.ID != p.current:
	case m.Kill:
		p.kill()
	case m.EOF:
		p.stdin.Close()
	case len(m.Input) > 0:
		_, _ = p.stdin.Write(m.Input) // blocks until the command has read it or has ended
	}
}

// environment is that of an administrator's shell.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "LANG=C.UTF-8"}

func (p *port) start(m Message) {
	stdin, feed := io.Pipe()
	// env looks the command up, so that a missing one ends as it does in a shell.
	cmd := exec.Command("/usr/bin/env", append(append([]string{"-i"}, environment...), m.Run...)...)
	cmd.Dir = "/"
	cmd.Stdout = stream(func(b []byte) { p.send(Message{ID: m.ID, Stdout: b}) })
	cmd.Stderr = stream(func(b []byte) { p.send(Message{ID: m.ID, Stderr: b}) })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.current, p.stdin, p.kill = m.ID, feed, func() {}
	p.send(Message{ID: m.ID, Started: true})
	to, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		stdin.Close()
		p.send(Message{ID: m.ID, Stderr: []byte(err.Error())})
		p.send(Message{ID: m.ID, Ended: true, Code: -1})
		return
	}
	p.kill = func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	go func() {
		_, _ = io.Copy(to, stdin)
		to.Close()
	}()
	go func() {
		_ = cmd.Wait()
		stdin.Close() // unblocks whoever still feeds it
		p.send(Message{ID: m.ID, Ended: true, Code: exitCode(cmd.ProcessState)})
	}()
}

// exitCode returns the exit code as a shell does: 128 + the signal's number for a command that a signal ended.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// A stream receives what a command writes, in chunks.
type stream func([]byte)

func (s stream) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), Chunk)
		s(rest[:n])
		rest = rest[n:]
	}
	return len(b), nil
}
