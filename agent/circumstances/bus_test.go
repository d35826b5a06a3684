package circumstances

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// answers are what a bus answers: by "path member", and for properties by "path property". An error is one of D-Bus by
// its name. What is not in the table gets no answer.
type answers map[string]any

// busWith returns a connection to a bus that answers from a table.
func busWith(t *testing.T, table answers) *godbus.Conn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			table.serve(conn)
		}
	}()
	bus, err := godbus.Dial("unix:path=" + socket)
	if err == nil {
		t.Cleanup(func() { bus.Close() })
		err = errors.Join(bus.Auth([]godbus.Auth{godbus.AuthAnonymous()}), bus.Hello())
	}
	if err != nil {
		t.Fatal(err)
	}
	return bus
}

func (a answers) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for { // the authentication, line by line
		line, err := in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "BEGIN") {
			break
		}
		reply := "OK 0123456789abcdef0123456789abcdef\r\n"
		switch {
		case strings.HasPrefix(line, "NEGOTIATE_UNIX_FD"):
			reply = "AGREE_UNIX_FD\r\n"
		case strings.HasSuffix(line, "AUTH\r\n"):
			reply = "REJECTED ANONYMOUS\r\n"
		}
		fmt.Fprint(conn, reply)
	}
	for {
		call, err := godbus.DecodeMessage(in)
		if err != nil {
			return
		}
		reply := a.to(call)
		if reply == nil {
			continue
		}
		if err := reply.EncodeTo(conn, binary.LittleEndian); err != nil {
			return
		}
	}
}

// to returns the reply to a call, nil for none.
func (a answers) to(call *godbus.Message) *godbus.Message {
	member, _ := call.Headers[godbus.FieldMember].Value().(string)
	path, _ := call.Headers[godbus.FieldPath].Value().(godbus.ObjectPath)
	reply := &godbus.Message{Type: godbus.TypeMethodReply, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldReplySerial: godbus.MakeVariant(call.Serial()),
	}}
	answer, known := a[string(path)+" "+member]
	if member == "Get" {
		if answer, known = a[string(path)+" "+call.Body[1].(string)]; known {
			if _, failed := answer.(godbus.Error); !failed {
				answer = godbus.MakeVariant(answer)
			}
		}
	}
	if member == "Hello" {
		answer, known = ":1.1", true
	}
	if !known {
		return nil
	}
	if failed, ok := answer.(godbus.Error); ok {
		reply.Type = godbus.TypeError
		reply.Headers[godbus.FieldErrorName] = godbus.MakeVariant(failed.Name)
		return reply
	}
	reply.Body = []any{answer}
	reply.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(answer))
	return reply
}

func failure(name string) godbus.Error {
	return godbus.Error{Name: "org.freedesktop.DBus.Error." + name}
}

type session struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path godbus.ObjectPath
}

const manager = "/org/freedesktop/login1 "

func TestUsers(t *testing.T) {
	table := answers{}
	var list []session
	for i, s := range []struct{ user, class, state string }{
		{"zoe", "user", "active"}, {"alice", "user", "online"}, {"alice", "user", "active"}, {"gdm", "greeter", "active"},
		{"bob", "user", "closing"}, {"carol", "manager", "active"}, {"dave", "background", "active"},
		{"erin", "user-early", "active"}, {"frank", "lock-screen", "active"},
	} {
		path := godbus.ObjectPath(fmt.Sprintf("/org/freedesktop/login1/session/_3%d", i))
		list = append(list, session{ID: fmt.Sprint(i), User: s.user, Path: path})
		table[string(path)+" Class"], table[string(path)+" State"] = s.class, s.state
	}
	list = append(list, session{ID: "gone", User: "gone", Path: "/gone"})
	table["/gone Class"] = failure("UnknownObject")
	table[manager+"ListSessions"] = list
	users, err := Users(t.Context(), busWith(t, table))
	if want := []string{"alice", "erin", "zoe"}; err != nil || !slices.Equal(users, want) {
		t.Errorf("%q are logged in, %v; want %q", users, err, want)
	}
}

func TestUsersUnknown(t *testing.T) {
	one := []session{{ID: "7", User: "alice", Path: "/seven"}}
	for name, c := range map[string]struct {
		table answers
		want  string
	}{
		"no logind":  {answers{manager + "ListSessions": failure("ServiceUnknown")}, "cannot ask logind who is logged in"},
		"no session": {answers{manager + "ListSessions": one, "/seven Class": failure("AccessDenied")}, `session "7"`},
		"too many": {answers{manager + "ListSessions": slices.Repeat(one, maxSessions+1)},
			"1025 sessions, more than 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			if users, err := Users(t.Context(), busWith(t, c.table)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q are logged in, error %v; want one about %q", users, err, c.want)
			}
		})
	}
}

func TestMaintenanceTime(t *testing.T) {
	const name = manager + "DesignatedMaintenanceTime"
	for title, c := range map[string]struct {
		answer     any
		want, fail string
	}{
		"set":       {"Sat *-*-* 03:00:00", "Sat *-*-* 03:00:00", ""},
		"not set":   {"", "", ""},
		"older":     {failure("UnknownProperty"), "", ""},
		"no logind": {failure("ServiceUnknown"), "", ""},
		"refused":   {failure("AccessDenied"), "", "cannot ask logind for the designated maintenance time"},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := MaintenanceTime(t.Context(), busWith(t, answers{name: c.answer}))
			if got != c.want || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("the maintenance time is %q, error %v; want %q, %q", got, err, c.want, c.fail)
			}
		})
	}
}

func TestMetered(t *testing.T) {
	const owner, metered = "/org/freedesktop/DBus NameHasOwner", "/org/freedesktop/NetworkManager Metered"
	for title, c := range map[string]struct {
		table answers
		want  bool
		fail  string
	}{
		"unknown":           {answers{owner: true, metered: uint32(0)}, false, ""},
		"yes":               {answers{owner: true, metered: uint32(1)}, true, ""},
		"no":                {answers{owner: true, metered: uint32(2)}, false, ""},
		"guess: yes":        {answers{owner: true, metered: uint32(3)}, true, ""},
		"guess: no":         {answers{owner: true, metered: uint32(4)}, false, ""},
		"no NetworkManager": {answers{owner: false}, false, ""},
		"it ended":          {answers{owner: true, metered: failure("ServiceUnknown")}, false, ""},
		"refused":           {answers{owner: true, metered: failure("AccessDenied")}, false, "whether the link is metered"},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := Metered(t.Context(), busWith(t, c.table))
			if got != c.want || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("metered is %v, error %v; want %v, %q", got, err, c.want, c.fail)
			}
		})
	}
}

// TestSilentBus: a service that does not answer costs the time that the caller has, and is an error.
func TestSilentBus(t *testing.T) {
	bus := busWith(t, answers{})
	ctx, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer end()
	_, users := Users(ctx, bus)
	_, maintenance := MaintenanceTime(ctx, bus)
	_, metered := Metered(ctx, bus)
	for name, err := range map[string]error{"users": users, "maintenance time": maintenance, "metered": metered} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the error is %v, want that the time is up", name, err)
		}
	}
}
