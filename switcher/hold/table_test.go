package hold

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TestTable: what is held is in the kernel, with its limit, until it is released, its limit has passed, or the table is
// closed; and nobody else can remove it.
func TestTable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can make a network namespace; run the tests as root")
	}
	runtime.LockOSThread() // the thread ends with the test, and its network namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	table, err := Open()
	if errors.Is(err, ErrImpossible) {
		if perr := Possible(); !errors.Is(perr, ErrImpossible) {
			t.Errorf("no table can be opened (%v), and plan says %v", err, perr)
		}
		return // this kernel lacks it; TestVMHold shows the rest in a machine
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Possible(); err != nil {
		t.Errorf("while ports are held, none can be: %v", err)
	}
	if _, err := Open(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EEXIST) {
		t.Errorf("a second table is opened: %v", err)
	}
	expect := func(when string, want ...uint16) {
		t.Helper()
		if got := heldNow(t); !slices.Equal(got, want) {
			t.Errorf("%s %v are held, want %v", when, got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	do(table.Hold([]uint16{22, 80, 443}, time.Hour))
	do(table.Hold([]uint16{8080, 9090}, 2*time.Second))
	do(table.Hold([]uint16{9090}, time.Hour)) // its limit begins anew
	do(table.Hold(nil, time.Hour))
	flush := &nftables.Conn{}
	flush.FlushRuleset()
	do(flush.Flush())
	expect("after a flush by somebody else,", 22, 80, 443, 8080, 9090)
	time.Sleep(2500 * time.Millisecond)
	expect("after its limit,", 22, 80, 443, 9090)
	do(table.Release([]uint16{8080, 80, 22, 9090}))
	expect("after a release,", 443)
	if !table.Drained([]uint16{443}, time.Second) {
		t.Error("connections wait where nobody listens")
	}
	do(table.Close())
	expect("in the end,")
	if tables, err := (&nftables.Conn{}).ListTables(); err != nil || len(tables) > 0 {
		t.Errorf("in the end, there are %d tables (%v)", len(tables), err)
	}
}

// heldNow returns the ports that the kernel holds, sorted.
func heldNow(t *testing.T) (ports []uint16) {
	t.Helper()
	conn := &nftables.Conn{}
	set, err := conn.GetSetByName(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}, "held")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range elements {
		ports = append(ports, binary.BigEndian.Uint16(e.Key))
	}
	slices.Sort(ports)
	return ports
}

// TestExplain: a kernel without nf_tables is told from other faults.
func TestExplain(t *testing.T) {
	for err, impossible := range map[error]bool{
		unix.EPROTONOSUPPORT: true, unix.EOPNOTSUPP: true, unix.EPERM: false, unix.ENOBUFS: false,
	} {
		if got := explain(err); errors.Is(got, ErrImpossible) != impossible || !errors.Is(got, err) {
			t.Errorf("%v is explained as %v", err, got)
		}
	}
}
