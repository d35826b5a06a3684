package health

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// dialTime is how long a connection may take. A host that answers does so within a second; the kernel sends its second
// SYN after one second.
const dialTime = 3 * time.Second

// addresses returns the addresses of a port, one of which must answer. A port without a host is on this host, over IPv4
// or IPv6.
func addresses(port string) ([]string, error) {
	where := strings.TrimPrefix(port, "tcp:")
	host, number, err := "", where, error(nil)
	if strings.Contains(where, ":") {
		host, number, err = net.SplitHostPort(where)
	}
	if n, nerr := strconv.ParseUint(number, 10, 16); err != nil || nerr != nil || n == 0 || host == "udp" {
		return nil, fmt.Errorf(`%q is not a port: write "tcp:22", or with a host "192.0.2.1:22"`, port)
	}
	if host != "" {
		return []string{net.JoinHostPort(host, number)}, nil
	}
	return []string{net.JoinHostPort("127.0.0.1", number), net.JoinHostPort("::1", number)}, nil
}

// port checks that a port accepts connections.
func (g Gate) port(ctx context.Context, port string) Result {
	all, err := addresses(port)
	if err != nil {
		return failf("%v", err)
	}
	for _, a := range all {
		dialErr := g.dial(ctx, a)
		if dialErr == nil {
			return Result{}
		}
		if err == nil { // the error of the first address, which is the one that people look for
			err = dialErr
		}
	}
	return failf("it does not answer: %v", err)
}

// dial opens a TCP connection and closes it.
func (g Gate) dial(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := g.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
