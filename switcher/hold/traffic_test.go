package hold

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The addresses of two hosts with a cable between them.
const hostAddress, clientAddress = "192.0.2.1", "192.0.2.2"

// TestTraffic: while all ports are held, connections from another host wait, and nothing else does.
func TestTraffic(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can make a network namespace; run the tests as root")
	}
	host, client := newNetwork(t), newNetwork(t)
	host.connect(t, client)
	var table *Table
	var err error
	host.do(func() { table, err = Open() })
	if errors.Is(err, ErrImpossible) {
		return // TestTable says more; TestVMHold shows this in a machine
	}
	if err != nil {
		t.Fatal(err)
	}
	host.echo(t, hostAddress+":80")
	client.echo(t, clientAddress+":80")
	old, err := client.dial(hostAddress+":80", time.Minute)
	if err != nil {
		t.Fatalf("before anything is held: %v", err)
	}
	defer old.Close()
	try := func(when string, from network, address string, want error) {
		t.Helper()
		limit := time.Minute
		if errors.Is(want, os.ErrDeadlineExceeded) {
			limit = 100 * time.Millisecond
		}
		conn, err := from.dial(address, limit)
		if err == nil {
			err = answers(conn)
			conn.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s, a connection to %s: %v, want %v", when, address, err, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	const waits = "while all are held"
	do(table.HoldAll(time.Hour))
	try(waits, client, hostAddress+":80", os.ErrDeadlineExceeded)
	try(waits, client, hostAddress+":81", os.ErrDeadlineExceeded) // nobody listens there
	try(waits, host, hostAddress+":80", nil)
	try(waits, host, clientAddress+":80", nil)
	if err := answers(old); err != nil {
		t.Errorf("%s, one that was there: %v", waits, err)
	}
	do(table.Hold([]uint16{80}, time.Hour))
	do(table.ReleaseAll())
	do(table.ReleaseAll()) // it may have expired
	try("with port 80 still held", client, hostAddress+":80", os.ErrDeadlineExceeded)
	try("with port 80 still held", client, hostAddress+":81", syscall.ECONNREFUSED)
	do(table.Release([]uint16{80}))
	try("when nothing is held", client, hostAddress+":80", nil)

	do(table.HoldAll(time.Hour))
	do(table.HoldAll(200 * time.Millisecond)) // its limit begins anew
	begin := time.Now()
	try("until the limit has passed", client, hostAddress+":80", nil)
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("a connection that was held took %v", took)
	}
	do(table.HoldAll(time.Hour))
	do(table.Close())
	try("when the table is closed", client, hostAddress+":80", nil)
}

// network is a network namespace, in which functions run one after the other.
type network chan func()

// newNetwork returns a network namespace that lasts as long as the test.
func newNetwork(t *testing.T) network {
	t.Helper()
	n, made := make(network), make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the function, and its network namespace
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for do := range n {
			do()
		}
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n) })
	return n
}

func (n network) do(f func()) {
	done := make(chan struct{})
	n <- func() { defer close(done); f() }
	<-done
}

// dial connects from the namespace. The error is an os.ErrDeadlineExceeded if that takes longer than the limit.
func (n network) dial(address string, limit time.Duration) (conn net.Conn, err error) {
	n.do(func() { conn, err = net.DialTimeout("tcp", address, limit) })
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		err = os.ErrDeadlineExceeded
	}
	return conn, err
}

// echo has a server in the namespace send back what it gets.
func (n network) echo(t *testing.T, address string) {
	t.Helper()
	var listener net.Listener
	var err error
	n.do(func() { listener, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
}

// answers returns an error unless what is sent comes back.
func answers(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// connect makes a cable between two namespaces, with an address at each end.
func (n network) connect(t *testing.T, other network) {
	t.Helper()
	var there int
	var err error
	other.do(func() { there, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(there)
	n.do(func() { err = makeCable("near", "far", there) })
	if err != nil {
		t.Fatalf("cannot make a pair of interfaces (veth): %v", err)
	}
	n.do(func() { err = errors.Join(setUp("lo", "127.0.0.1"), setUp("near", hostAddress)) })
	other.do(func() { err = errors.Join(err, setUp("far", clientAddress)) })
	if err != nil {
		t.Fatal(err)
	}
}

// makeCable makes two interfaces that are connected, the second one in another network namespace.
func makeCable(near, far string, there int) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	const peer = 1 // VETH_INFO_PEER
	link := make([]byte, unix.SizeofIfInfomsg)
	attributes := netlink.NewAttributeEncoder()
	attributes.String(unix.IFLA_IFNAME, near)
	attributes.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
		info.String(unix.IFLA_INFO_KIND, "veth")
		info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
			end := netlink.NewAttributeEncoder()
			end.String(unix.IFLA_IFNAME, far)
			end.Uint32(unix.IFLA_NET_NS_FD, uint32(there))
			encoded, err := end.Encode()
			data.Bytes(peer, append(link, encoded...))
			return err
		})
		return nil
	})
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type: unix.RTM_NEWLINK, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
		},
		Data: append(make([]byte, unix.SizeofIfInfomsg), encoded...),
	})
	return err
}

// setUp gives an interface an address, and takes it into use.
func setUp(name, address string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := request.SetInet4Addr(net.ParseIP(address).To4()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFADDR, request); err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}
