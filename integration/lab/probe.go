package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An Outage is a time in which a service did not answer one of its clients.
type Outage struct {
	From, To time.Time // when the last good answer before it was requested, and the first one after it arrived
	Failures int       // how many attempts failed in between
	Late     int       // how many of those were answered too late, or not at all
	First    error     // the first failure
}

// Length returns how long the client was without the service.
func (o Outage) Length() time.Duration { return o.To.Sub(o.From) }

// IsLate reports whether one or two attempts were answered too late, and nothing was refused: the host was busy, and
// there for all that. During a switch, many attempts are refused.
func (o Outage) IsLate() bool { return o.Late == o.Failures && o.Failures <= 2 }

func (o Outage) String() string {
	return fmt.Sprintf("%d ms (%d attempts failed, first: %v)", o.Length().Milliseconds(), o.Failures, o.First)
}

// A Probe polls a service from outside the host, each time with a new connection.
type Probe struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	outages []Outage
	open    *Outage   // one that has not ended
	good    time.Time // when the last request with a good answer was sent
	answers []Answer
}

// An Answer is a text that the service returned, and when it changed to it.
type Answer struct {
	At   time.Time
	Text string
}

const (
	// probeInterval bounds the error of a measured outage from either side.
	probeInterval = 5 * time.Millisecond
	// connectTimeout ends an attempt when the host drops packets; a refusal comes at once. It is long, because an
	// overloaded machine delays connections, too.
	connectTimeout = time.Second
	// answerTimeout is long, because a host that is busy unpacking an image answers late without being away.
	answerTimeout = 2 * time.Second
	// probeBody bounds an answer; the page of a lab host is shorter.
	probeBody = 4 << 10
)

// StartProbe starts to poll an HTTP address. It returns after the first good answer, for which it waits this long.
func StartProbe(url string, limit time.Duration) (*Probe, error) {
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
	if err := poll(limit, func() (bool, error) { return p.answered(), nil }); err != nil {
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

// note records one attempt.
func (p *Probe) note(sent, answered time.Time, text string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil && p.good.IsZero(): // the service is not up yet, which is no outage
	case err != nil && p.open == nil:
		p.open = &Outage{From: p.good, Failures: 1, Late: late(err), First: err}
	case err != nil:
		p.open.Failures++
		p.open.Late += late(err)
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

// late returns 1 for an attempt that nobody answered in time, otherwise 0.
func late(err error) int {
	if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
		return 1
	}
	return 0
}

// Outages returns the outages that have ended.
func (p *Probe) Outages() []Outage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Outage(nil), p.outages...)
}

// Answers returns the answers so far, in order.
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
