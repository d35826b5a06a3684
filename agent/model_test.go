package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// world is a host as far as the record's way through its phases depends on it: the record, what is mounted at /, and what
// a shutdown that is under way would bring.
type world struct {
	rec Record
	// root is mounted at /; soft counts soft reboots and boot the boots of the kernel, as systemd and the kernel do.
	root       string
	boot, soft int
	// queued: PID 1 is on its way into a soft reboot. armed: the last one armed the root that it was for.
	queued, armed bool
	// note is what a guard left that went back where the record could not be written.
	note *Switch
}

// clone is a copy that can be changed.
func (w world) clone() world {
	r := &w.rec
	r.Good, r.Bad, r.Attempts, r.Failed = slices.Clone(r.Good), maps.Clone(r.Bad), maps.Clone(r.Attempts), maps.Clone(r.Failed)
	if r.Switch != nil {
		s := *r.Switch
		r.Switch = &s
	}
	if r.Resume != nil {
		s := *r.Resume
		r.Resume = &s
	}
	if r.Last != nil {
		l := *r.Last
		r.Last = &l
	}
	return w
}

// key is equal for worlds between which nothing here decides: how often a root was tried beyond the limit, which are bad
// and why, and how many reboots there were, as long as a switch that waits sees the same difference.
func (w world) key() string {
	w = w.clone()
	r := &w.rec
	for id, n := range r.Attempts {
		r.Attempts[id] = min(n, maxAttempts)
	}
	delete(r.Attempts, switcher.HostRoot) // it is never condemned
	if r.Resume != nil {
		r.Resume.Attempts = min(r.Resume.Attempts, maxAttempts)
	}
	r.Bad, r.Failed, r.Last = nil, nil, nil // what people read, and what keeps a timer away
	since := ""
	if s := r.Switch; s != nil {
		since = fmt.Sprint(s.BootID == fmt.Sprint(w.boot), w.soft > s.SoftReboots)
		s.BootID, s.SoftReboots = "", 0
		if r.Phase != PhaseArmed && r.Phase != PhaseTrying && !r.late(w.root) {
			r.Switch, since, w.armed = nil, "", false // history
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	note := ""
	if w.note != nil {
		note = w.note.Target
	}
	return fmt.Sprint(string(text), w.root, since, w.queued, w.armed, note)
}

func (w world) facts() facts.Facts {
	return facts.Facts{Root: w.root, BootID: fmt.Sprint(w.boot), SoftReboots: w.soft}
}

func (w world) stampRead() *level.Stamp {
	if !w.armed {
		return nil
	}
	return &level.Stamp{Target: w.rec.Switch.Target}
}

// A step is something that can happen to a world. It returns false where it cannot.
type step struct {
	name string
	// mends: it is done by the agent's own units or by an operator who does as the hints say, and nothing fails in it.
	mends bool
	do    func(w *world) (bool, error)
}

// model is the agent's part of the steps: the real functions over the record, with the machine's answers given.
type model struct {
	agent  *Agent
	images []string
	// moves are those of the table that happened.
	moves map[string]bool
}

func (m *model) on(before Phase, c Cause) {
	m.moves[fmt.Sprintf("%s: %s", before, c)] = true
}

// setOut is switchTo up to the request.
func (m *model) setOut(w *world, verb, target string, level level.Level) error {
	from := w.rec.Phase
	s := Switch{Verb: verb}
	s.Level = level
	m.agent.describe(&s, w.facts(), target)
	s.At, s.Deadline = time.Time{}, time.Time{}
	w.armed = false
	err := w.rec.setOut(s)
	m.on(from, CauseAsked)
	return err
}

// begin is what every command does first: take over what a guard did, and reconcile.
func (m *model) begin(w *world) error {
	if n := w.note; n != nil {
		w.note = nil
		if w.rec.moving() || w.rec.late(w.rec.Switch.Target) {
			before := w.rec.Phase
			if err := w.rec.retreat(CauseTakenOver, *n, "by the guard"); err != nil {
				return err
			}
			if !slices.Contains(resting, before) {
				m.on(before, CauseTakenOver)
			}
		}
	}
	if w.rec.late(w.root) {
		m.on(w.rec.Phase, CauseLate)
		if err := w.rec.on(CauseLate); err != nil {
			return err
		}
	}
	before := w.rec.Phase
	switch before {
	case PhaseArmed:
		outcome, reason := level.Prove(w.rec.Switch.Expectation, w.facts(), w.stampRead())
		switch {
		case outcome == level.Pending && w.queued:
			return nil // a command says so and ends
		case outcome == level.Pending:
			m.on(before, CauseWithdrawn)
			if err := w.rec.on(CauseWithdrawn); err != nil {
				return err
			}
			w.rec.spare(w.rec.Switch.Target)
		case outcome == level.Landed:
			m.on(before, CauseLanded)
			return w.rec.on(CauseLanded)
		case outcome == level.Switched:
			m.on(before, CauseArrived)
			return w.rec.on(CauseArrived)
		default:
			m.on(before, CauseMissed)
			return w.rec.giveUp(CauseMissed, outcome, reason, time.Time{})
		}
	case PhaseTrying:
		if w.root != w.rec.Switch.Target {
			m.on(before, CauseLeft)
			return w.rec.giveUp(CauseLeft, level.Rebooted, "left", time.Time{})
		}
	}
	return nil
}

// after does something after a command's beginning, where that lets it.
func (m *model) after(w *world, may func(*world) bool, do func(*world) error) (bool, error) {
	if w.queued {
		return false, nil
	}
	if err := m.begin(w); err != nil {
		return false, err
	}
	if !may(w) {
		return false, nil
	}
	return true, do(w)
}

func settled(w *world) bool { return w.rec.Phase != PhaseArmed && w.rec.Phase != PhaseTrying }

func tried(w *world) bool { return w.rec.Phase == PhaseTrying }

// unhealthy is confirm, or the guard, that finds a root not good: the way back is written down, or the host stays.
func (m *model) unhealthy(w *world, c Cause) error {
	to := w.rec.wayBack()
	if to == "" {
		m.on(w.rec.Phase, CauseStranded)
		return w.rec.on(CauseStranded)
	}
	s := Switch{Verb: verbBack}
	m.agent.describe(&s, w.facts(), to)
	s.At, s.Deadline = time.Time{}, time.Time{}
	w.armed = false
	m.on(w.rec.Phase, c)
	return w.rec.retreat(c, s, "unhealthy")
}

// steps is all that can happen.
func (m *model) steps() []step {
	var all []step
	add := func(name string, mends bool, do func(*world) (bool, error)) { all = append(all, step{name, mends, do}) }
	for _, id := range m.images {
		add("stage "+id, false, func(w *world) (bool, error) {
			return m.after(w, func(w *world) bool { return settled(w) && w.root != id && w.rec.Staged != id }, func(w *world) error {
				before := w.rec.Phase
				w.rec.Staged = id
				m.on(before, CauseStaged)
				return w.rec.on(CauseStaged)
			})
		})
	}
	add("a command that only reconciles", true, func(w *world) (bool, error) {
		return m.after(w, func(*world) bool { return true }, func(*world) error { return nil })
	})
	add("apply, killed before it asks", false, func(w *world) (bool, error) {
		return m.after(w, func(w *world) bool { return settled(w) && w.rec.Staged != "" && w.rec.Staged != w.root }, func(w *world) error {
			return m.setOut(w, verbApply, w.rec.Staged, level.Soft)
		})
	})
	add("apply", false, func(w *world) (bool, error) {
		return m.after(w, func(w *world) bool { return settled(w) && w.rec.Staged != "" && w.rec.Staged != w.root }, func(w *world) error {
			w.queued = true
			return m.setOut(w, verbApply, w.rec.Staged, level.Soft)
		})
	})
	add("apply by a full boot, killed before it asks", false, func(w *world) (bool, error) {
		return m.after(w, func(w *world) bool { return settled(w) && w.rec.Staged != "" && w.rec.Staged != w.root }, func(w *world) error {
			return m.setOut(w, verbApply, w.rec.Staged, level.Full)
		})
	})
	add("roll back", true, func(w *world) (bool, error) {
		return m.after(w, func(w *world) bool { to := w.rec.back(w.root); return to != "" && to != w.root }, func(w *world) error {
			w.queued = true
			if w.rec.abandons(w.root) {
				return m.unhealthy(w, CauseUnhealthy)
			}
			return m.setOut(w, verbRollback, w.rec.back(w.root), level.Soft)
		})
	})
	add("resume", true, func(w *world) (bool, error) {
		return m.after(w, func(w *world) bool {
			return settled(w) && w.root == switcher.HostRoot && w.rec.good() != w.root && w.rec.resumed(w.rec.good()) < maxAttempts
		}, func(w *world) error {
			w.queued = true
			return m.setOut(w, verbResume, w.rec.good(), level.Soft)
		})
	})
	add("confirm finds it healthy", true, func(w *world) (bool, error) {
		return m.after(w, tried, func(w *world) error {
			m.on(PhaseTrying, CauseProved)
			return w.rec.proved(w.root)
		})
	})
	add("confirm finds it unhealthy", true, func(w *world) (bool, error) {
		return m.after(w, tried, func(w *world) error {
			w.queued = w.rec.wayBack() != ""
			return m.unhealthy(w, CauseUnhealthy)
		})
	})
	add("confirm is killed before it asks for the way back", false, func(w *world) (bool, error) {
		return m.after(w, tried, func(w *world) error { return m.unhealthy(w, CauseUnhealthy) })
	})
	add("the guard goes back, and cannot write the record", false, func(w *world) (bool, error) {
		if w.queued || w.note != nil || w.rec.Switch == nil || !w.rec.moving() && !w.rec.late(w.root) || w.root != w.rec.Switch.Target {
			return false, nil
		}
		to := w.rec.wayBack()
		if to == "" {
			return false, nil
		}
		s := Switch{Verb: verbBack}
		m.agent.describe(&s, w.facts(), to)
		s.At, s.Deadline = time.Time{}, time.Time{}
		w.note, w.queued, w.armed = &s, true, false
		return true, nil
	})
	add("the request is refused", false, func(w *world) (bool, error) {
		if !w.queued || w.rec.Phase != PhaseArmed || w.note != nil {
			return false, nil
		}
		w.queued = false
		return true, nil // what the agent writes then is the record of before: a world that is known
	})
	for _, how := range []struct {
		name           string
		armed, arrives bool
	}{{"it is armed and goes there", true, true}, {"it is armed and systemd falls back", true, false}, {"it is not armed", false, false}} {
		add("the soft reboot: "+how.name, how.arrives, func(w *world) (bool, error) {
			if !w.queued {
				return false, nil
			}
			target := w.rec.Switch.Target
			if w.note != nil {
				target = w.note.Target
			}
			w.queued, w.armed = false, how.armed
			w.soft++
			if how.arrives {
				w.root = target
			}
			return true, nil
		})
	}
	add("the guard takes the shutdown back, too late", false, func(w *world) (bool, error) {
		if !w.queued || w.note != nil || w.rec.Switch.Verb == verbBack {
			return false, nil
		}
		before := w.rec.Phase
		m.on(before, CauseWithdrawn)
		w.queued, w.armed = false, true
		w.soft++
		target := w.rec.Switch.Target
		w.root = target
		if err := w.rec.on(CauseWithdrawn); err != nil {
			return false, err
		}
		w.rec.fail(target, "stuck")
		return true, nil
	})
	add("the kernel is booted", true, func(w *world) (bool, error) {
		w.root, w.boot, w.soft, w.queued, w.armed, w.note = switcher.HostRoot, w.boot+1, 0, false, false, nil
		return true, nil
	})
	return all
}

// holds is what must be true of every world that can be reached.
func (w world) holds() error {
	r := w.rec
	switch {
	case len(r.Good) == 0 || r.Good[0] != switcher.HostRoot:
		return fmt.Errorf("the mutable host is not the first good root: %v", r.Good)
	case len(r.Good) > 1+keepGood:
		return fmt.Errorf("more good roots than are kept: %v", r.Good)
	case !slices.Contains([]Phase{PhaseIdle, PhaseStaged, PhaseArmed, PhaseTrying, PhaseGood}, r.Phase):
		return fmt.Errorf("no phase: %q", r.Phase)
	case (r.Phase == PhaseArmed || r.Phase == PhaseTrying) && r.Switch == nil:
		return fmt.Errorf("in phase %s with no switch", r.Phase)
	case w.queued && w.note == nil && r.Phase != PhaseArmed:
		return fmt.Errorf("a soft reboot is queued in phase %s, and nothing would be armed", r.Phase)
	case r.Phase == PhaseStaged && r.Staged == "":
		return fmt.Errorf("staged, and nothing is")
	}
	for i, id := range r.Good {
		if slices.Contains(r.Good[:i], id) {
			return fmt.Errorf("good twice: %v", r.Good)
		}
	}
	if w.late() && w.note == nil && (r.Switch.BootID != fmt.Sprint(w.boot) || w.soft != r.Switch.SoftReboots+1) {
		return fmt.Errorf("%s is taken for a root that came late", w.root)
	}
	needed := append(slices.Clone(r.Good), w.root)
	if r.Phase == PhaseArmed || r.Phase == PhaseTrying {
		needed = append(needed, r.Switch.Target, r.Switch.From)
	}
	for _, id := range needed {
		if id != switcher.HostRoot && !slices.Contains(r.keep(w.root), id) {
			return fmt.Errorf("gc would remove %s", id)
		}
	}
	return nil
}

// keeps is what must be true of every step: a good root stays one, but for an older image that becomes good again, which
// forgets what came after it, and the oldest of too many.
func (w world) keeps(after world) error {
	for _, id := range w.rec.Good {
		if slices.Contains(after.rec.Good, id) || len(after.rec.Good) == 1+keepGood {
			continue
		}
		if s := w.rec.Switch; s == nil || s.Verb != verbApply && s.Verb != verbRollback || after.rec.good() != s.Target {
			return fmt.Errorf("%s is not good any more: %v became %v", id, w.rec.Good, after.rec.Good)
		}
	}
	return nil
}

// late tells that a root runs whose switch was taken back.
func (w world) late() bool { return w.rec.late(w.root) }

// rests tells that the host is in a good root and on its way nowhere.
func (w world) rests() bool { return settled(&w) && !w.queued && slices.Contains(w.rec.Good, w.root) }

// TestNoDeadEnd goes through every world that can be reached by whatever happens in whatever order: commands, kills between
// the record and the act, every outcome of a shutdown, boots of the kernel, a guard that cannot write. In none is a step
// of the agent's an error, each holds what a record must, and from each the agent's units or an operator's roll-back lead
// to a good root, if the machine lets them. And every line of the table of moves happens.
func TestNoDeadEnd(t *testing.T) {
	m := &model{agent: testAgent(t), images: []string{"a", "b"}, moves: map[string]bool{}}
	m.agent.Now = func() time.Time { return time.Unix(1, 0) }
	rec, err := m.agent.readRecord()
	if err != nil {
		t.Fatal(err)
	}
	first := world{rec: *rec, root: switcher.HostRoot}
	steps := m.steps()
	worlds := map[string]world{first.key(): first}
	path := map[string]string{first.key(): "installed"}
	next := map[string][]string{} // by steps that mend
	queue := []string{first.key()}
	for len(queue) > 0 {
		key := queue[0]
		queue = queue[1:]
		for _, s := range steps {
			w := worlds[key].clone()
			happens, err := s.do(&w)
			if err == nil && happens {
				err = errors.Join(w.holds(), worlds[key].keeps(w))
			}
			if err != nil {
				t.Fatalf("%v\nafter %s; %s\nin %s", err, path[key], s.name, key)
			}
			if !happens {
				continue
			}
			to := w.key()
			if s.mends {
				next[key] = append(next[key], to)
			}
			if _, known := worlds[to]; !known {
				worlds[to], path[to] = w, path[key]+"; "+s.name
				queue = append(queue, to)
			}
		}
	}
	t.Logf("%d worlds", len(worlds))
	if len(worlds) < 500 {
		t.Errorf("only %d worlds: this shows little", len(worlds))
	}
	for _, key := range slices.Sorted(maps.Keys(worlds)) {
		if !leads(key, next, worlds) {
			t.Errorf("no way to a good root after %s\nin %s", path[key], key)
		}
	}
	for _, move := range Moves {
		if move.On == CauseRefused { // the record of before is put back as a whole
			continue
		}
		for _, from := range move.From {
			// Before anything was staged there is nowhere to go, and only who rolls back to a root that is not good by its name
			// has nothing staged.
			if name := fmt.Sprintf("%s: %s", from, move.On); !m.moves[name] && name != "idle: asked" && name != "good: late" {
				t.Errorf("the table has a move that never happens: %s", name)
			}
		}
	}
	for name := range m.moves {
		if !slices.ContainsFunc(Moves, func(move Move) bool {
			return slices.ContainsFunc(move.From, func(from Phase) bool { return strings.HasPrefix(name, string(from)+": "+string(move.On)) })
		}) {
			t.Errorf("a move that the table does not have: %s", name)
		}
	}
}

// leads tells whether steps that mend lead from one world to one that rests in a good root.
func leads(from string, next map[string][]string, worlds map[string]world) bool {
	seen := map[string]bool{from: true}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		if worlds[queue[0]].rests() {
			return true
		}
		for _, to := range next[queue[0]] {
			if !seen[to] {
				seen[to] = true
				queue = append(queue, to)
			}
		}
	}
	return false
}
