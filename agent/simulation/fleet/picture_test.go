package fleet

import (
	"fmt"
	"strings"
	"time"
)

// The measures of the picture, in pixels.
const (
	width, panelHeight = 900, 220
	left, top, gap     = 70, 40, 70
	plotWidth          = width - left - 30
)

// panel is one plot: hours from left to right, and a value from 0 to most from bottom to top.
type panel struct {
	strings.Builder
	y    int
	end  time.Duration
	most float64
}

func (p *panel) x(at time.Duration) float64 { return left + float64(at)/float64(p.end)*plotWidth }

func (p *panel) height(v float64) float64 {
	return float64(p.y+panelHeight) - v/p.most*panelHeight
}

// frame draws the title, the scales and their lines.
func (p *panel) frame(title, unit string, steps int) {
	fmt.Fprintf(p, `<text x="%d" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n", left, p.y-12, title)
	for i := range steps + 1 {
		v := p.most * float64(i) / float64(steps)
		fmt.Fprintf(p, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", left, left+plotWidth,
			p.height(v), p.height(v))
		fmt.Fprintf(p, `<text x="%d" y="%.1f" text-anchor="end">%.4g%s</text>`+"\n", left-6, p.height(v)+4, v, unit)
	}
	for at := time.Duration(0); at <= p.end; at += day {
		fmt.Fprintf(p, `<text x="%.1f" y="%d" text-anchor="middle">day %d</text>`+"\n", p.x(at), p.y+panelHeight+16, at/day)
	}
}

// line draws a value over time.
func (p *panel) line(color, more string, step time.Duration, value func(time.Duration) float64) {
	fmt.Fprintf(p, `<polyline fill="none" stroke="%s" %s points="`, color, more)
	for at := time.Duration(0); at < p.end; at += step {
		fmt.Fprintf(p, "%.1f,%.1f ", p.x(at), p.height(min(value(at), p.most)))
	}
	fmt.Fprint(p, `"/>`+"\n")
}

// legend names a colour.
func (p *panel) legend(row int, color, text string) {
	y := p.y + 16 + 18*row
	fmt.Fprintf(p, `<rect x="%d" y="%d" width="14" height="4" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", left+10, y-6,
		color, left+30, y, text)
}

// perSecond returns the requests per second on average of the ten minutes from a time.
func perSecond(seconds []int) func(time.Duration) float64 {
	return func(at time.Duration) float64 {
		list, sum := seconds[at/time.Second:], 0
		list = list[:min(len(list), 600)]
		for _, n := range list {
			sum += n
		}
		return float64(sum) / float64(len(list))
	}
}

// picture draws the results of the three fleets.
func picture(free Fleet, a Result, night Fleet, b Result, cut Fleet, c Result) string {
	shares := &panel{y: top, end: free.End, most: 100}
	shares.frame(fmt.Sprintf("Share of %d hosts that is updated", free.Hosts), " %", 4)
	percent := func(f Fleet, r Result) func(time.Duration) float64 {
		return func(at time.Duration) float64 { return 100 * share(f, r, at) }
	}
	shares.line("#9db8d2", `stroke-width="7"`, time.Hour, func(at time.Duration) float64 { return 100 * curve(free, at) })
	shares.line("#3b6ea5", `stroke-width="2"`, time.Hour, percent(free, a))
	shares.line("#c25b3f", `stroke-width="2"`, time.Hour/4, percent(night, b))
	shares.legend(0, "#9db8d2", "as signed")
	shares.legend(1, "#3b6ea5", "updated, at any time of the day")
	shares.legend(2, "#c25b3f", "updated, in windows at night")

	_, busiest := most(a.Registry, 0, free.End)
	registry := &panel{y: top + panelHeight + gap, end: free.End, most: roundUp(busiest)}
	registry.frame("Requests per second at the registry", "", 4)
	registry.line("#c25b3f", "", 10*time.Minute, perSecond(c.Registry))
	registry.line("#3b6ea5", "", 10*time.Minute, perSecond(a.Registry))
	registry.legend(0, "#3b6ea5", "average of ten minutes; the release is published at day 0")
	registry.legend(1, "#c25b3f", fmt.Sprintf("with an outage of %g hours", (cut.OutageTo-cut.OutageFrom).Hours()))

	_, busiest = most(b.Lock, 0, night.End)
	lock := &panel{y: top + 2*(panelHeight+gap), end: free.End, most: roundUp(busiest)}
	lock.frame("Requests per second at the lock servers", "", 4)
	lock.line("#c25b3f", "", 10*time.Minute, perSecond(b.Lock))
	lock.line("#3b6ea5", "", 10*time.Minute, perSecond(a.Lock))
	lock.legend(0, "#3b6ea5", "at any time of the day")
	lock.legend(1, "#c25b3f", "in windows at night")

	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" `+
		`font-family="sans-serif" font-size="12" fill="#222">`+"\n"+`<rect width="100%%" height="100%%" fill="#fff"/>`+
		"\n%s%s%s</svg>\n", width, top+3*(panelHeight+gap), shares.String(), registry.String(), lock.String())
}

// roundUp returns the next number above that is easy to read on a scale.
func roundUp(v float64) float64 {
	for unit := 0.1; ; unit *= 10 {
		for _, n := range []float64{1, 2, 4, 8} {
			if n*unit >= v {
				return n * unit
			}
		}
	}
}
