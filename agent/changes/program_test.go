package changes

import (
	"context"
	"fmt"
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
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 128<<20 { // a buffer of all takes twice that
		t.Errorf("%d MiB were allocated for its output", (after.TotalAlloc-before.TotalAlloc)>>20)
	}
	if err == nil || err.Error() != "sh: exit status 3: why" {
		t.Errorf("the error is %v", err)
	}
}

// TestProgramThatHangs: what it started ends with it.
func TestProgramThatHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := runProgram(ctx, []string{"/bin/sh", "-c", "sleep 100 & echo $! > " + file + "; wait"})
	text, rerr := os.ReadFile(file)
	if err == nil || rerr != nil {
		t.Fatalf("it ended with %v, %v", err, rerr)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // a signal takes a moment
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if fields := strings.Fields(string(stat)); len(fields) < 3 || fields[2] == "Z" || fields[1] != "(sleep)" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("what it started still runs")
	_ = syscall.Kill(pid, syscall.SIGKILL)
}
