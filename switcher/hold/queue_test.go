package hold

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sockets is a /proc/net/tcp with a socket that listens at port 80 and has a queue of 2, one at port 22 without a
// queue, a handshake and a connection at port 80, and a connection to a port 80 elsewhere.
const sockets = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 901 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 902 1 0 100 0 0 10 0
   2: 0100000A:0050 0200000A:C350 03 00000000:00000000 01:00000064 00000000     0        0 0 1 0
   3: 0100000A:0050 0200000A:C351 01 00000000:00000007 00:00000000 00000000     0        0 903 1 0
   4: 0100000A:C352 0200000A:0050 01 00000000:00000009 00:00000000 00000000     0        0 904 1 0
`

func TestQueued(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tcp")
	if err := os.WriteFile(file, []byte(sockets), 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		ports []uint16
		want  int
	}{
		{[]uint16{80}, 3}, {[]uint16{22}, 0}, {[]uint16{22, 80}, 3}, {[]uint16{443}, 0}, {nil, 0},
	} {
		if n, err := queued(file, c.ports, later); n != c.want || err != nil {
			t.Errorf("at %v, %d connections wait (%v), want %d", c.ports, n, err, c.want)
		}
	}
	if _, err := queued(file, []uint16{80}, time.Now().Add(-time.Hour)); err == nil {
		t.Error("a file of many connections is read to its end, however long that takes")
	}
}
