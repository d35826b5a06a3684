package schedule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/updatectl/updatectl/verify/printable"
)

const (
	// maxExpression bounds a calendar expression, in bytes.
	maxExpression = 256
	// maxOutput bounds what systemd-analyze prints for one expression, in bytes.
	maxOutput = 1 << 20
	// patience is how long systemd-analyze may take. It needs some milliseconds.
	patience = 10 * time.Second
)

// Analyze runs systemd-analyze with arguments, and returns what it prints.
type Analyze func(ctx context.Context, args ...string) ([]byte, error)

// Systemd is the [Analyze] of this host. The error is what systemd-analyze says.
func Systemd(ctx context.Context, args ...string) ([]byte, error) {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	var out, problem limitedBuffer
	c := exec.CommandContext(ctx, "systemd-analyze", args...)
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=")
	c.Stdout, c.Stderr = &out, &problem
	c.WaitDelay = time.Second
	err := c.Run()
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("systemd-analyze does not end: %w", ctx.Err())
	case errors.As(err, &failed) && problem.Len() > 0:
		return nil, errors.New(printable.Text(strings.TrimSpace(problem.String())))
	case err != nil:
		return nil, fmt.Errorf("cannot run systemd-analyze: %w", err)
	}
	return out.Bytes(), nil
}

// limitedBuffer fails when more is written to it than a program in order prints.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxOutput {
		return 0, fmt.Errorf("it prints more than %d bytes", maxOutput)
	}
	return b.Buffer.Write(p)
}

// Valid returns an error if systemd does not understand a calendar expression, or if the zone is not known.
func Valid(ctx context.Context, analyze Analyze, expr, zone string) error {
	_, err := Starts(ctx, analyze, expr, zone, time.Now(), 1)
	return err
}

// Starts returns up to n times after since at which a calendar expression is due, in order. There are fewer if it is
// not due that often. A zone at the end of the expression counts before the given one; "" is the zone of the host.
//
// systemd is asked in UTC, and its answer is read as local time. This way, each day on which the expression is due has
// its start, whichever version of systemd answers: where the clock skips the time, the start is the moment after the
// skipped hour, and where the time exists twice, it is the first of the two. systemd leaves a skipped time out. Clocks
// change on Sundays in most zones, and a window that opens on Sundays only would lose a week.
func Starts(ctx context.Context, analyze Analyze, expr, zone string, since time.Time, n int) ([]time.Time, error) {
	times, location, err := split(expr, zone)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strconv.QuoteToGraphic(expr), err)
	}
	out, err := analyze(ctx, "calendar", fmt.Sprintf("--base-time=@%d", baseFor(since, location).Unix()),
		fmt.Sprintf("--iterations=%d", n), "--", times+" UTC")
	if err != nil {
		return nil, fmt.Errorf("%q: systemd does not take it as times of the calendar: %w", expr, err)
	}
	due, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("%q: cannot read what systemd-analyze prints: %w", expr, err)
	}
	var starts []time.Time
	for _, wall := range due {
		start, last := fromWall(wall, location), since
		if len(starts) > 0 {
			last = starts[len(starts)-1]
		}
		if start.After(last) {
			starts = append(starts, start)
		}
	}
	return starts, nil
}

// zoneForm matches what only a time zone looks like in a calendar expression.
var zoneForm = regexp.MustCompile(`^[A-Za-z][A-Za-z_-]*/[A-Za-z]`)

// split returns an expression without its zone, and the zone in which it counts.
func split(expr, zone string) (string, *time.Location, error) {
	fields := strings.Fields(expr)
	switch {
	case len(expr) > maxExpression:
		return "", nil, fmt.Errorf("it is longer than %d characters", maxExpression)
	case strings.ContainsFunc(expr, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", nil, errors.New("it has characters that no calendar expression has")
	case len(fields) == 0:
		return "", nil, errors.New("it is empty: write times such as \"Sat *-*-* 02:30\"")
	}
	last := len(fields) - 1
	own := fields[last]
	if strings.EqualFold(own, "UTC") {
		own = "UTC"
	}
	location, err := time.LoadLocation(own)
	switch {
	case last > 0 && err == nil:
		return strings.Join(fields[:last], " "), location, nil
	case zoneForm.MatchString(own):
		return "", nil, unknownZone(own)
	case zone == "":
		return expr, time.Local, nil
	}
	if location, err = time.LoadLocation(zone); err != nil {
		return "", nil, unknownZone(zone)
	}
	return expr, location, nil
}

func unknownZone(zone string) error {
	return fmt.Errorf("the time zone %q is not in /usr/share/zoneinfo: write one such as \"Europe/Berlin\", or install "+
		"tzdata", zone)
}

// wallOf returns what a clock on the wall shows at a time, as if it were UTC.
func wallOf(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.Add(time.Duration(offset) * time.Second).UTC()
}

// before returns the offset from UTC that counts until just before a change of the clock.
func before(change time.Time) time.Duration {
	_, offset := change.Add(-time.Nanosecond).Zone()
	return time.Duration(offset) * time.Second
}

// fromWall returns when a clock on the wall first shows a time, or the end of the gap if it skips that time.
func fromWall(wall time.Time, l *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), l)
	from, to := t.ZoneBounds()
	switch shown := wallOf(t); {
	case shown.After(wall):
		return from
	case shown.Before(wall):
		return to
	case from.IsZero():
		return t
	}
	if first := wall.Add(-before(from)); first.Before(from) {
		return first.In(l)
	}
	return t
}

// baseFor returns the time on the wall after which starts are to be looked for. While the clock goes over an hour for
// the second time, nothing starts, so it is the end of that hour.
func baseFor(since time.Time, l *time.Location) time.Time {
	since = since.In(l)
	from, _ := since.ZoneBounds()
	if !from.IsZero() {
		if second := from.UTC().Add(before(from)).Add(-time.Second); wallOf(since).Before(second) {
			return second
		}
	}
	return wallOf(since)
}

// utcForm is how systemd-analyze prints a time in UTC. Fractions of a second may follow the seconds.
const utcForm = "Mon 2006-01-02 15:04:05 UTC"

// parse reads the times that systemd-analyze prints. Each is in the zone of the environment; where that is not UTC, a
// line with the same time in UTC follows.
func parse(out []byte) ([]time.Time, error) {
	var due []time.Time
	var pending string // the time that was printed last, and is not read yet
	read := func(text string) error {
		if text == "" || text == "never" {
			return nil
		}
		t, err := time.Parse(utcForm, text)
		if err != nil {
			return fmt.Errorf("it is no time in UTC: %q", text)
		}
		due = append(due, t)
		return nil
	}
	known := false
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		value = strings.TrimSpace(value)
		switch {
		case name == "Next elapse", strings.HasPrefix(name, "Iter"):
			if err := read(pending); err != nil {
				return nil, err
			}
			pending, known = value, true
		case name == "(in UTC)":
			pending = value
		}
	}
	if !known {
		return nil, errors.New("it has no line with \"Next elapse\"")
	}
	return due, read(pending)
}
