package etc

import (
	"fmt"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// Numbers maps the uids and gids in an image's /etc to those of the same names in the host's /etc, for files that are
// copied out of the image. Names that the host does not have are left out.
func Numbers(image, host string) (uids, gids map[uint32]uint32, err error) {
	sides, err := readNames(image, host)
	if err != nil {
		return nil, nil, err
	}
	ids := accounts.Translate(sides[0], sides[1])
	return ids.UIDs, ids.GIDs, nil
}

// Correct returns how the files of an image are shown on a host, by the user databases in the image's /etc and in the
// host's, see [accounts.Correct].
func Correct(image, host string, used accounts.FileOwners) (accounts.Correction, error) {
	sides, err := readNames(image, host)
	if err != nil {
		return accounts.Correction{}, err
	}
	return accounts.Correct(sides[0], sides[1], used), nil
}

// readNames reads the names and numbers in two /etc directories.
func readNames(image, host string) ([2]accounts.Tables, error) {
	var sides [2]accounts.Tables
	for i, dir := range []string{image, host} {
		sides[i] = accounts.Tables{}
		for _, file := range []string{"passwd", "group"} {
			text, err := readText(dir, file, accounts.MaxTable)
			if err != nil {
				return sides, fmt.Errorf("cannot map the numbers in %s: %w", file, err)
			}
			sides[i][file] = accounts.Parse(file, text)
		}
	}
	return sides, nil
}

// readAndCorrect is read, with how the files of the new image are shown.
func readAndCorrect(in Inputs) (*outcome, error) {
	out, err := read(in)
	if err != nil {
		return nil, err
	}
	out.report.Correction = accounts.Correct(out.image, out.merged, in.Owners)
	out.report.Owners = append([]accounts.Shown{}, out.report.Correction.Shown...)
	return out, nil
}
