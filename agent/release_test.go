package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/offer"
)

// The mark is on the disk when accept returns, and what a downgrade waived is in the history.
func TestAcceptIsWritten(t *testing.T) {
	a := TestAgent(t)
	a.Now = func() time.Time { return offer.Today }
	rec, err := a.Records.Read()
	if err != nil {
		t.Fatal(err)
	}
	p := offer.Offered(t, 7, "2026.7", errors.New("it is older"))
	if err := a.accept(p, rec); err != nil {
		t.Fatal(err)
	}
	again, err := a.Records.Read()
	if err != nil || again.Mark != p.Mark || !again.Seen.Equal(offer.Today) || again.Accepted[p.Image.ID()] != p.Mark {
		t.Errorf("read back %+v, %v", again, err)
	}
	events, err := a.Records.History()
	if err != nil || len(events) != 1 || events[0].Event != "downgrade" || events[0].Sequence != 7 || !strings.Contains(events[0].Reason, "--allow-downgrade: it is older") {
		t.Errorf("history %+v, %v", events, err)
	}
}
