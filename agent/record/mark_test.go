package record

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/verify"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// accept accepts a release that keys vouched for, and the revoked ones do not count.
func accept(r *Record, sequence int64, revoked string, at time.Time, keys ...string) {
	m := release.Mark{Sequence: sequence, Version: fmt.Sprintf("v%d", sequence)}
	o := Offered{Release: true, Mark: m, After: OrderOf(r, without(revoked)), InOrder: true}
	o.Seen = o.After.Seen
	for _, k := range keys {
		o.Vouchers = append(o.Vouchers, verify.Voucher{Signer: k + ".pub", KeyID: k})
	}
	r.Accept(o, at)
}

// without returns the lapsed signers of a release, if one of them is revoked and threshold is 1.
func without(revoked string) func(Vouched) []string {
	return func(v Vouched) []string {
		var lapsed []string
		for _, s := range v.Vouchers {
			if strings.Contains(revoked, s.KeyID) {
				lapsed = append(lapsed, s.Signer)
			}
		}
		if len(lapsed) < len(v.Vouchers) {
			return nil
		}
		return lapsed
	}
}

// TestOrderFallsBack: a release counts for the order only as long as somebody who vouched for it counts.
func TestOrderFallsBack(t *testing.T) {
	const far = release.MaxSequence
	for name, c := range map[string]struct {
		accepted func(r *Record)
		revoked  string
		want     int64
		fallen   int64
	}{
		"nobody is revoked": {func(r *Record) { accept(r, 41, "", noon, "a"); accept(r, far, "", noon, "a") }, "", far, 0},
		"the only key":      {func(r *Record) { accept(r, 41, "", noon, "a"); accept(r, far, "", noon, "a") }, "a", 0, far},
		"another key before": {
			func(r *Record) {
				accept(r, 40, "", noon, "b")
				accept(r, 41, "", noon, "a")
				accept(r, far, "", noon, "a")
			},
			"a", 40, far,
		},
		"both keys before": {
			func(r *Record) { accept(r, 41, "", noon, "a", "b"); accept(r, far, "", noon, "a") }, "a", 41, far,
		},
		"both keys": {func(r *Record) { accept(r, 41, "", noon, "a", "b") }, "a", 41, 0},
		"signed again with the next key": {
			func(r *Record) { accept(r, 41, "", noon, "a"); accept(r, 41, "a", noon, "b") }, "a", 41, 0,
		},
		"the order goes on": {
			func(r *Record) { accept(r, far, "", noon, "a"); accept(r, 42, "a", noon, "b") }, "a", 42, 0,
		},
		"the revocation is taken back": {
			func(r *Record) { accept(r, far, "", noon, "a"); accept(r, 42, "a", noon, "b") }, "", 42, 0,
		},
		"an older agent recorded nobody": {func(r *Record) { r.Mark.Sequence = 41 }, "a", 41, 0},
		"an older agent went on": {
			func(r *Record) { accept(r, 41, "", noon, "a"); r.Mark = release.Mark{Sequence: 42} }, "a", 42, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Record{Accepted: map[string]release.Mark{}}
			c.accepted(r)
			text, err := json.Marshal(r)
			again := &Record{Accepted: map[string]release.Mark{}}
			if err != nil || json.Unmarshal(text, again) != nil || !reflect.DeepEqual(again.Marks, r.Marks) {
				t.Fatalf("%v: %s", err, text)
			}
			o := OrderOf(again, without(c.revoked))
			var fallen int64
			if o.Fallen != nil {
				fallen = o.Fallen.Sequence
			}
			if o.Mark.Sequence != c.want || fallen != c.fallen || (o.String() != "") != (fallen > 0) {
				t.Errorf("compared with %d, fallen %d, want %d and %d: %s", o.Mark.Sequence, fallen, c.want, c.fallen, o)
			}
		})
	}
}

// TestOrderOfImagesFallsBack: images on their own have an order, too, by their version.
func TestOrderOfImagesFallsBack(t *testing.T) {
	r := &Record{Accepted: map[string]release.Mark{}}
	r.Accept(Offered{Mark: release.Mark{Version: "v9999"}, InOrder: true,
		Vouchers: []verify.Voucher{{Signer: "a.pub", KeyID: "a"}}}, noon)
	o := OrderOf(r, without("a"))
	if o.Mark != (release.Mark{}) || !strings.HasPrefix(o.String(), "version v9999 was accepted before") {
		t.Errorf("%+v: %s", o, o)
	}
	if !r.Seen.IsZero() {
		t.Errorf("an image moves the time to %s", r.Seen)
	}
	r.Accept(Offered{Mark: release.Mark{Version: "v2"}, After: o, InOrder: true}, noon)
	if o := OrderOf(r, without("a")); o.Mark.Version != "v2" || o.Fallen != nil {
		t.Errorf("%+v", o)
	}
}

// TestSeenFallsBack: the time that a thief's release brought falls with it.
func TestSeenFallsBack(t *testing.T) {
	r := &Record{Accepted: map[string]release.Mark{}}
	accept(r, 41, "", noon, "b")
	accept(r, 42, "", noon.AddDate(0, 2, 0), "a") // the clock ran ahead
	if o := OrderOf(r, without("a")); !o.Seen.Equal(noon) || o.Mark.Sequence != 41 {
		t.Errorf("%+v", o)
	}
	accept(r, 42, "a", noon.Add(time.Hour), "b")
	if !r.Seen.Equal(noon.Add(time.Hour)) {
		t.Errorf("seen %s", r.Seen)
	}
}

// TestClockRanAhead: a clock that ran ahead by years does not move Seen by more than [maxClockStep], however often the
// same release is accepted and whatever its expiry is.
func TestClockRanAhead(t *testing.T) {
	r := &Record{Accepted: map[string]release.Mark{}}
	accept(r, 41, "", noon, "a")
	for night := range 30 {
		accept(r, 42, "", noon.AddDate(9, 0, night), "a")
	}
	if limit := noon.Add(maxClockStep); r.Seen.After(limit) {
		t.Errorf("seen %s, want at most %s", r.Seen, limit)
	}
	o := Offered{Release: true, Mark: release.Mark{Sequence: 43}, Seen: noon.AddDate(1, 0, 0)}
	if r.Accept(o, noon); !r.Seen.Equal(o.Seen) {
		t.Errorf("seen %s, want the proven time %s", r.Seen, o.Seen)
	}
}

// TestMarksAreBounded: a publisher with many keys does not make the record grow.
func TestMarksAreBounded(t *testing.T) {
	r := &Record{Accepted: map[string]release.Mark{}}
	for i := range int64(100) {
		accept(r, i+1, "", noon, fmt.Sprint("key", i))
		accept(r, i+1, "", noon, "always")
	}
	if len(r.Marks) != maxMarks || !slices.ContainsFunc(r.Marks, func(v Vouched) bool { return v.Mark == r.Mark }) {
		t.Errorf("%d marks", len(r.Marks))
	}
}
