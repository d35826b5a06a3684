//go:build lab

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

const prometheusExamples = "../configs/examples/prometheus"

// TestPrometheus: Prometheus loads the alert rules, they fire for what they should and for nothing else, it scrapes the
// real agent, and every panel of the dashboard gets an answer.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	rules := alertRules(t)
	address, text := servedMetrics(t)
	prometheus, err := lab.StartPrometheus(t.Context(), fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: updatectl, static_configs: [{targets: [%q]}]}]
`, rules, address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prometheus.Stop)

	waitFor(t, "Prometheus", func() bool { return isReady(t, prometheus) })
	waitFor(t, "the first scrape", func() bool { return len(query(t, prometheus, "updatectl_info")) > 0 })
	var got []string
	for _, series := range query(t, prometheus, `group by (__name__) ({__name__=~"updatectl_.+"})`) {
		got = append(got, series["__name__"])
	}
	slices.Sort(got)
	want := seriesIn(text)
	if !slices.Equal(got, want) || len(want) < 7 {
		t.Errorf("Prometheus has the series %v, and the agent prints %v", got, want)
	}
	expressions := panels(t)
	for _, expr := range expressions {
		query(t, prometheus, strings.ReplaceAll(expr, "$instance", ".*"))
	}
	if len(expressions) < 8 {
		t.Errorf("the dashboard asks for %q only", expressions)
	}
	waitFor(t, "the evaluation of the rules", func() bool { return rulesAreHealthy(t, prometheus) })
	if firing := query(t, prometheus, `ALERTS`); len(firing) > 0 {
		t.Errorf("a new host has the alerts %v", firing)
	}
}

// alertRules tests the alert rules by promtool, and returns their path.
func alertRules(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	texts := map[string]string{}
	for name, from := range map[string]string{
		"updatectl-alerts.yml": prometheusExamples, "updatectl-alerts-test.yml": "testdata",
	} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	rules, tests := filepath.Join(dir, "updatectl-alerts.yml"), filepath.Join(dir, "updatectl-alerts-test.yml")
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", tests}} {
		out, err := lab.Promtool(t.Context(), args...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("promtool %s: %s", strings.Join(args[:2], " "), out)
	}
	alerts := regexp.MustCompile(`(?m)^ *- alert: (\S+)$`).FindAllStringSubmatch(texts["updatectl-alerts.yml"], -1)
	for _, alert := range alerts {
		quiet := "alertname: " + alert[1] + "}\n"
		fires := "alertname: " + alert[1] + "\n        exp_alerts:\n"
		for _, part := range []string{quiet, fires} {
			if !strings.Contains(texts["updatectl-alerts-test.yml"], part) {
				t.Errorf("the tests of the rules lack %q", part)
			}
		}
	}
	if len(alerts) < 7 {
		t.Errorf("the rules have the alerts %v only", alerts)
	}
	return rules
}

// servedMetrics serves the metrics of a host that has never been updated, as systemd starts the command. It returns the
// address, and what the command prints without a socket.
func servedMetrics(t *testing.T) (address, text string) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib/updatectl"), 0o755); err != nil {
		t.Fatal(err)
	}
	binary := lab.Binary(t, "updatectl")
	out, err := exec.CommandContext(t.Context(), binary, "--root", root, "metrics").Output()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	handed, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	const start = `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --root "$1" metrics --listen`
	cmd := exec.Command("sh", "-c", start, binary, root)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{handed}, t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("updatectl metrics --listen: %v", err)
		}
	})
	return socket.Addr().String(), string(out)
}

// seriesIn returns the names of the series in a text of metrics.
func seriesIn(text string) []string {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(updatectl_[a-z_]+)[ {]`).FindAllStringSubmatch(text, -1) {
		names[m[1]] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// panels returns the expressions of the dashboard.
func panels(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prometheusExamples, "updatectl-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	return expressions
}

// isReady reports whether Prometheus answers queries: it listens before.
func isReady(t *testing.T, p *lab.Prometheus) bool {
	t.Helper()
	r, err := http.Get(p.URL + "/-/ready")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// maxAnswer bounds an answer of Prometheus, in bytes.
const maxAnswer = 1 << 20

// asked returns the data of an answer of Prometheus.
func asked(t *testing.T, p *lab.Prometheus, path string) json.RawMessage {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second}
	r, err := client.Get(p.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	err = json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(&answer)
	if err != nil || answer.Status != "success" {
		t.Fatalf("%s: %d, %+v, %v", path, r.StatusCode, answer, err)
	}
	return answer.Data
}

// query returns the labels of the series that an expression selects.
func query(t *testing.T, p *lab.Prometheus, expr string) (series []map[string]string) {
	t.Helper()
	var data struct {
		Result []struct{ Metric map[string]string }
	}
	if err := json.Unmarshal(asked(t, p, "/api/v1/query?query="+url.QueryEscape(expr)), &data); err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	for _, r := range data.Result {
		series = append(series, r.Metric)
	}
	return series
}

// rulesAreHealthy reports whether Prometheus has evaluated every alert rule.
func rulesAreHealthy(t *testing.T, p *lab.Prometheus) bool {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := json.Unmarshal(asked(t, p, "/api/v1/rules"), &data); err != nil {
		t.Fatal(err)
	}
	healthy := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.Health == "err" {
				t.Fatalf("%s: %s", r.Name, r.LastError)
			}
			if r.Health == "ok" {
				healthy++
			}
		}
	}
	return healthy >= 7
}

// waitFor polls until something is so, for a minute.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there is no sign of %s after three minutes", what)
		}
	}
}
