package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// serve returns a client of a server that answers every request with a status and a body.
func serve(t *testing.T, answer http.HandlerFunc) Client {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return Client{URL: s.URL + "/base/", Group: "web", ID: "host-1"}
}

// TestProtocol: what goes over the wire is the protocol, and 200 is enough.
func TestProtocol(t *testing.T) {
	var paths []string
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		body, err := io.ReadAll(r.Body)
		if want := `{"client_params":{"id":"host-1","group":"web"}}`; err != nil || string(body) != want {
			t.Errorf("the body is %s (%v), want %s", body, err, want)
		}
		if got := r.Header.Get("fleet-lock-protocol"); got != "true" {
			t.Errorf("the header is %q", got)
		}
	})
	if err := errors.Join(c.Take(t.Context()), c.GiveBack(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(paths, ", "); got != "POST /base/v1/pre-reboot, POST /base/v1/steady-state" {
		t.Errorf("the requests are %s", got)
	}
}

// TestAnswers: only a refusal in the form of the protocol counts as one, and no byte of the server gets
// to a terminal as it is.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string // Location
		body   string
		want   error
		says   string
	}{
		"no slot":     {409, "", `{"kind":"failed_lock","value":"all taken"}`, ErrHeld, "failed_lock: all taken (HTTP 409)"},
		"its storage": {500, "", `{"kind":"failed_sem","value":"no etcd"}`, ErrHeld, "failed_sem: no etcd (HTTP 500)"},
		"colours":     {409, "", `{"kind":"a\u001b[31m","value":"b\nc"}`, ErrHeld, `a\x1b[31m: b`},
		"long":        {409, "", `{"kind":"a","value":"` + strings.Repeat("x", 9000) + `"}`, ErrHeld, "xxx…"},
		"a proxy":     {502, "", "<html>bad gateway", ErrServer, "not of the FleetLock protocol: <html>bad"},
		"no kind":     {409, "", `{"value":"x"}`, ErrServer, "not of the FleetLock protocol"},
		"nothing":     {204, "", "", ErrServer, "HTTP 204"},
		"too much": {409, "", `{"kind":"a","value":"` + strings.Repeat("x", maxAnswer) + `"}`, ErrServer,
			"more than 16384 bytes"},
		"elsewhere": {307, "https://other.example.org/", "", ErrServer, "it redirects to https://other.example.org/"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				if c.header != "" {
					w.Header().Set("Location", c.header)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			err := client.Take(t.Context())
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want %v with %q", err, c.want, c.says)
			}
			if errors.Is(err, ErrHeld) && errors.Is(err, ErrServer) {
				t.Error("it is both errors")
			}
			if n := len(err.Error()); n > 2*maxText {
				t.Errorf("the error has %d bytes", n)
			}
			if asked != 1 {
				t.Errorf("it asked %d times", asked)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"kind":"failed_lock","value":"full"}`)
	})
	var r *Refusal
	if err := c.Take(t.Context()); !errors.As(err, &r) || *r != (Refusal{409, "failed_lock", "full"}) {
		t.Errorf("the error is %v", err)
	}
}

// TestUnreachable: no password of the address is shown.
func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	c := Client{URL: strings.Replace(s.URL, "http://", "http://user:secret@", 1), Group: "web", ID: "host-1"}
	err := c.Take(t.Context())
	if !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), "connection refused") ||
		strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %v", err)
	}
}

// TestCanceled: who cancels gets that as the error.
func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // until then, the server does not notice that the client leaves
		cancel()
		<-r.Context().Done()
	})
	if err := c.Take(ctx); !errors.Is(err, ErrServer) || !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestValidate(t *testing.T) {
	good := Client{URL: "https://user:secret@lock.example.org/x", Group: "a.B-1", ID: "1"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Client){
		"no address like":          func(c *Client) { c.URL = "user:secret@lock.example.org" },
		"is no address like":       func(c *Client) { c.URL = "ftp://user:secret@lock.example.org" },
		"cannot be read":           func(c *Client) { c.URL = "http://user:secret@a b/" },
		"must end with the path":   func(c *Client) { c.URL += "?a=b" },
		`[fleet] group: ""`:        func(c *Client) { c.Group = "" },
		`[fleet] group: "a b"`:     func(c *Client) { c.Group = "a b" },
		"not made of letters":      func(c *Client) { c.Group = "a\n" },
		"the host has no FleetLoc": func(c *Client) { c.ID = "" },
	} {
		c := good
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
		if taken := c.Take(t.Context()); taken == nil || taken.Error() != err.Error() {
			t.Errorf("it asks: %v", taken)
		}
	}
}

// TestID compares with systemd, on this machine's ID.
func TestID(t *testing.T) {
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Fatalf("the test needs a machine ID, of systemd-machine-id-setup(1): %v", err)
	}
	want, err := exec.Command("systemd-id128", "machine-id", "--app-specific="+appID).Output()
	if err != nil {
		t.Fatalf("the test needs systemd-id128: %v", err)
	}
	got, err := ID(string(machine))
	if err != nil || got != strings.TrimSpace(string(want)) {
		t.Errorf("the ID is %s, %v; want %s", got, err, want)
	}
	if got == strings.TrimSpace(string(machine)) {
		t.Error("it is the machine ID")
	}
}

// TestIDIsStable: a host that was updated with a slot in its hands is still its owner.
func TestIDIsStable(t *testing.T) {
	const want = "5ce7f6d668b24bad8de820714cdbbf88"
	if got, err := ID("00112233445566778899aabbccddeeff"); err != nil || got != want {
		t.Errorf("the ID is %s, %v; want %s", got, err, want)
	}
}

func TestNoID(t *testing.T) {
	for _, machine := range []string{"", "uninitialized", strings.Repeat("0", 32), strings.Repeat("a", 31),
		strings.Repeat("a", 64)} {
		if id, err := ID(machine); err == nil || !strings.Contains(err.Error(), "is no machine ID") {
			t.Errorf("%q: %q, %v", machine, id, err)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		try    int
		random float64
		want   time.Duration
	}{
		{-1, 0, time.Second}, {0, 0, time.Second}, {0, 0.5, 1500 * time.Millisecond}, {1, 0.5, 2500 * time.Millisecond},
		{7, 0.5, 128500 * time.Millisecond}, {8, 0.5, 150500 * time.Millisecond}, {1 << 40, 0.5, 150500 * time.Millisecond},
	} {
		if got := Backoff(c.try, c.random); got != c.want {
			t.Errorf("try %d with %v: %v, want %v", c.try, c.random, got, c.want)
		}
	}
	for try := range 100 {
		for _, random := range []float64{0, 0.1, 0.5, 0.999999999} {
			if got := Backoff(try, random); got < time.Second || got > 5*time.Minute {
				t.Errorf("try %d with %v: %v", try, random, got)
			}
		}
	}
}

// waiting returns a wait with a clock that only sleeping moves.
func waiting(within time.Duration, slept *[]time.Duration) Wait {
	now := time.Unix(0, 0)
	return Wait{
		Within: within, Now: func() time.Time { return now }, Random: func() float64 { return 0.5 },
		Sleep: func(ctx context.Context, d time.Duration) error {
			now, *slept = now.Add(d), append(*slept, d)
			return ctx.Err()
		},
		Failed: func(error, time.Duration) {},
	}
}

// TestTakeWithin: it asks again after a refusal and after no answer, and stops when it has a slot.
func TestTakeWithin(t *testing.T) {
	answers := []int{409, 502, 200}
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answers[0])
		io.WriteString(w, `{"kind":"failed_lock","value":"full"}`)
		answers = answers[1:]
	})
	var slept []time.Duration
	var told []error
	w := waiting(time.Minute, &slept)
	w.Failed = func(err error, _ time.Duration) { told = append(told, err) }
	if err := c.TakeWithin(t.Context(), w); err != nil || len(answers) != 0 {
		t.Errorf("%v, and the answers %v are left", err, answers)
	}
	if len(slept) != 2 || slept[0] != Backoff(0, 0.5) || slept[1] != Backoff(1, 0.5) || len(told) != 2 {
		t.Errorf("it slept %v and told %v", slept, told)
	}
}

// TestTakeWithinEnds: it never waits longer than it may, and says why there was no slot.
func TestTakeWithinEnds(t *testing.T) {
	asked := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(409)
		io.WriteString(w, `{"kind":"failed_lock","value":"full"}`)
	})
	for within, want := range map[time.Duration]int{0: 1, 3 * time.Second: 2, 10 * time.Second: 4} {
		asked = 0
		var slept []time.Duration
		err := c.TakeWithin(t.Context(), waiting(within, &slept))
		var total time.Duration
		for _, d := range slept {
			total += d
		}
		if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "no slot of the group web after") || asked != want ||
			total > within {
			t.Errorf("within %v: %v, asked %d times in %v, want %d", within, err, asked, total, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := waiting(time.Hour, new([]time.Duration))
	w.Failed = func(error, time.Duration) { cancel() }
	asked = 0
	if err := c.TakeWithin(ctx, w); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrHeld) || asked != 1 {
		t.Errorf("canceled: %v, asked %d times", err, asked)
	}
}

// FuzzRefusal: whatever a server says, the error is one of the two, bounded, and can be printed.
func FuzzRefusal(f *testing.F) {
	for _, seed := range []string{`{"kind":"failed_lock","value":"full"}`, "<html>", `{"kind":"\u202e"}`, "\x1b["} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := &http.Response{StatusCode: 409, Body: io.NopCloser(strings.NewReader(body)),
			Request: httptest.NewRequest(http.MethodPost, "/", nil)}
		err := refusal(r)
		if errors.Is(err, ErrHeld) == errors.Is(err, ErrServer) {
			t.Errorf("the error is %v", err)
		}
		if strings.ContainsAny(err.Error(), "\x1b\u202e\x00") || len(err.Error()) > 16*maxText {
			t.Errorf("the error is %q", err)
		}
		if errors.Is(err, ErrHeld) && !json.Valid([]byte(body)) {
			t.Errorf("%q is a refusal", body)
		}
	})
}
