package report

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/outage"
)

// The measures of a drawing, in pixels.
const (
	drawingWidth = 1000
	labelWidth   = 210
	noteWidth    = 290
	rowHeight    = 22
	barHeight    = 14
	scaleWidth   = drawingWidth - labelWidth - noteWidth
)

// drawing is a picture that grows downwards.
type drawing struct {
	strings.Builder
	y int
}

// Drawing returns switches as an SVG picture, one below the other.
func Drawing(list []outage.Analysis) string {
	d := &drawing{y: 10}
	for _, s := range list {
		d.drawSwitch(s)
	}
	if len(list) == 0 {
		d.text(10, "start", "No switch was measured yet.")
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" `+
		`font-family="sans-serif" font-size="12" fill="#222">`+"\n"+`<rect width="100%%" height="100%%" fill="#fff"/>`+
		"\n%s</svg>\n", drawingWidth, d.y+30, d.String())
}

// drawSwitch draws one switch: a scale, and a bar for each phase, port and service.
func (d *drawing) drawSwitch(s outage.Analysis) {
	end := shownUntil(s)
	d.y += rowHeight
	fmt.Fprintf(d, `<text x="10" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n",
		d.y, escape(ShortDigests(heading(s))))
	d.y += rowHeight
	d.text(10, "start", outageText(s))
	d.y += rowHeight
	d.scale(end)
	top, lines := d.y, d.String()
	d.Reset() // the lines of the scale go behind the bars, and their length is only known then
	d.group("Phases")
	for _, p := range s.Phases {
		note := seconds(p.To - p.From)
		if p.Last != "" {
			note += ", last: " + p.Last
		}
		color := "#3b6ea5"
		if p.Name == "health" || p.Name == "wait" {
			color = "#9db8d2" // services run
		}
		d.row(p.Name, note, color, p.From, p.To, end)
	}
	for _, list := range []struct {
		title string
		away  []outage.Away
	}{{"Ports", s.Ports}, {"Services", longest(s.Services)}} {
		if len(list.away) > 0 {
			d.group(list.title)
		}
		for _, a := range list.away {
			d.row(a.Name, strings.TrimSpace(awayText(a)+"  "+a.Unit), "#c25b3f", a.Gone, until(a, end), end)
		}
	}
	bars := d.String()
	d.Reset()
	d.WriteString(lines)
	for at := time.Duration(0); at <= end; at += tick(end) {
		fmt.Fprintf(d, `<line x1="%d" x2="%[1]d" y1="%d" y2="%d" stroke="#ddd"/>`+"\n", x(at, end), top+4, d.y+8)
	}
	d.WriteString(bars)
	d.y += rowHeight
}

// group writes the title of the rows that follow.
func (d *drawing) group(title string) {
	d.y += rowHeight
	fmt.Fprintf(d, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", d.y, title)
}

// scale writes the seconds since the request above the bars.
func (d *drawing) scale(end time.Duration) {
	for at := time.Duration(0); at <= end; at += tick(end) {
		d.text(x(at, end), "middle", fmt.Sprintf("%g s", at.Seconds()))
	}
	d.y += 4
}

// tick returns how far the lines of a scale are apart, so that there are ten of them at most.
func tick(end time.Duration) time.Duration {
	for unit := 10 * time.Millisecond; ; unit *= 10 {
		for _, step := range []time.Duration{unit, 2 * unit, 5 * unit} {
			if 10*step >= end {
				return step
			}
		}
	}
}

// row draws a bar with its name on the left and a note on the right.
func (d *drawing) row(name, note, color string, from, to, end time.Duration) {
	d.y += rowHeight
	d.text(labelWidth-8, "end", name)
	if to > 0 {
		left, right := x(min(from, end), end), x(min(to, end), end)
		fmt.Fprintf(d, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n",
			min(left, labelWidth+scaleWidth-2), d.y-barHeight+3, max(right-left, 2), barHeight, color)
	}
	d.text(labelWidth+scaleWidth+10, "start", note)
}

func (d *drawing) text(at int, anchor, text string) {
	fmt.Fprintf(d, `<text x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", at, d.y, anchor, escape(text))
}

// x returns where a moment is.
func x(at, end time.Duration) int { return labelWidth + int(at*scaleWidth/end) }

func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // into memory
	return out.String()
}
