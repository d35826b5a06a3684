package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An Outage is a time in which a service did not answer, as one of its clients saw it.
type Outage struct {
	From, To time.Time // the last good answer before it was asked for, the first good answer after it had come
	Failures int       // how many attempts failed in between
	First    error     // the first failure
}

// Length is how long the client was without the service.
func (o Outage) Length() time.Duration { return o.To.Sub(o.From) }

func (o Outage) String() string {
	return fmt.Sprintf("%d ms (%d attempts failed, first: %v)", o.Length().Milliseconds(), o.Failures, o.First)
}

// A Probe asks a service over and over, each time with a new connection, as a client outside the host would.
type Probe struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	outages []Outage
	open    *Outage   // the one that has not ended
	good    time.Time // when the last good answer's request was sent
	answers []Answer
}

// An Answer is a text the service gave, and when it did so for the first time since it last gave another.
type Answer struct {
	At   time.Time
	Text string
}

const (
	// probeInterval bounds the error of a measured outage from either side.
	probeInterval = 5 * time.Millisecond
	// connectTimeout ends an attempt when the host drops packets; a refusal comes at once. It is long, because a machine
	// that has more to do than it can also delays a connection.
	connectTimeout = time.Second
	// answerTimeout is generous: a host that is busy unpacking an image answers late, and is not away.
	answerTimeout = 2 * time.Second
	// probeBody is more than the page of a lab host has.
	probeBody = 4 << 10
)

// StartProbe begins to poll an address with HTTP. It returns when the first good answer is there.
func StartProbe(url string) (*Probe, error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Probe{cancel: cancel, done: make(chan struct{})}
	client := &http.Client{
		Timeout: answerTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true, // an outage shows in new connections
			DialContext:       (&net.Dialer{Timeout: connectTimeout}).DialContext,
		},
	}
	go p.poll(ctx, client, url)
	if err := poll(patience, func() (bool, error) { return p.answered(), nil }); err != nil {
		p.Stop()
		return nil, fmt.Errorf("cannot probe %s: %w", url, err)
	}
	return p, nil
}

func (p *Probe) answered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.good.IsZero()
}

func (p *Probe) poll(ctx context.Context, client *http.Client, url string) {
	defer close(p.done)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		sent := time.Now()
		text, err := ask(ctx, client, url)
		if ctx.Err() != nil {
			return
		}
		p.note(sent, time.Now(), text, err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, probeBody))
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", res.Status)
	}
	return strings.TrimSpace(string(body)), nil
}

// note adds one attempt to what is known.
func (p *Probe) note(sent, answered time.Time, text string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil && p.good.IsZero(): // not up yet: no outage
	case err != nil && p.open == nil:
		p.open = &Outage{From: p.good, Failures: 1, First: err}
	case err != nil:
		p.open.Failures++
	default:
		if p.open != nil {
			p.open.To = answered
			p.outages = append(p.outages, *p.open)
			p.open = nil
		}
		p.good = sent
		if n := len(p.answers); n == 0 || p.answers[n-1].Text != text {
			p.answers = append(p.answers, Answer{answered, text})
		}
	}
}

// Outages are those that have ended.
func (p *Probe) Outages() []Outage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Outage(nil), p.outages...)
}

// Answers are the texts given so far, in order.
func (p *Probe) Answers() []Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Answer(nil), p.answers...)
}

// Stop ends the polling.
func (p *Probe) Stop() {
	p.cancel()
	<-p.done
}
