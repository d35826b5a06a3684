package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/accounts/journal"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/switcher/etc/users"
	"github.com/updatectl/updatectl/switcher/mount"
)

// UserMove is a switch between roots, for the user databases.
type UserMove struct {
	// History is the file with what was changed in them on this host, and Ledger the one with all numbers.
	History, Ledger string
	// Etcs are the /etc directories of the roots that ran here, by identity, with the running one.
	Etcs map[string]string
	// To is the root to switch to, and Etc its /etc. Return is whether it keeps that from an earlier run, and HostMount
	// where it is mounted read-only if it is the host root, otherwise "".
	To, Etc, HostMount string
	Return             bool
}

// userHistory is the content of the history.
type userHistory struct {
	Schema  string          `json:"schema"`
	Journal journal.Journal `json:"journal"`
	// Roots are the databases of each root as they were when it was last looked at.
	Roots map[string]lastUsers `json:"roots"`
}

// lastUsers are the user databases of a root at a time. Dir is the inode of its /etc: after a failed trial, a root gets
// its former /etc back.
type lastUsers struct {
	At    time.Time         `json:"at"`
	Dir   uint64            `json:"dir"`
	Files map[string][]byte `json:"files"`
}

const (
	usersSchema = "updatectl.users/v1"
	maxUsers    = 256 << 20 // bytes; as often as there are roots, the databases of a large site
)

// CarryUsers implements [Trees].
func (hostTrees) CarryUsers(m UserMove) (notes []string, err error) {
	h, err := readUsers(m.History)
	if err != nil {
		return nil, err
	}
	order := slices.SortedFunc(maps.Keys(m.Etcs), func(a, b string) int { return h.Roots[a].At.Compare(h.Roots[b].At) })
	for _, id := range order {
		now, lerr := look(m.Etcs[id])
		if lerr != nil {
			if !errors.Is(lerr, fs.ErrNotExist) {
				err = errors.Join(err, lerr) // what others changed counts all the same
			}
			continue
		}
		if last := h.Roots[id]; last.Dir == now.Dir {
			h.Journal.Add(users.Parse(last.Files), users.Parse(now.Files))
			now.At = last.At
		}
		h.Roots[id] = now
		err = errors.Join(err, users.RecordNumbers(m.Ledger, now.Files))
	}
	maps.DeleteFunc(h.Roots, func(id string, _ lastUsers) bool { return m.Etcs[id] == "" && id != m.To })
	if m.Return {
		var uerr error
		notes, uerr = m.update(h.Journal)
		err = errors.Join(err, uerr)
	}
	if now, lerr := look(m.Etc); lerr != nil {
		err = errors.Join(err, lerr)
	} else {
		now.At = time.Now()
		h.Roots[m.To] = now
	}
	return notes, errors.Join(err, h.write(m.History))
}

// update brings the databases in the /etc of the target up to date.
func (m UserMove) update(j journal.Journal) ([]string, error) {
	if m.HostMount == "" {
		return users.Update(m.Etc, j)
	}
	host, err := mount.Clone(m.HostMount, false)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if err := host.SetReadOnly(false); err != nil {
		return nil, err
	}
	return users.Update(host.Path()+"/etc", j)
}

// look returns the user databases in an /etc now.
func look(dir string) (lastUsers, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return lastUsers{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	files, err := users.Read(dir)
	return lastUsers{Dir: st.Ino, Files: files}, err
}

func readUsers(name string) (userHistory, error) {
	h := userHistory{}
	text, err := durable.OS{}.ReadFile(name, maxUsers)
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, fmt.Errorf("cannot read what was changed in the user databases: %w", err)
	}
	if h.Journal == nil {
		h.Journal = journal.Journal{}
	}
	if h.Roots == nil {
		h.Roots = map[string]lastUsers{}
	}
	return h, nil
}

func (h userHistory) write(name string) error {
	h.Schema = usersSchema
	text, err := json.Marshal(h)
	if err == nil {
		err = durable.WriteFile(name, text, 0o600) // it has the hashes of passwords
	}
	if err != nil {
		return fmt.Errorf("cannot keep what was changed in the user databases: %w", err)
	}
	return nil
}

// ChangedInEtc implements [Trees].
func (hostTrees) ChangedInEtc(history, root, dir string) ([]string, error) {
	h, err := readUsers(history)
	if err != nil || h.Roots[root].At.IsZero() {
		return nil, err
	}
	return difference.ChangedSince(dir, h.Roots[root].At)
}
