package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// PrometheusTree returns a tree with Prometheus and promtool, which run chrooted.
func PrometheusTree(ctx context.Context) (string, error) {
	return tree(ctx, "prometheus", recipe{Suites: []string{"trixie"}, Packages: []string{"prometheus"}})
}

// Promtool runs promtool and returns its output; inside the enclosure only. It sees what [Tool] says.
func Promtool(ctx context.Context, args ...string) (string, error) {
	tree, err := PrometheusTree(ctx)
	if err != nil {
		return "", err
	}
	return Tool(ctx, tree, "promtool", args...)
}

// Prometheus is Debian's Prometheus, serving on the loopback interface of the enclosure, with its data in the run's
// directory.
type Prometheus struct {
	URL string
	daemon
}

// StartPrometheus starts Prometheus with a configuration, a YAML text; inside the enclosure only.
func StartPrometheus(ctx context.Context, config string) (*Prometheus, error) {
	tree, err := PrometheusTree(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := serving(tree, "prometheus")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("cannot configure Prometheus: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	p := &Prometheus{URL: "http://" + address}
	p.daemon = daemon{name: "Prometheus", address: address, log: filepath.Join(dir, "log"), command: func() *exec.Cmd {
		return Chrooted(context.Background(), tree, "prometheus", "--config.file="+file, "--web.listen-address="+address,
			"--storage.tsdb.path="+filepath.Join(dir, "data"))
	}}
	return p, p.Start()
}
