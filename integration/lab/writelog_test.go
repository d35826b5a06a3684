package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// logged makes a log of writes as QEMU does: letters are blocks of the disk that are written in turn with the next
// digit, '|' flushes, '!' after a letter writes through, '-' before a letter discards.
func logged(t *testing.T, requests string) *WriteLog {
	t.Helper()
	text := make([]byte, sector)
	add := func(block, count, flags uint64, data []byte) {
		head := make([]byte, sector)
		binary.LittleEndian.PutUint64(head[0:], block)
		binary.LittleEndian.PutUint64(head[8:], count)
		binary.LittleEndian.PutUint64(head[16:], flags)
		text = append(append(text, head...), data...)
	}
	digit, flags := byte('1'), uint64(0)
	for i := range len(requests) {
		switch r := requests[i]; r {
		case '|':
			add(0, 0, flagFlush, nil)
		case '-':
			flags = flagDiscard
		case '!':
		default:
			var data []byte
			if flags == 0 {
				data = bytes.Repeat([]byte{digit}, sector)
				digit++
			}
			if i+1 < len(requests) && requests[i+1] == '!' {
				flags = flagThrough
			}
			add(uint64(r-'a'), 1, flags, data)
			flags = 0
		}
	}
	file := filepath.Join(t.TempDir(), "log")
	// The log of a machine that was killed is longer than what is in it.
	if err := os.WriteFile(file, append(text, make([]byte, 3*sector)...), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := ReadWriteLog(file)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// left is the disk after a cut, a character a block, '.' for zeros.
func left(t *testing.T, l *WriteLog, from int, c PowerCut) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 4*sector), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Replay(disk, from, c); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	blocks := ""
	for i := 0; i < len(text); i += sector {
		blocks += string(text[i])
	}
	return string(bytes.ReplaceAll([]byte(blocks), []byte{0}, []byte{'.'}))
}

func TestReplay(t *testing.T) {
	for _, test := range []struct {
		requests    string
		from, after int
		want        string
	}{
		{"ab", 0, 2, "...."},
		{"ab|", 0, 3, "12.."},
		{"ab|", 0, 2, "...."},
		{"ab|a", 0, 4, "12.."},
		{"ab|a|", 0, 5, "32.."},
		{"ab|a!b", 0, 5, "32.."},
		{"ab|-a|", 0, 5, ".2.."},
		{"ab|-a", 0, 4, "12.."},
		{"ab|cd|", 3, 6, "..34"},
		{"aaa|aa", 0, 6, "3..."},
	} {
		l := logged(t, test.requests)
		if got := left(t, l, test.from, PowerCut{After: test.after}); got != test.want {
			t.Errorf("%s from %d, cut after %d: %q is left, want %q", test.requests, test.from, test.after, got,
				test.want)
		}
	}
}

// TestReplaySeed: what was not flushed may be on the disk in part, the same part for the same seed.
func TestReplaySeed(t *testing.T) {
	l := logged(t, "a|bcd")
	seen := map[string]bool{}
	for seed := uint64(1); seed <= 64; seed++ {
		got := left(t, l, 0, PowerCut{After: 5, Seed: seed})
		if got[0] != '1' {
			t.Fatalf("seed %d lost what was flushed: %q", seed, got)
		}
		if again := left(t, l, 0, PowerCut{After: 5, Seed: seed}); again != got {
			t.Fatalf("seed %d left %q, and then %q", seed, got, again)
		}
		seen[got] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d outcomes of three writes, want 8", len(seen))
	}
}

func TestWriteLogGrows(t *testing.T) {
	l := logged(t, "ab|")
	more, err := os.ReadFile(logged(t, "ab|c|").file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.file, more, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Follow(); err != nil || len(l.Writes) != 5 {
		t.Errorf("%d requests (%v), want 5", len(l.Writes), err)
	}
	if found, err := l.Find(1, "3333"); err != nil || len(found) != 1 || found[0] != 3 {
		t.Errorf("found at %v (%v), want at 3", found, err)
	}
}

func TestWriteLogOfSomethingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 4*sector), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadWriteLog(file); !errors.Is(err, errWriteLog) {
		t.Errorf("the error is %v", err)
	}
}
