package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/cmd/usage"
)

// barWidth is how many columns the bars of a timeline have.
const barWidth = 24

// Analysis writes switches as they were measured: one as a timeline, several as a table.
func Analysis(w io.Writer, list []outage.Analysis) {
	switch len(list) {
	case 0:
		fmt.Fprintf(w, "No switch was measured yet; the next one will be.\n")
	case 1:
		timeline(w, list[0])
	default:
		comparison(w, list)
	}
}

// timeline writes one switch, with a bar for each phase, port and service.
func timeline(w io.Writer, s outage.Analysis) {
	fmt.Fprintf(w, "%s\n", heading(s))
	fmt.Fprintf(w, "%s\n", outageText(s))
	if len(s.Steps) > 0 {
		var steps []string
		for _, step := range s.Steps {
			steps = append(steps, step.Name+" "+seconds(step.Took))
		}
		fmt.Fprintf(w, "Before it, while all services ran: %s.\n", strings.Join(steps, ", "))
	}
	end := shownUntil(s)
	fmt.Fprintf(w, "\nPHASE\tTOOK\n")
	for _, p := range s.Phases {
		last := ""
		if p.Last != "" {
			last = "last: " + p.Last
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, seconds(p.To-p.From), bar(p.From, p.To, end), last)
	}
	for _, list := range []struct {
		title string
		away  []outage.Away
	}{{"PORT", s.Ports}, {"SERVICE", longest(s.Services)}} {
		if len(list.away) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\tAWAY\n", list.title)
		for _, a := range list.away {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.Name, awayText(a), bar(a.Gone, until(a, end), end), a.Unit)
		}
	}
	if n := len(s.Services) - shownServices; n > 0 {
		fmt.Fprintf(w, "%s not shown; --output json has them.\n", usage.Count(n, "more service is", "more services are"))
	}
}

// heading says which switch it is, and how it ended.
func heading(s outage.Analysis) string {
	ended := "good"
	if !s.Good {
		ended = "which did not become good"
	}
	return fmt.Sprintf("%s, %s UTC: %s -> %s, %s.", cases[s.Verb], s.At.UTC().Format("2006-01-02 15:04:05"),
		short(s.From), withVersion(s), ended)
}

// until returns where the bar of a port or service ends: at the end for one that was not seen to come back, and 0
// without a bar.
func until(a outage.Away, end time.Duration) time.Duration {
	if a.Gone == 0 {
		return 0
	}
	return cmp.Or(a.Back, end)
}

// cases are the verbs as a heading begins with them.
var cases = map[string]string{
	"apply": "Apply", "rollback": "Rollback", "resume": "Resumption", "back": "Automatic rollback",
}

func withVersion(s outage.Analysis) string {
	if s.Version == "" {
		return short(s.Root)
	}
	return fmt.Sprintf("%s (version %s)", short(s.Root), s.Version)
}

// outageText says how long services were away.
func outageText(s outage.Analysis) string {
	switch {
	case s.Outage == 0 && s.FirstGone == 0:
		return "No service was away."
	case s.Outage == 0:
		return "Services went away, and were not seen to come back."
	case slices.ContainsFunc(s.Ports, func(a outage.Away) bool { return a.Took() > 0 }):
		return fmt.Sprintf("Outage: %s, from the first port that closed to the last that opened.", seconds(s.Outage))
	}
	return fmt.Sprintf("Outage: %s, from the first service that ended to the last that ran again.", seconds(s.Outage))
}

// comparison writes one line for each switch, and the medians.
func comparison(w io.Writer, list []outage.Analysis) {
	names := []string{"stop", "arm", "switch", "execute", "start"}
	fmt.Fprintf(w, "Times are in seconds. OUTAGE is from the first port that closed to the last that opened.\n\n")
	fmt.Fprintf(w, "REQUESTED (UTC)\tVERB\tOUTAGE\t%s\tTO\n", strings.ToUpper(strings.Join(names, "\t")))
	columns := make([][]time.Duration, len(names)+1)
	for _, s := range list {
		took := []time.Duration{s.Outage}
		for _, name := range names {
			took = append(took, phaseTook(s, name))
		}
		for i, t := range took {
			columns[i] = append(columns[i], t)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.At.UTC().Format("2006-01-02 15:04"), s.Verb, bare(took),
			cmp.Or(s.Version, short(s.Root)))
	}
	var medians []time.Duration
	for _, times := range columns {
		medians = append(medians, outage.Median(times))
	}
	fmt.Fprintf(w, "median\t\t%s\n", bare(medians))
}

// phaseTook returns how long a phase of a switch took, 0 if it was not seen.
func phaseTook(s outage.Analysis, name string) time.Duration {
	for _, p := range s.Phases {
		if p.Name == name {
			return p.To - p.From
		}
	}
	return 0
}

// bare returns durations in seconds as cells of a table.
func bare(list []time.Duration) string {
	var cells []string
	for _, t := range list {
		cells = append(cells, fmt.Sprintf("%.2f", t.Seconds()))
	}
	return strings.Join(cells, "\t")
}

// shownServices is how many services a timeline shows.
const shownServices = 8

// longest returns the services that were away longest, in the order in which they went.
func longest(list []outage.Away) []outage.Away {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b outage.Away) int {
		return cmp.Or(cmp.Compare(b.Took(), a.Took()), cmp.Compare(a.Name, b.Name))
	})
	sorted = sorted[:min(len(sorted), shownServices)]
	slices.SortStableFunc(sorted, func(a, b outage.Away) int { return cmp.Compare(a.Gone, b.Gone) })
	return sorted
}

// shownUntil returns until when a timeline goes: until everything is back. Health checks may take many times as long.
func shownUntil(s outage.Analysis) time.Duration {
	var end time.Duration
	for _, p := range s.Phases {
		if p.Name != "health" {
			end = p.To
		}
	}
	return cmp.Or(end, s.Judged, 1)
}

// bar draws a span on a line that goes from 0 to end. Everything has one column at least; what goes on after the end
// has a > there.
func bar(from, to, end time.Duration) string {
	column := func(t time.Duration) int { return int(min(t, end) * barWidth / end) }
	if to == 0 {
		return strings.Repeat(" ", barWidth)
	}
	first := min(column(from), barWidth-1)
	n := max(column(to)-first, 1)
	mark := "#"
	if from >= end {
		mark = ">"
	}
	return strings.Repeat(" ", first) + strings.Repeat(mark, n) + strings.Repeat(" ", barWidth-first-n)
}

func awayText(a outage.Away) string {
	switch {
	case a.Gone == 0:
		return "never"
	case a.Back == 0:
		return "not back"
	}
	return seconds(a.Took())
}

// seconds returns a duration as people compare them.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// outageLines writes how long the switch will take by the last ones: of the port that is closed longest, or of all.
func outageLines(w io.Writer, p *outage.Prediction, full bool) {
	if p == nil {
		fmt.Fprintf(w, "Outage\tnot known yet: no switch of this host was measured\n")
		return
	}
	var ports []string
	for _, e := range slices.SortedStableFunc(slices.Values(p.Ports), func(a, b outage.Expected) int {
		return cmp.Compare(b.Away, a.Away)
	}) {
		ports = append(ports, e.Name+" "+seconds(e.Away))
	}
	if more := len(ports) - 1; more > 0 && !full {
		ports = []string{ports[0], usage.Count(more, "more port", "more ports")}
	}
	each, last := "", "switch"
	if len(ports) > 0 {
		each = ": " + strings.Join(ports, ", ")
	}
	if p.From > 1 {
		last = fmt.Sprintf("%d switches", p.From)
	}
	fmt.Fprintf(w, "Outage\tabout %s by the last %s%s\n", seconds(p.Outage), last, each)
	const most = 3
	for _, d := range p.Delays[:min(most, len(p.Delays))] {
		times := "once"
		if d.Times > 1 {
			times = fmt.Sprintf("%d times", d.Times)
		}
		fmt.Fprintf(w, "  stop\twaited %s for %s alone, %s\n", seconds(d.Alone), d.Unit, times)
	}
}
