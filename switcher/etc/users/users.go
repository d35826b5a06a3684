// Package users reads and writes what package accounts decides: the user databases in an /etc, and the ledger of all
// numbers. It promises that each file is replaced in one step and keeps its attributes.
package users

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/accounts/journal"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/listing"
)

// Read returns the user databases in an /etc, by file name. Those that are no ordinary files are left out.
func Read(dir string) (map[string][]byte, error) {
	texts := map[string][]byte{}
	for _, file := range table.Files {
		text, err := listing.ReadText(dir, file, table.Max)
		if err != nil {
			return nil, fmt.Errorf("cannot read the user databases: %w", err)
		}
		if text != nil {
			texts[file] = text
		}
	}
	return texts, nil
}

// Parse parses user databases.
func Parse(texts map[string][]byte) table.Tables {
	t := table.Tables{}
	for file, text := range texts {
		t[file] = table.Parse(file, text)
	}
	return t
}

// Update brings the user databases in the /etc of a root that does not run up to date, and changes nothing else
// there. Each file is replaced in one step; the former one is kept with a "-" behind its name, as passwd(1) does. It
// holds the lock of shadow(5) meanwhile. Notes say what could not be carried over.
func Update(dir string, j journal.Journal) (notes []string, err error) {
	unlock, err := lockUsers(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	texts, err := Read(dir)
	if err != nil {
		return nil, err
	}
	updated, notes := j.Replay(Parse(texts))
	for _, file := range table.Files {
		if texts[file] == nil || bytes.Equal(bytes.TrimSpace(updated[file].Bytes()), bytes.TrimSpace(texts[file])) {
			continue
		}
		if rerr := replaceUsers(filepath.Join(dir, file), texts[file], updated[file].Bytes()); rerr != nil {
			err = errors.Join(err, fmt.Errorf("cannot update %s: %w", file, rerr))
		}
	}
	return notes, err
}

// replaceUsers replaces a database by a file with the same attributes, and keeps the former one.
func replaceUsers(name string, old, text []byte) error {
	e, ok, err := listing.ReadEntry(filepath.Dir(name), filepath.Base(name))
	if err == nil && (!ok || e.Kind != listing.File) {
		err = durable.ErrNotRegular
	}
	if err != nil {
		return err
	}
	e.Flags = 0 // a protected file cannot be replaced, which is what its owner wants
	if err := writeLike(name+"-", old, e); err != nil {
		return err
	}
	e.MTime = time.Now()
	return writeLike(name, text, e)
}

// writeLike replaces a file in one step, with the attributes of an entry.
func writeLike(name string, text []byte, e listing.Entry) error {
	tmp := name + ".updatectl"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = e.Apply(f, map[string]bool{})
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return durable.SyncDir(filepath.Dir(name))
}

// lockUsers takes the lock that passwd(1) and the like hold while they change user databases (lckpwdf(3)).
func lockUsers(dir string) (unlock func(), err error) {
	const tries, pause = 10, 100 * time.Millisecond // nobody runs in that root
	f, err := os.OpenFile(filepath.Join(dir, ".pwd.lock"), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the user databases: %w", err)
	}
	for range tries {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err == nil {
			return func() { f.Close() }, nil
		}
		time.Sleep(pause)
	}
	f.Close()
	return nil, fmt.Errorf("cannot lock the user databases: %w", err)
}

// RecordNumbers adds the numbers in user databases to the ledger.
func RecordNumbers(ledger string, texts map[string][]byte) error {
	l, err := ReadLedger(ledger)
	if err != nil {
		return err
	}
	before := l.Clone()
	l.Record(Parse(texts))
	if maps.Equal(before.Users, l.Users) && maps.Equal(before.Groups, l.Groups) {
		return nil
	}
	return WriteLedger(ledger, l)
}
