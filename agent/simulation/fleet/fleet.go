// Package fleet simulates many hosts that take one release: with the code that decides on a real host when it begins,
// and with models of the timer, the registry and the lock server. It answers what a release asks of the servers that
// the hosts share, and whether every host gets its turn.
package fleet

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/rollout"
	"github.com/updatectl/updatectl/agent/schedule"
	"github.com/updatectl/updatectl/image/release"
)

// What a host asks the registry for, in requests.
const (
	// Check asks for the digest behind the tag. The run to fetch does so in each hour of its host, and the run to switch
	// whenever its window is open.
	Check = 1
	// Read reads a new release: its index, its signatures, and the manifest of its image.
	Read = 3
	// Download reads the blobs of an image, in as many requests, one every DownloadPause.
	Download = 30
	// DownloadPause is how long a host takes for one of them.
	DownloadPause = 2 * time.Second
)

// Fleet is what is simulated. Times are counted from when the release is published.
type Fleet struct {
	Hosts   int
	Seed    uint64
	Rollout release.Rollout
	// Published is when the release is published, End how long is simulated.
	Published time.Time
	End       time.Duration
	// Interval is how often the timer runs, Jitter its RandomizedDelaySec= with FixedRandomDelay=.
	Interval, Jitter time.Duration
	// Starts are when windows to switch open, none for a window that is always open. Length is theirs.
	Starts []time.Time
	Length time.Duration
	// Group is how many hosts share a lock, and Slots how many of them may be away at once, each for Away.
	Group, Slots int
	Away         time.Duration
	// Patience is how long one run waits for the lock, and Backoff the pause after a failed try.
	Patience time.Duration
	Backoff  func(try int, random float64) time.Duration
	// OutageFrom and OutageTo are when the registry does not answer.
	OutageFrom, OutageTo time.Duration
}

// Result is what happened.
type Result struct {
	// Registry and Lock are the requests in each second.
	Registry, Lock []int
	// Updated is when each host was updated, in order. Hosts that were not are missing.
	Updated []time.Duration
	// Waited is how long each of them was at it: from its first try at the lock until it was updated.
	Waited []time.Duration
	// MostTries is how often one host asked the lock at most, MostAway how many of a group were away at once.
	MostTries, MostAway int
	// Outside counts hosts that began to switch while no window was open.
	Outside int
}

// phase is how far a host is.
type phase uint8

const (
	waiting phase = iota
	fetching
	staged
	locking
	away
	updated
)

type host struct {
	id       string
	jitter   time.Duration
	part     float64       // of the hour, at which its own begins
	answered time.Duration // when the registry last did
	position float64
	group    int
	phase    phase
	knows    bool          // the release
	tries    int           // at the lock, in all runs
	inRun    int           // the same, in this run
	patience time.Duration // when this run gives up
	first    time.Duration // when it tried first
}

// event is that something happens to a host.
type event struct {
	at   time.Duration
	n    int // the order of events at one time
	host *host
	do   func(*simulation, *host, time.Duration)
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push adds an event, for package heap.
func (e *events) Push(v any) { *e = append(*e, v.(event)) }

// Pop removes the last event, for package heap.
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

type simulation struct {
	Fleet
	Result
	random *rand.Rand
	hosts  []*host // by jitter: the order in which their timers run
	away   []int   // by group
	queue  events
	pushed int

	verdict  schedule.Verdict // about switching, from one time to another
	from, to time.Duration
}

// Run simulates a fleet. The same fleet always has the same result.
func Run(f Fleet) Result {
	s := &simulation{Fleet: f, random: rand.New(rand.NewPCG(f.Seed, 0)), away: make([]int, f.Hosts/f.Group+1)}
	s.verdict = schedule.Verdict{Action: schedule.Go}
	s.Registry, s.Lock = make([]int, f.End/time.Second+1), make([]int, f.End/time.Second+1)
	for i := range f.Hosts {
		h := &host{id: fmt.Sprintf("%016x%016x", s.random.Uint64(), s.random.Uint64()), group: i / f.Group}
		h.jitter = time.Duration(s.random.Int64N(int64(f.Jitter) + 1))
		h.position = rollout.Position(nil, h.id, "2026.11.1", "")
		h.part = rollout.Slot(h.id, "fetch", "")
		h.answered = schedule.Hour(s.Published, h.part).Sub(s.Published)
		s.hosts = append(s.hosts, h)
	}
	slices.SortStableFunc(s.hosts, func(a, b *host) int { return int(a.jitter - b.jitter) })
	for base := time.Duration(0); base < f.End; base += f.Interval {
		for _, h := range s.hosts {
			s.until(base + h.jitter)
			s.run(h, base+h.jitter)
		}
	}
	s.until(f.End)
	slices.Sort(s.Updated)
	slices.Sort(s.Waited)
	return s.Result
}

// until lets everything happen before a time.
func (s *simulation) until(at time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at < at {
		e := heap.Pop(&s.queue).(event)
		e.do(s, e.host, e.at)
	}
}

// later lets something happen to a host.
func (s *simulation) later(at time.Duration, h *host, do func(*simulation, *host, time.Duration)) {
	s.pushed++
	heap.Push(&s.queue, event{at, s.pushed, h, do})
}

// count counts requests.
func count(seconds []int, at time.Duration, n int) {
	if i := int(at / time.Second); i < len(seconds) {
		seconds[i] += n
	}
}

func (s *simulation) isDown(at time.Duration) bool { return at >= s.OutageFrom && at < s.OutageTo }

// run is one run of the timer.
func (s *simulation) run(h *host, now time.Duration) {
	if h.phase == locking || h.phase == away || h.phase == fetching {
		return // the run before has not ended
	}
	asked := 0
	if s.Published.Add(h.answered).Before(schedule.Hour(s.Published.Add(now), h.part)) {
		asked++
	}
	if s.decide(now).Action == schedule.Go {
		asked++
	}
	if count(s.Registry, now, asked*Check); asked == 0 || s.isDown(now) {
		return
	}
	if h.answered = now; !h.knows {
		h.knows = true
		count(s.Registry, now, Read)
	}
	switch {
	case h.phase == waiting && rollout.Decide(&s.Rollout, h.position, s.Published.Add(now)).Go:
		h.phase = fetching
		for i := range time.Duration(Download) {
			count(s.Registry, now+i*DownloadPause, 1)
		}
		s.later(now+Download*DownloadPause, h, (*simulation).fetched)
	case h.phase == staged:
		s.mayLock(h, now)
	}
}

// fetched is the end of a download. If the registry went down meanwhile, a later run begins anew.
func (s *simulation) fetched(h *host, now time.Duration) {
	if h.phase = staged; s.isDown(now) {
		h.phase = waiting
		return
	}
	s.mayLock(h, now)
}

// mayLock asks the lock for a slot if the window to switch is open.
func (s *simulation) mayLock(h *host, now time.Duration) {
	if s.decide(now).Action != schedule.Go {
		return
	}
	if h.phase, h.inRun, h.patience = locking, 0, now+s.Patience; h.tries == 0 {
		h.first = now
	}
	s.lock(h, now)
}

// decide says whether a host may switch. All have the same windows, so the verdict counts until it would change.
func (s *simulation) decide(now time.Duration) schedule.Verdict {
	if len(s.Starts) == 0 || now >= s.from && now < s.to {
		return s.verdict
	}
	at := s.Published.Add(now)
	var w schedule.Window
	w.Open, w.Until, w.Next = schedule.State(s.Starts, s.Length, at)
	s.verdict = schedule.Decide(at, schedule.Facts{Step: schedule.Switch, Switch: w})
	s.from, s.to = now, s.End
	if end := w.Until; w.Open {
		s.to = end.Sub(s.Published)
	} else if !w.Next.IsZero() {
		s.to = w.Next.Sub(s.Published)
	}
	return s.verdict
}

// lock is one try at the lock.
func (s *simulation) lock(h *host, now time.Duration) {
	count(s.Lock, now, 1)
	h.tries++
	s.MostTries = max(s.MostTries, h.tries)
	if s.away[h.group] < s.Slots {
		s.away[h.group]++
		s.MostAway = max(s.MostAway, s.away[h.group])
		if s.decide(now).Action != schedule.Go {
			s.Outside++
		}
		h.phase = away
		s.later(now+s.Away, h, (*simulation).arrived)
		return
	}
	next := now + s.Backoff(h.inRun, s.random.Float64())
	h.inRun++
	if next > h.patience || s.decide(next).Action != schedule.Go {
		h.phase = staged
		return
	}
	s.later(next, h, (*simulation).lock)
}

// arrived is a host that is updated and gives its slot back.
func (s *simulation) arrived(h *host, now time.Duration) {
	count(s.Lock, now, 1)
	s.away[h.group]--
	h.phase = updated
	s.Updated = append(s.Updated, now)
	s.Waited = append(s.Waited, now-h.first)
}
