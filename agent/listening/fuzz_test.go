package listening

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzSockets: a socket that waits has a port.
func FuzzSockets(f *testing.F) {
	f.Add("sl local rem st\n0: 0100007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 123 1\n1: x:y 0:0000 0A 0 0 0 0 0 1\n")
	f.Add("0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A a a a a a 7")
	file := filepath.Join(f.TempDir(), "tcp")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = readSockets(file, state["tcp"], func(inode string, p Port) { // too long a line is an error
			if inode == "" || p.Number < 1 || p.Number > 65535 {
				t.Errorf("the socket %q has the port %+v", inode, p)
			}
		})
	})
}
