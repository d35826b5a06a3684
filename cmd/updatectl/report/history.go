package report

import (
	"cmp"
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent/record"
)

// History writes events, one in a line.
func History(w io.Writer, events []record.Event) {
	if len(events) == 0 {
		fmt.Fprintf(w, "Nothing yet.\n")
	}
	for _, e := range events {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.At.Format("2006-01-02 15:04:05"), e.Event,
			cmp.Or(short(e.Root), e.LivePatch), e.Version, eventDetail(e))
	}
}

func eventDetail(e record.Event) string {
	switch {
	case e.Reason != "":
		return e.Reason
	case e.Verb != "" && e.From != "":
		return verbText(e.Verb) + volatileWord(e.Volatile) + " from " + short(e.From)
	case len(e.Vouchers) > 0:
		return "signed by " + signedBy(e.Vouchers)
	case e.From != "":
		return "from " + short(e.From)
	}
	return ""
}
