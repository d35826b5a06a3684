//go:build lab

package fleetlockd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	etcd "go.etcd.io/etcd/client/v3"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fleetlockd"
)

func TestMain(m *testing.M) {
	os.Exit(lab.Enter(lab.Prepare(lab.EtcdTree, lab.FleetLockBinary), m.Run))
}

// start starts etcd and a server.
func start(t *testing.T, slots int) (*lab.Etcd, *lab.FleetLock) {
	t.Helper()
	e, err := lab.StartEtcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Stop() })
	f, err := lab.StartFleetLock(t.Context(), e, slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Stop() })
	return e, f
}

// post sends a request and returns the status, 0 if there was no answer, and the body.
func post(ctx context.Context, url, endpoint, body, header string) (int, string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/"+endpoint, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("fleet-lock-protocol", header)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

func params(id, group string) string {
	return fmt.Sprintf(`{"client_params":{"id":%q,"group":%q}}`, id, group)
}

// TestProtocol: a slot is owned and recursive, groups do not touch each other, and a server that starts again knows who
// holds one.
func TestProtocol(t *testing.T) {
	_, f := start(t, 1)
	for i, c := range []struct {
		endpoint, body, header string
		status                 int
		says                   string
	}{
		{"pre-reboot", params("a", "web"), "true", 200, ""},
		{"pre-reboot", params("a", "web"), "true", 200, ""},
		{"pre-reboot", params("b", "web"), "true", 409, `{"kind":"failed_lock","value":"all 1 slots of web are held, by a"}`},
		{"pre-reboot", params("b", "db"), "true", 200, ""},
		{"steady-state", params("b", "web"), "true", 200, ""},
		{"restart", "", "", 0, ""},
		{"pre-reboot", params("b", "web"), "true", 409, "by a"},
		{"steady-state", params("a", "web"), "true", 200, ""},
		{"pre-reboot", params("b", "web"), "true", 200, ""},
		{"pre-reboot", params("a", "web"), "", 400, `"kind":"bad_request"`},
		{"pre-reboot", params("a", "w/b"), "true", 400, "is not allowed"},
		{"pre-reboot", params("", "web"), "true", 400, "is not allowed"},
		{"pre-reboot", "{", "true", 400, "cannot read the body"},
	} {
		if c.endpoint == "restart" {
			f.Stop()
			if err := f.Start(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if status, text := post(t.Context(), f.URL, c.endpoint, c.body, c.header); status != c.status ||
			!strings.Contains(text, c.says) {
			t.Errorf("%d: %s %s: %d %s, want %d %s", i, c.endpoint, c.body, status, text, c.status, c.says)
		}
	}
}

// TestNeverMoreThanSlots: many hosts take a slot and give it back, through two servers, one of which is killed again
// and again, as etcd is once. No more hosts than there are slots ever believe that they hold one, and etcd never had
// more holders, in any revision.
func TestNeverMoreThanSlots(t *testing.T) {
	const slots, hosts, turns = 3, 20, 4
	e, first := start(t, slots)
	second, err := lab.StartFleetLock(t.Context(), e, slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Stop() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()

	var holding, most, taken, refused, lost atomic.Int64
	// until asks one of the servers, again until it agrees.
	until := func(endpoint, id string) {
		for ctx.Err() == nil {
			url := []string{first.URL, second.URL}[rand.N(2)]
			switch status, _ := post(ctx, url, endpoint, params(id, "web"), "true"); status {
			case 200:
				return
			case 409:
				refused.Add(1)
			default: // the server or etcd is away, and may have done it
				lost.Add(1)
			}
			time.Sleep(rand.N(20 * time.Millisecond))
		}
	}
	var all sync.WaitGroup
	for host := range hosts {
		id := fmt.Sprintf("host-%d", host)
		all.Go(func() {
			for range turns {
				until("pre-reboot", id)
				now := holding.Add(1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				time.Sleep(rand.N(10 * time.Millisecond))
				holding.Add(-1)
				until("steady-state", id)
				taken.Add(1)
			}
		})
	}
	await := func(n int64) {
		for taken.Load() < n && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
	restart := func(stop func(), start func() error) {
		stop()
		if err := start(); err != nil {
			t.Error(err)
		}
	}
	for i := range 5 {
		await(int64(10 * (i + 1)))
		restart(first.Stop, first.Start)
		if i == 2 {
			restart(e.Stop, e.Start)
		}
	}
	all.Wait()
	if ctx.Err() != nil {
		t.Fatalf("after %d turns: %v", taken.Load(), context.Cause(ctx))
	}
	t.Logf("%d turns, refused %d times, without an answer %d times, at most %d holders", taken.Load(), refused.Load(),
		lost.Load(), most.Load())
	if most.Load() > slots || most.Load() < 2 || taken.Load() != hosts*turns || refused.Load() == 0 || lost.Load() == 0 {
		t.Errorf("at most %d hosts held %d slots", most.Load(), slots)
	}
	checkRevisions(ctx, t, e.URL, slots)
}

// checkRevisions reads everything that etcd ever had of the group.
func checkRevisions(ctx context.Context, t *testing.T, url string, slots int) {
	t.Helper()
	client, err := etcd.New(etcd.Config{Endpoints: []string{url}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	now, err := client.Get(ctx, fleetlockd.Prefix+"web")
	if err != nil || len(now.Kvs) != 1 {
		t.Fatalf("etcd has %v, %v", now, err)
	}
	revisions, most := 0, 0
	for answer := range client.Watch(ctx, fleetlockd.Prefix+"web", etcd.WithRev(1)) {
		if answer.Err() != nil {
			t.Fatal(answer.Err())
		}
		for _, event := range answer.Events {
			var g fleetlockd.Group
			if err := json.Unmarshal(event.Kv.Value, &g); err != nil {
				t.Fatal(err)
			}
			if revisions++; len(g.Holders) > slots || g.Slots != slots {
				t.Errorf("in revision %d, etcd had %s", event.Kv.ModRevision, event.Kv.Value)
			}
			most = max(most, len(g.Holders))
			if event.Kv.ModRevision < now.Kvs[0].ModRevision {
				continue
			}
			if len(g.Holders) != 0 || most != slots || int64(revisions) != now.Kvs[0].Version {
				t.Errorf("in the end, etcd has %s, after %d of %d revisions with at most %d holders", event.Kv.Value, revisions,
					now.Kvs[0].Version, most)
			}
			return
		}
	}
	t.Errorf("etcd showed %d revisions only: %v", revisions, ctx.Err())
}
