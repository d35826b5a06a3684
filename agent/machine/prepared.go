package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/unchanged"
)

// EtcNote is the suffix of the file beside a merged /etc that says what it was made of.
const EtcNote = ".json"

// maxNote bounds such a file, in bytes.
const maxNote = 16 << 20

// ingredients are all that a merge for a root with a Before depends on: nobody changes an image.
type ingredients struct {
	Boot, Ledger, Authorities string
	Etc                       string // a fingerprint of the current one
	Instance                  bool   // whether cloud-init has set up this host
	Change                    EtcChange
}

// mergeNote says what a directory was merged from. Made is a fingerprint of the directory. The Report lacks its
// Correction, which is for plans only.
type mergeNote struct {
	From   ingredients
	Made   string
	Report etc.Report
}

// ingredientsOf returns what a merge depends on at a time. It is false if a change of that could pass unnoticed. It
// reads only small files, so it takes a few milliseconds.
func ingredientsOf(c EtcChange, now time.Time) (in ingredients, sure bool) {
	in.Change = c
	if c.Before == nil { // much more of the host counts
		return in, false
	}
	boot, err := durable.ReadRegular("/proc/sys/kernel/random/boot_id", maxNote)
	if err != nil {
		return in, false
	}
	in.Boot = string(boot)
	ledger, err := durable.ReadRegular(c.Ledger, maxNote)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return in, false
	}
	sum := sha256.Sum256(ledger)
	in.Ledger = hex.EncodeToString(sum[:])
	in.Authorities, err = etc.LocalAuthorities(etc.Inputs{
		Host: filepath.Dir(c.Current), State: "/", Sources: fstab.Sources{Kept: c.Next.Persist},
	})
	if err != nil {
		return in, false
	}
	_, err = os.Stat(etc.InstanceFile)
	in.Instance = err == nil
	below, done, err := whatIsBelow(c.Current)
	if err != nil {
		return in, false
	}
	defer done()
	in.Etc, sure, err = unchanged.Print(below, now.Add(-unchanged.Settled))
	return in, sure && err == nil
}

// mergedBefore returns the report of the merge that made dst, if the same merge would make the same again.
func mergedBefore(c EtcChange, dst string, now time.Time) (etc.Report, bool) {
	var note mergeNote
	text, err := durable.ReadRegular(dst+EtcNote, maxNote)
	if err != nil || json.Unmarshal(text, &note) != nil {
		return etc.Report{}, false
	}
	in, sure := ingredientsOf(c, now)
	if !sure || asText(in) != asText(note.From) {
		return etc.Report{}, false
	}
	made, sure, err := unchanged.Print(dst, now)
	return note.Report, err == nil && sure && made == note.Made
}

// mergeAhead calls merge, and writes what dst was merged from if that was the same before and after. Without that note,
// the merge is only decided again.
func mergeAhead(c EtcChange, dst string, clock func() time.Time, merge func() (etc.Report, error)) (etc.Report, error) {
	// A write by mmap(2) sets the time of a file only if the page was on the disk. The time is taken first, because a page
	// may be written to again while others are synchronized.
	start := clock()
	err := errors.Join(durable.RemoveAll(dst+EtcNote), durable.SyncFS(c.Current))
	before, sure := ingredientsOf(c, start)
	report, mergeErr := merge()
	if mergeErr != nil {
		return report, mergeErr
	}
	now := clock()
	after, still := ingredientsOf(c, now)
	before.Ledger = after.Ledger // the merge has written it
	made, whole, printErr := unchanged.Print(dst, now.Add(unchanged.Settled))
	if errors.Join(err, printErr) != nil || !sure || !still || !whole || asText(before) != asText(after) {
		return report, nil
	}
	if text, err := json.Marshal(mergeNote{From: after, Made: made, Report: report}); err == nil {
		_ = durable.WriteFile(dst+EtcNote, text, 0o600)
	}
	return report, nil
}

// asText returns ingredients to compare.
func asText(in ingredients) string {
	text, err := json.Marshal(in)
	if err != nil {
		panic(err) // texts, numbers, and lists and maps of them
	}
	return string(text)
}
