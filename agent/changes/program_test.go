package changes

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProgramThatFails: the error has the last line, whatever else the program writes, and none of it is kept.
func TestProgramThatFails(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := runProgram(t.Context(), []string{"/bin/sh", "-c", "head -c 64M /dev/zero; echo; echo why >&2; exit 3"})
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 32<<20 {
		t.Errorf("%d MiB were allocated for its output", (after.TotalAlloc-before.TotalAlloc)>>20)
	}
	if err == nil || err.Error() != "sh: exit status 3: why" {
		t.Errorf("the error is %v", err)
	}
}

// TestProgramThatHangs: what it started ends with it.
func TestProgramThatHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err := runProgram(ctx, []string{"/bin/sh", "-c", "sleep 100 & echo $! > " + file + "; wait"})
	text, rerr := os.ReadFile(file)
	if err == nil || rerr != nil {
		t.Fatalf("it ended with %v, %v", err, rerr)
	}
	stat, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
	if fields := strings.Fields(string(stat)); len(fields) > 2 && fields[2] != "Z" {
		t.Errorf("what it started still runs: %s", stat)
		if pid, err := strconv.Atoi(fields[0]); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
