package hold

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Drained waits until no connection to these ports waits to be accepted, and reports whether that came about within the
// limit. It is meant for held ports, at which no new ones arrive.
func (*Table) Drained(ports []uint16, limit time.Duration) bool {
	const pause = 5 * time.Millisecond
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(pause) {
		waiting := 0
		for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			n, err := queued(file, ports, end)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without this family
				return false
			}
			waiting += n
		}
		if waiting == 0 {
			return true
		}
	}
	return false
}

// The states of sockets in /proc/net/tcp.
const (
	handshake = "03" // TCP_SYN_RECV
	listens   = "0A" // TCP_LISTEN
)

// queued returns how many connections to these ports a file like /proc/net/tcp shows that no program has accepted:
// those in a handshake, and those in the queue of a socket that listens, whose length is where others have the bytes to
// receive. A busy host has many sockets, and a file of them cannot be read beyond a time: then the result is an error.
func queued(file string, ports []uint16, until time.Time) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // number, local address, remote one, state, queues …
		if len(fields) < 5 || fields[3] != handshake && fields[3] != listens {
			if time.Now().After(until) {
				return 0, os.ErrDeadlineExceeded
			}
			continue
		}
		_, local, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(local, 16, 16)
		if err != nil || !slices.Contains(ports, uint16(port)) {
			continue
		}
		if fields[3] == handshake {
			n++
			continue
		}
		_, backlog, _ := strings.Cut(fields[4], ":")
		length, err := strconv.ParseUint(backlog, 16, 32)
		if err != nil {
			return 0, err
		}
		n += int(length)
	}
	return n, lines.Err()
}
