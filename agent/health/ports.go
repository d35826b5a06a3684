package health

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// dialTime is how long a connection may take. A host that answers at all does so within a second; a second try of the
// kernel comes after one.
const dialTime = 3 * time.Second

// addresses are what a port is asked at; one of them must answer. A port without a host is this host's, whichever
// family it listens on.
func addresses(port string) ([]string, error) {
	where := strings.TrimPrefix(port, "tcp:")
	host, number, err := "", where, error(nil)
	if strings.Contains(where, ":") {
		host, number, err = net.SplitHostPort(where)
	}
	if n, nerr := strconv.ParseUint(number, 10, 16); err != nil || nerr != nil || n == 0 || host == "udp" {
		return nil, fmt.Errorf(`%q is no port: write "tcp:22", or with a host "192.0.2.1:22"`, port)
	}
	if host != "" {
		return []string{net.JoinHostPort(host, number)}, nil
	}
	return []string{net.JoinHostPort("127.0.0.1", number), net.JoinHostPort("::1", number)}, nil
}

// port tells whether somebody accepts connections.
func (g Gate) port(ctx context.Context, port string) Result {
	all, err := addresses(port)
	if err != nil {
		return failf("%v", err)
	}
	for _, a := range all {
		aerr := g.answers(ctx, a)
		if aerr == nil {
			return Result{}
		}
		if err == nil { // what the first address says is what people look for
			err = aerr
		}
	}
	return failf("it does not answer: %v", err)
}

// answers opens a connection and closes it again.
func (g Gate) answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := g.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
