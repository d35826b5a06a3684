// Package hold answers how new connections to ports are held, to one port or to all: their first packet is dropped in
// the kernel, and clients repeat it. It promises that nothing it does outlives its limit, or the process that does it:
// what is held expires in the kernel.
package hold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrImpossible means that this kernel has no nf_tables, which holding needs.
var ErrImpossible = errors.New("this kernel has no nf_tables")

const (
	tableName = "updatectl"
	probeName = "updatectl-probe"
	// owned is NFT_TABLE_F_OWNER (Linux 5.12): the table is gone when the socket that made it is closed, and nobody else
	// can change it, such as a firewall that flushes all rules.
	owned = 0x2
)

// Table is a table of nf_tables that belongs to this process, with what is held.
type Table struct {
	conn *nftables.Conn
	// held has ports at which connections are held; protocols has TCP while those to every port are.
	held, protocols *nftables.Set
}

// Open makes the table, in which no port is held yet. The error is an [ErrImpossible] if this kernel cannot hold ports.
func Open() (*Table, error) { return open(tableName) }

func open(name string) (*Table, error) {
	var socket *netlink.Conn
	keep := func(c *netlink.Conn) error { socket = c; return nil }
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(keep))
	if err != nil {
		return nil, explain(err)
	}
	t := &Table{conn: conn}
	if err = makeOwned(socket, name); err == nil {
		err = t.addRules(name)
	}
	if err != nil {
		return nil, errors.Join(explain(err), conn.CloseLasting())
	}
	return t, nil
}

// explain returns an error of the kernel with its meaning.
func explain(err error) error {
	for _, missing := range []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP} {
		if errors.Is(err, missing) {
			return fmt.Errorf("%w (%w)", ErrImpossible, err)
		}
	}
	return fmt.Errorf("cannot hold ports by nf_tables: %w", err)
}

// makeOwned makes the table, which belongs to the socket. The library makes only tables that belong to nobody.
func makeOwned(socket *netlink.Conn, name string) error {
	attributes := netlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian
	attributes.String(unix.NFTA_TABLE_NAME, name)
	attributes.Uint32(unix.NFTA_TABLE_FLAGS, owned)
	table, err := attributes.Encode()
	if err != nil {
		return err
	}
	message := func(kind int, flags netlink.HeaderFlags, family, subsystem byte, data []byte) netlink.Message {
		header := netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags}
		return netlink.Message{Header: header, Data: append([]byte{family, unix.NFNETLINK_V0, 0, subsystem}, data...)}
	}
	const tables = unix.NFNL_SUBSYS_NFTABLES
	_, err = socket.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, tables, nil),
		message(tables<<8|unix.NFT_MSG_NEWTABLE, netlink.Acknowledge|netlink.Create|netlink.Excl, unix.NFPROTO_INET, 0,
			table),
		message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, tables, nil),
	})
	if err == nil {
		_, err = socket.Receive()
	}
	return err
}

// addRules adds the sets of what is held and the rules for them. The chain comes before those of a packet filter.
func (t *Table) addRules(name string) error {
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	t.held = &nftables.Set{Table: table, Name: "held", KeyType: nftables.TypeInetService, HasTimeout: true}
	t.protocols = &nftables.Set{Table: table, Name: "protocols", KeyType: nftables.TypeInetProto, HasTimeout: true}
	for _, set := range []*nftables.Set{t.held, t.protocols} {
		if err := t.conn.AddSet(set, nil); err != nil {
			return err
		}
	}
	accept := nftables.ChainPolicyAccept
	chain := t.conn.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityRaw, Policy: &accept,
	})
	for _, drops := range [][]expr.Any{firstPacketTo(t.held), firstPacketOf(t.protocols)} {
		t.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: drops})
	}
	return t.conn.Flush()
}

const register = 1 // of nf_tables, in which a rule has one value after the other

// firstPacketTo returns what drops the first packet of a TCP connection to a port of a set, as nft(8) would write it:
//
//	meta iiftype != loopback tcp flags & (syn | ack | rst | fin) == syn tcp dport @held drop
func firstPacketTo(ports *nftables.Set) []expr.Any {
	const portAt = 2 // in the header of TCP
	return append(firstPacket(),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: portAt, Len: 2},
		&expr.Lookup{SourceRegister: register, SetName: ports.Name, SetID: ports.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)
}

// firstPacketOf returns what drops the first packet of a TCP connection, to whichever port, while TCP is in a set:
//
//	meta iiftype != loopback tcp flags & (syn | ack | rst | fin) == syn meta l4proto @protocols drop
func firstPacketOf(protocols *nftables.Set) []expr.Any {
	return append(firstPacket(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Lookup{SourceRegister: register, SetName: protocols.Name, SetID: protocols.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)
}

// firstPacket returns what the first packet of a TCP connection from another host matches, and no other packet: what is
// established goes on, and so do connections that this host opens. A connection within the host is not held: health
// checks must see what is, and what runs here can be told to wait.
func firstPacket() []expr.Any {
	const (
		flagsAt                   = 13 // in the header of TCP
		fin, syn, rst, ack        = 0x01, 0x02, 0x04, 0x10
		loopbackType       uint16 = unix.ARPHRD_LOOPBACK
	)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: binary.NativeEndian.AppendUint16(nil, loopbackType)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: flagsAt, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{fin | syn | rst | ack},
			Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{syn}},
	}
}

// Hold holds ports until they are released, and at most until the limit has passed. That of a port that is held already
// begins anew: the kernel does so only for an element that is added, so each is added, removed and added in one step.
func (t *Table) Hold(ports []uint16, limit time.Duration) error {
	for chunk := range slices.Chunk(ports, maxElements) {
		if err := t.hold(t.held, elements(chunk, limit)); err != nil {
			return err
		}
	}
	return nil
}

// HoldAll holds connections to every port until they are released, and at most until the limit has passed, as
// [Table.Hold] does.
func (t *Table) HoldAll(limit time.Duration) error { return t.hold(t.protocols, tcp(limit)) }

// maxElements bounds one message: the length of a list has 16 bits, and an element takes 28 bytes.
const maxElements = 1000

// hold makes elements of a set begin anew.
func (t *Table) hold(set *nftables.Set, list []nftables.SetElement) error {
	for _, step := range []func(*nftables.Set, []nftables.SetElement) error{
		t.conn.SetAddElements, t.conn.SetDeleteElements, t.conn.SetAddElements,
	} {
		if err := step(set, list); err != nil {
			return fmt.Errorf("cannot hold ports: %w", err)
		}
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("cannot hold ports: %w", err)
	}
	return nil
}

// Release lets connections to ports through again. That a port's limit has passed is no error. A port stays held while
// all are.
func (t *Table) Release(ports []uint16) error {
	var errs error
	for _, port := range ports { // one at a time: the kernel takes all of a request or nothing
		if err := t.release(t.held, elements([]uint16{port}, 0)); err != nil {
			errs = errors.Join(errs, fmt.Errorf("cannot release port %d: %w", port, err))
		}
	}
	return errs
}

// ReleaseAll ends what [Table.HoldAll] began. Ports that [Table.Hold] holds stay held.
func (t *Table) ReleaseAll() error {
	if err := t.release(t.protocols, tcp(0)); err != nil {
		return fmt.Errorf("cannot release all ports: %w", err)
	}
	return nil
}

// release takes elements out of a set. That they are not there is no error.
func (t *Table) release(set *nftables.Set, list []nftables.SetElement) error {
	err := t.conn.SetDeleteElements(set, list)
	if err == nil {
		err = t.conn.Flush()
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// tcp returns the element that stands for TCP.
func tcp(limit time.Duration) []nftables.SetElement {
	return []nftables.SetElement{{Key: []byte{unix.IPPROTO_TCP}, Timeout: limit}}
}

func elements(ports []uint16, limit time.Duration) []nftables.SetElement {
	var list []nftables.SetElement
	for _, port := range ports {
		list = append(list, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, port), Timeout: limit})
	}
	return list
}

// Close releases all ports and removes the table.
func (t *Table) Close() error { return t.conn.CloseLasting() }

// Possible returns why this kernel cannot hold ports, nil if it can. It tries with a table that holds nothing; the
// kernel may load its module for that.
func Possible() error {
	t, err := open(probeName)
	if err == nil {
		err = t.Close()
	}
	return err
}
