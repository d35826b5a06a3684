package etc

import (
	"fmt"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// Correct returns how the files of an image are shown on a host, by the user databases in the image's /etc and in the
// host's, see [accounts.Correct].
func Correct(image, host string, used accounts.FileOwners) (accounts.Correction, error) {
	var sides [2]accounts.Tables
	for i, dir := range []string{image, host} {
		sides[i] = accounts.Tables{}
		for _, file := range []string{"passwd", "group"} {
			text, err := readText(dir, file, accounts.MaxTable)
			if err != nil {
				return accounts.Correction{}, fmt.Errorf("cannot map the numbers in %s: %w", file, err)
			}
			sides[i][file] = accounts.Parse(file, text)
		}
	}
	return accounts.Correct(sides[0], sides[1], used), nil
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
