package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// errHostGone is returned for what can no longer be done or come about, because the container or the machine has
// ended.
var errHostGone = errors.New("the host has ended")

// Alive returns an error when the host has ended: without a full reboot that somebody waits for, everything else would
// be waited for in vain.
func (h *Host) Alive() error {
	if h.running() {
		return nil
	}
	if last := h.panics.last(); last != "" {
		return fmt.Errorf("%w: %s", errHostGone, last)
	}
	return errHostGone
}

func (h *Host) running() bool {
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

const (
	panicked = "Kernel panic - not syncing"
	// stays is the last line of a kernel that panics and does not reboot.
	stays = "---[ end Kernel panic"
)

// panics reads the console of a machine while it is written, and finds out when its kernel has panicked for good: QEMU
// runs on then, and no command ever ends.
type panics struct {
	log   io.Writer
	ended func() // called once, when the kernel stays as it is

	mu   sync.Mutex
	line []byte
	said string
	hung bool
}

var _ io.Writer = (*panics)(nil)

// Write passes on what the machine says.
func (p *panics) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for rest := b; ; {
		part, after, complete := bytes.Cut(rest, []byte("\n"))
		p.line = append(p.line, part...)
		if !complete {
			break
		}
		p.take(p.line)
		p.line, rest = p.line[:0], after
	}
	if len(p.line) > maxText { // no kernel has such lines
		p.line = p.line[:0]
	}
	return p.log.Write(b)
}

func (p *panics) take(line []byte) {
	if at := bytes.Index(line, []byte(stays)); at >= 0 && !p.hung {
		p.hung = true
		p.ended()
	} else if at := bytes.Index(line, []byte(panicked)); at >= 0 {
		p.said = string(bytes.TrimSpace(line[at:]))
	}
}

// last returns what the kernel said when it panicked, "" when it did not.
func (p *panics) last() string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said
}

// stayed reports whether the kernel panicked and did not reboot.
func (p *panics) stayed() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hung
}
