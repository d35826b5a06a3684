package keep

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/switcher/keep"
)

// units is a PID 1; it notes which files it has when it reads its units, and whose services it starts.
type units struct {
	machine.Units
	root  string
	read  *[][]string
	err   error
	start *[]string
	runs  bool
}

func (u units) Kept(_ context.Context, names []string) (map[string]keep.Now, map[string]string, error) {
	return map[string]keep.Now{names[0]: {Active: u.runs}}, nil, nil
}

func (u units) Reload(context.Context) error {
	*u.read = append(*u.read, files(u.root))
	return u.err
}

func (u units) StartHeld(_ context.Context, sockets []string) ([]string, error) {
	*u.start = append(*u.start, sockets...)
	return nil, nil
}

// files returns what lies where units of this boot do.
func files(root string) []string {
	names, _ := filepath.Glob(filepath.Join(root, unitDir, "*.d/*"))
	var list []string
	for _, name := range names {
		list = append(list, strings.TrimPrefix(name, filepath.Join(root, unitDir)+"/"))
	}
	return list
}

func newKeeper(t *testing.T) (*Keeper, units) {
	t.Helper()
	k := &Keeper{hosttest.New(t)}
	u := units{root: k.Machine.Root, read: &[][]string{}, start: &[]string{}, runs: true}
	k.Machine.Units = u
	return k, u
}

var (
	web   = keep.Kept{Unit: "web.socket", Way: keep.Socket, Service: "web.service"}
	store = keep.Kept{Unit: "db.service", Way: keep.Descriptors}
)

const (
	ofStore = "db.service.d/" + dropIn
	ofWeb   = "web.socket.d/" + dropIn
	hold    = "web.socket.d/" + holdFile
)

// TestHold: systemd reads drop-ins for all units, and the hold of a socket, which is gone afterwards. What was kept
// before and is not any more has no drop-in.
func TestHold(t *testing.T) {
	k, u := newKeeper(t)
	k.Hold(t.Context(), []keep.Kept{store})
	k.Hold(t.Context(), []keep.Kept{web, store})
	k.Hold(t.Context(), []keep.Kept{web})
	k.Hold(t.Context(), nil)
	k.Hold(t.Context(), nil) // nothing has changed: nothing is asked of systemd
	k.Hold(t.Context(), []keep.Kept{store})
	k.Hold(t.Context(), []keep.Kept{store}) // here, too
	k.Hold(t.Context(), nil)
	want := [][]string{{ofStore}, {ofStore, ofWeb, hold}, {ofWeb, hold}, nil, {ofStore}, nil}
	if !slices.EqualFunc(*u.read, want, slices.Equal) {
		t.Errorf("systemd has read %v, want %v", *u.read, want)
	}
	if got := files(u.root); len(got) > 0 {
		t.Errorf("%v is left", got)
	}
}

// TestHoldFails: nothing is left that systemd has not read, so that the next switch tries again.
func TestHoldFails(t *testing.T) {
	k, u := newKeeper(t)
	u.err = errors.New("broken")
	k.Machine.Units = u
	k.Hold(t.Context(), []keep.Kept{web})
	if got := files(u.root); len(got) > 0 {
		t.Errorf("%v is left", got)
	}
}

// TestRelease: nothing is left of a switch that does not happen, not even of one that was killed while it began, and
// services that connections wait for are started.
func TestRelease(t *testing.T) {
	k, u := newKeeper(t)
	k.Hold(t.Context(), []keep.Kept{web, store})
	if err := os.WriteFile(filepath.Join(u.root, unitDir, hold), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	k.Release(t.Context(), []keep.Kept{web, store})
	if got := files(u.root); len(got) > 0 {
		t.Errorf("%v is left", got)
	}
	if last := (*u.read)[len(*u.read)-1]; last != nil {
		t.Errorf("systemd still has %v", last)
	}
	if !slices.Equal(*u.start, []string{"web.socket"}) {
		t.Errorf("the services of %v are started", *u.start)
	}
}

// TestReleaseStopped: a service that has stopped keeps its descriptors until it starts again.
func TestReleaseStopped(t *testing.T) {
	k, u := newKeeper(t)
	k.Hold(t.Context(), []keep.Kept{web, store})
	u.runs = false
	k.Machine.Units = u
	k.Release(t.Context(), []keep.Kept{web, store})
	if got := files(u.root); !slices.Equal(got, []string{ofStore}) {
		t.Errorf("%v is left", got)
	}
}

// TestKeepNothing: where nothing is kept, systemd is not asked.
func TestKeepNothing(t *testing.T) {
	k, u := newKeeper(t)
	k.Release(t.Context(), nil)
	k.Resume(t.Context(), []keep.Kept{store})
	if kept, err := k.Judge(t.Context(), machine.EtcChange{}, false); kept != nil || err != nil {
		t.Errorf("Judge = %v, %v", kept, err)
	}
	if len(*u.read)+len(*u.start) > 0 {
		t.Errorf("systemd was asked: %v, %v", *u.read, *u.start)
	}
}
