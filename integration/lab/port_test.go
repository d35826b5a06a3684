package lab

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/updatectl/updatectl/integration/lab/guest"
)

// wired is a port at whose other end one guest after the other is served; boot ends the last one.
func wired(t *testing.T) (p *port, boot func(name string)) {
	t.Helper()
	p = &port{socket: filepath.Join(t.TempDir(), "port")}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	lines := make(chan net.Conn, 1)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			lines <- conn
		}
	}()
	var line net.Conn
	var far atomic.Pointer[net.Conn] // the present guest's end
	return p, func(name string) {
		if line == nil {
			if err := p.connect(nil); err != nil {
				t.Fatal(err)
			}
			line = <-lines
			go pipe(line, func(b []byte) { _, _ = (*far.Load()).Write(b) })
		}
		inner, outer := net.Pipe()
		if last := far.Swap(&outer); last != nil {
			(*last).Close()
		}
		go func() { _ = guest.ServePort(name, inner) }()
		go pipe(outer, func(b []byte) { _, _ = line.Write(b) })
	}
}

func pipe(from net.Conn, to func([]byte)) {
	buffer := make([]byte, guest.Chunk)
	for {
		n, err := from.Read(buffer)
		to(buffer[:n])
		if err != nil {
			return
		}
	}
}

func TestPortRunsCommands(t *testing.T) {
	p, boot := wired(t)
	boot("one")
	large := strings.Repeat("x", 10*guest.Chunk+1)
	for _, c := range []struct {
		script, stdin, stdout, stderr string
		code                          int
	}{
		{"echo out; echo err >&2; exit 3", "", "out\n", "err\n", 3},
		{"cat", large, large, "", 0},
		{"echo does not read", large, "does not read\n", "", 0},
		{"kill -TERM $$", "", "", "", 128 + 15},
	} {
		r := p.run(t.Context(), nil, strings.NewReader(c.stdin), []string{"sh", "-c", c.script})
		if r.Stdout != c.stdout || r.Stderr != c.stderr || r.Code != c.code {
			t.Errorf("%s: %d bytes of output, %s", c.script, len(r.Stdout), Result{Code: r.Code, Stderr: r.Stderr})
		}
	}
	if r := p.run(t.Context(), nil, nil, []string{"no-such-program"}); r.Code != 127 {
		t.Errorf("a command that cannot be found: %s", r)
	}
}

func TestPortCancels(t *testing.T) {
	p, boot := wired(t)
	boot("one")
	p.run(t.Context(), nil, nil, []string{"true"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan Result)
	go func() { ended <- p.run(ctx, nil, nil, []string{"sleep", "1000"}) }()
	cancel()
	if r := <-ended; r.Code != 128+9 && r.Code != -1 {
		t.Errorf("got %s", r)
	}
}

// TestPortOutlivesGuests: a command ends with its guest, and the next one runs in the next guest.
func TestPortOutlivesGuests(t *testing.T) {
	p, boot := wired(t)
	boot("one")
	p.run(t.Context(), nil, nil, []string{"true"})
	ended := make(chan Result)
	marker := filepath.Join(t.TempDir(), "started")
	go func() { ended <- p.run(t.Context(), nil, nil, []string{"sh", "-c", "touch " + marker + "; sleep 2"}) }()
	err := poll(startTime, func() (bool, error) { found, err := filepath.Glob(marker); return len(found) > 0, err })
	if err != nil {
		t.Fatal(err)
	}
	boot("two")
	if r := <-ended; r.Code != 128+9 {
		t.Errorf("a command of a guest that is gone: %s", r)
	}
	boot("three")
	if r := p.run(t.Context(), nil, nil, []string{"echo", "again"}); r.Stdout != "again\n" || r.Code != 0 {
		t.Errorf("the next one: %s", r)
	}
}

func TestBuildID(t *testing.T) {
	const xen = "\x04\x00\x00\x00\x03\x00\x00\x00\x06\x00\x00\x00Xen\x00abc\x00"
	const gnu = "\x04\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd\x00\x00"
	for notes, want := range map[string]string{xen + gnu: "abcd", gnu: "abcd", xen: "", gnu[:17]: "", "": ""} {
		if got, err := buildID([]byte(notes)); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q (%v), want %q", notes, got, err, want)
		}
	}
}
