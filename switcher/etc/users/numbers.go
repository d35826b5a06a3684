package users

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/listing"
)

// Numbers maps the uids and gids in an image's /etc to those of the same names in the host's /etc, for files that are
// copied out of the image. Names that the host does not have are left out.
func Numbers(image, host string) (numbers.IDs, error) {
	sides, err := readNames(image, host)
	if err != nil {
		return numbers.IDs{}, err
	}
	return numbers.Translate(sides[0], sides[1]), nil
}

// Correct returns how the files of an image are shown on a host, by the user databases in the image's /etc and in the
// host's, see [numbers.Correct].
func Correct(image, host string, used numbers.FileOwners) (numbers.Correction, error) {
	sides, err := readNames(image, host)
	if err != nil {
		return numbers.Correction{}, err
	}
	return numbers.Correct(sides[0], sides[1], used), nil
}

// readNames reads the names and numbers in two /etc directories.
func readNames(image, host string) ([2]table.Tables, error) {
	var sides [2]table.Tables
	for i, dir := range []string{image, host} {
		sides[i] = table.Tables{}
		for _, file := range []string{"passwd", "group"} {
			text, err := listing.ReadText(dir, file, table.Max)
			if err != nil {
				return sides, fmt.Errorf("cannot map the numbers in %s: %w", file, err)
			}
			sides[i][file] = table.Parse(file, text)
		}
	}
	return sides, nil
}

// ReadLedger returns the ledger of numbers. It is empty before the first merge.
func ReadLedger(file string) (accounts.Ledger, error) {
	if file == "" {
		return accounts.ParseLedger(nil)
	}
	content, err := listing.ReadText(filepath.Dir(file), filepath.Base(file), accounts.MaxLedger)
	if err != nil {
		return accounts.Ledger{}, err
	}
	l, err := accounts.ParseLedger(content)
	if err != nil {
		return accounts.Ledger{}, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return l, nil
}

// WriteLedger writes the ledger of numbers to disk, unless it is there already: that takes time when services are down.
func WriteLedger(file string, l accounts.Ledger) error {
	was, err := listing.ReadText(filepath.Dir(file), filepath.Base(file), accounts.MaxLedger)
	if err == nil && bytes.Equal(was, l.Bytes()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(file, l.Bytes(), 0o600)
}
