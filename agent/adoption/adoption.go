// Package adoption answers what becomes of a host root at its first image: what comes along, what is translated and
// what stays behind, with how to keep it. It promises that its lists are complete.
package adoption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/behind"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// Adoption is what a host takes along from its host root.
type Adoption struct {
	*host.Host
	Roots roots.Roots
}

// Report is what becomes of a host root.
type Report struct {
	// Root is the staged root that the host root is compared with, "" for none: then what packages install is taken for
	// part of any image.
	Root string `json:"root,omitempty"`
	// Groups are all of [GroupNames], in that order.
	Groups []Group `json:"groups"`
	// TOML is a [state] table that keeps what can be kept.
	TOML string `json:"toml"`
}

// Group is one kind of things on a host root.
type Group struct {
	Name string `json:"name"`
	// Comes lists what the image gets from the host root, Changes what is translated or decided for it, and Stays what it
	// does not get.
	Comes   []string `json:"comes"`
	Changes []string `json:"changes"`
	Stays   []Stay   `json:"stays"`
}

// Stay is something that stays behind on the host root.
type Stay struct {
	What string `json:"what"`
	// Why is what the image lacks, or why nobody misses it.
	Why string `json:"why,omitempty"`
	// Bytes is how much room a file or directory takes on the disk, "at least" if there was no time to measure all of it.
	Bytes   int64 `json:"bytes,omitempty"`
	AtLeast bool  `json:"at_least,omitempty"`
	// Keep is what to do to keep it.
	Keep string `json:"keep,omitempty"`
	// Refuses is whether apply refuses the image for it until a person accepts that.
	Refuses bool `json:"refuses,omitempty"`
}

// ErrAdopted means that the host has left its host root before, so that nothing more is adopted.
var ErrAdopted = errors.New("the host root was adopted before")

// patience is how long files of the host root are measured.
const patience = 5 * time.Second

// Look returns what becomes of the host root. It needs no image: if none is staged, it is what holds for any. The error
// is an ErrAdopted when the host does not run its host root, or would go on from an image.
func (a *Adoption) Look(ctx context.Context) (*Report, error) {
	if err := a.RequireRunning(); err != nil {
		return nil, err
	}
	if !a.Machine.Superuser {
		return nil, fmt.Errorf("cannot read who may log in: %w", host.ErrPermission)
	}
	f, rec, err := a.Host.Look(ctx)
	if err != nil {
		return nil, err
	}
	if f.Root != switcher.HostRoot || rec.LastGood() != switcher.HostRoot {
		return nil, fmt.Errorf("%w: /etc is merged from image to image since then", ErrAdopted)
	}
	unlock, err := a.Lock(ctx, "adopt", true) // an image is mounted in the scratch directory
	if err != nil {
		return nil, err
	}
	defer unlock()
	id := rec.Staged
	if _, err := a.Machine.Trees.Root(id); err != nil {
		id = ""
	}
	change := a.Roots.EtcChange(id, f, rec)
	report, err := a.Machine.Trees.PlanEtc(change)
	if err != nil {
		return nil, err
	}
	return a.Of(change, report)
}

// Of returns what becomes of the host root in a merge of /etc that was planned.
func (a *Adoption) Of(c machine.EtcChange, planned etc.Report) (*Report, error) {
	found, err := a.Machine.Trees.StaysBehind(c, patience)
	if err != nil {
		return nil, err
	}
	b := newBuilder()
	b.people(planned, found, c.Next.ID != "")
	for _, name := range slices.Concat(planned.Added, planned.Kept) {
		if !slices.Contains(table.Files, name) {
			b.comes(groupOf(name), "/etc/"+name)
		}
	}
	for _, c := range planned.Conflicts {
		b.changes(groupOfNote(c.Path), c.Path+": "+c.Reason)
	}
	for _, note := range planned.Notes {
		if group := groupOfNote(note); c.Next.ID != "" || group != people { // of people, they compare with the image
			b.changes(group, note)
		}
	}
	if c.Next.ID != "" {
		for _, name := range planned.Renumbered {
			b.changes(people, name)
		}
	}
	for _, name := range planned.Removed {
		b.changes(groupOf(name), "/etc/"+name+" was removed on this host and stays removed")
	}
	b.services(found.Services)
	for _, p := range found.Paths {
		b.path(p)
	}
	b.etcFiles(found)
	return &Report{Root: c.Next.ID, Groups: b.groups(), TOML: a.snippet(found)}, nil
}

// people adds who comes along and who does not; image is whether there is one to compare with.
func (b builder) people(planned etc.Report, found behind.Report, image bool) {
	why := notAPerson
	if !image {
		why = ofServices
	}
	for _, name := range found.Users {
		b.comes(people, "user "+name)
	}
	for _, name := range found.Groups {
		b.comes(people, "group "+name)
	}
	for _, u := range planned.NotAdopted.Users {
		b.stays(people, Stay{What: fmt.Sprintf("user %s (%d)", u.Name, u.Number), Why: why, Keep: keepPerson})
	}
	for _, g := range planned.NotAdopted.Groups {
		b.stays(people, Stay{What: fmt.Sprintf("group %s (%d)", g.Name, g.Number), Why: why, Keep: keepPerson})
	}
}

const (
	notAPerson = "it serves a program that the image does not have"
	ofServices = "it serves programs; it comes if the image has it"
	keepPerson = "put the program into the image; a person stays who can log in or has rights"
	wasChanged = "it was changed or added on this host"
	asPackaged = "packages of the host root installed it; the image has its own, or does without"
)

// services adds the services that would not run.
func (b builder) services(list []behind.Service) {
	for _, s := range list {
		stay := Stay{What: s.Name, Why: s.Why, Refuses: s.Missed()}
		switch {
		case s.Expected != "":
			stay.Why = "not missed: " + s.Expected
		case s.Local:
			stay.Keep = keepService(s)
		case s.Package != "" && len(s.Adopt) == 0:
			stay.Keep = "put the package " + s.Package + " into the image"
		default:
			stay.Keep = "put it into the image, and enable it there"
		}
		if len(s.Ports) > 0 {
			stay.Why += "; it listens on " + strings.Join(s.Ports, ", ")
		}
		b.stays(services, stay)
	}
}

// keepService returns what keeps a service that was added on the host.
func keepService(s behind.Service) string {
	var keep []string
	if len(s.Adopt) > 0 {
		keep = append(keep, "[state] adopt "+quoted(s.Adopt))
	}
	for _, p := range s.Programs {
		if dir := persistFor(p); dir != "" {
			keep = append(keep, fmt.Sprintf("[state] persist %q", dir))
		} else if !strings.HasPrefix(p, "/etc/") {
			keep = append(keep, "put "+p+" into the image")
		}
	}
	slices.Sort(keep)
	return strings.Join(slices.Compact(keep), "; ")
}

// path adds a file or directory outside of kept state.
func (b builder) path(p behind.Path) {
	stay := Stay{What: p.Path, Bytes: p.Bytes, AtLeast: p.AtLeast,
		Keep: "put it into the image, or move it to a state path"}
	switch dir := persistFor(p.Path); {
	case p.Snap:
		stay.Why, stay.Keep = "snapd mounts it", "put snapd, with the directory /snap, into the image"
	case dir != "" && !p.File:
		stay.Keep = fmt.Sprintf("[state] persist %q", dir)
	}
	b.stays(files, stay)
}

// etcFiles adds what stays behind in /etc.
func (b builder) etcFiles(found behind.Report) {
	named := map[string]bool{} // with a service
	for _, s := range found.Services {
		for _, name := range s.Adopt {
			named[name] = true
		}
	}
	for _, name := range found.Changed {
		if named[name] {
			continue
		}
		b.stays(groupOf(name), Stay{What: "/etc/" + name, Why: wasChanged, Keep: fmt.Sprintf("[state] adopt %q", name)})
	}
	for _, name := range found.Packaged {
		b.stays(groupOf(name), Stay{What: "/etc/" + name, Why: asPackaged})
	}
}

// persistFor returns the state path that would keep a path: its directory at the top; "" where none can.
func persistFor(p string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if slices.Contains([]string{"usr", "etc", "bin", "sbin", "lib", "lib64", "boot", "snap", ""}, top) {
		return ""
	}
	return "/" + top
}

// quoted returns strings as TOML does.
func quoted(list []string) string {
	var words []string
	for _, s := range list {
		words = append(words, fmt.Sprintf("%q", s))
	}
	return strings.Join(words, ", ")
}

// ConfigWarnings returns what is valid in the configuration and most likely a mistake on this host.
func (a *Adoption) ConfigWarnings() []string {
	rec, err := a.Records.Read()
	return a.Config.Warnings(a.Machine.Root, err != nil || rec.LastGood() == switcher.HostRoot)
}
