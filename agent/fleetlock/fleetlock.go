// Package fleetlock asks a FleetLock server for one of the slots that limit how many hosts of a group switch at the
// same time, and gives it back. It promises that a host that may hold a slot knows it, also after a crash: the [Slot]
// is on the disk before the server is asked, until the server has taken it back.
//
// The protocol has no lease: a slot belongs to its owner until the owner gives it back, and to ask again for a slot
// that one holds succeeds. So everything here may be repeated, and nothing ends on its own.
package fleetlock

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/updatectl/updatectl/verify/printable"
)

// Client speaks to a FleetLock server for one host.
type Client struct {
	URL   string // of the server, http or https, without the paths of the protocol
	Group string // the hosts that share slots
	ID    string // the owner of the slot: what [ID] returns for this host
	// HTTP sends the requests; nil is one with the system's certificates and proxies. It follows no redirect.
	HTTP *http.Client
}

// RequestTimeout bounds a request with its answer. A server asks its database, and the protocol has nothing that waits
// for a slot.
const RequestTimeout = 30 * time.Second

var (
	// ErrHeld means that the server answered, and refuses for now; it is a [Refusal].
	ErrHeld = errors.New("the FleetLock server refuses for now")
	// ErrServer means that the server cannot be reached, or that its answer is not of the protocol. Whether it did what it
	// was asked for is unknown.
	ErrServer = errors.New("the FleetLock server does not answer as it should")
)

// Refusal is the answer of a server that does not do what it was asked for, an [ErrHeld].
type Refusal struct {
	Status int    // of HTTP
	Kind   string // a short name, such as failed_lock
	Value  string // for people
}

// Error has what the server said.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%v: %s: %s (HTTP %d)", ErrHeld, r.Kind, r.Value, r.Status)
}

// Is makes a refusal an [ErrHeld].
func (r *Refusal) Is(target error) bool { return target == ErrHeld }

// groups matches what the protocol allows as a group.
var groups = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)

// Validate returns an error that says which part of the configuration is wrong, and why.
func (c Client) Validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return errors.New("[fleetlock] url: it cannot be read as an address") // the error would show a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("[fleetlock] url: %q is no address like https://fleetlock.example.org", c.host())
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("[fleetlock] url: %q must end with the path: the client appends to it", c.host())
	case !groups.MatchString(c.Group):
		return fmt.Errorf("[fleet] group: %q is not made of letters, digits, points and hyphens", c.Group)
	case c.ID == "":
		return errors.New("the host has no FleetLock id")
	}
	return nil
}

// host returns the address of the server without its password.
func (c Client) host() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Redacted()
}

// Take takes a slot. nil means that this host holds it, also when it held it before. An [ErrHeld] says that there is
// none for now. After an [ErrServer], the host may hold one.
func (c Client) Take(ctx context.Context) error { return c.ask(ctx, "v1/pre-reboot") }

// GiveBack gives the slot back. nil means that this host holds none, also when it held none before.
func (c Client) GiveBack(ctx context.Context) error { return c.ask(ctx, "v1/steady-state") }

// request is the body of a request.
type request struct {
	Params struct {
		ID    string `json:"id"`
		Group string `json:"group"`
	} `json:"client_params"`
}

func (c Client) ask(ctx context.Context, endpoint string) error {
	if err := c.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	var body request
	body.Params.ID, body.Params.Group = c.ID, c.Group
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	address := strings.TrimRight(c.URL, "/") + "/" + endpoint
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("fleet-lock-protocol", "true")
	req.Header.Set("Content-Type", "application/json")
	client := *cmp.Or(c.HTTP, http.DefaultClient)
	// After most redirects, a POST would become a GET, and the operator's server another one.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrServer, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return refusal(answer)
}

// The bounds of an answer, in bytes, and of each text in it, in characters.
const (
	maxAnswer = 16 << 10
	maxText   = 300
)

// refusal returns the error of an answer that is not 200.
func refusal(answer *http.Response) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: HTTP %d from %s: %s", ErrServer, answer.StatusCode, answer.Request.URL.Redacted(),
			fmt.Sprintf(format, args...))
	}
	if to := answer.Header.Get("Location"); to != "" {
		return wrong("it redirects to %s: write the right address as url in [fleetlock]", shown(to))
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return wrong("cannot read the answer: %v", err)
	}
	if len(text) > maxAnswer {
		return wrong("the answer has more than %d bytes", maxAnswer)
	}
	var said struct{ Kind, Value string }
	if err := json.Unmarshal(text, &said); err != nil || said.Kind == "" {
		return wrong("the answer is not of the FleetLock protocol: %s", shown(string(text)))
	}
	return &Refusal{Status: answer.StatusCode, Kind: shown(said.Kind), Value: shown(said.Value)}
}

// shown returns the beginning of a text of the server as it can be printed.
func shown(text string) string {
	runes := []rune(strings.TrimSpace(text))
	if len(runes) > maxText {
		return printable.Text(string(runes[:maxText])) + "…"
	}
	return printable.Text(string(runes))
}
