package program

import (
	"bytes"
	"sync"
)

// tail keeps the last KeptOutput bytes that are written. A program that was left behind may still write while the text
// is read.
type tail struct {
	mu   sync.Mutex
	text []byte
	cut  bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[max(0, len(p)-KeptOutput):]...)
	if extra := len(t.text) - KeptOutput; extra > 0 || len(p) > KeptOutput {
		t.text, t.cut = append([]byte(nil), t.text[max(0, extra):]...), true
	}
	return len(p), nil
}

// String returns the text. When its beginning was cut off, it starts at the first whole line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := t.text
	if _, rest, ok := bytes.Cut(text, []byte("\n")); t.cut && ok && len(bytes.TrimSpace(rest)) > 0 {
		text = rest
	}
	return string(text)
}
