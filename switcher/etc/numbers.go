package etc

import (
	"fmt"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// Numbers maps the uids and gids in an image's /etc to those of the same names in the host's /etc, for files that are
// copied out of the image. Names that the host does not have are left out.
func Numbers(image, host string) (uids, gids map[uint32]uint32, err error) {
	var sides [2]accounts.Tables
	for i, dir := range []string{image, host} {
		sides[i] = accounts.Tables{}
		for _, file := range []string{"passwd", "group"} {
			text, err := readText(dir, file, accounts.MaxTable)
			if err != nil {
				return nil, nil, fmt.Errorf("cannot map the numbers in %s: %w", file, err)
			}
			sides[i][file] = accounts.Parse(file, text)
		}
	}
	ids := accounts.Translate(sides[0], sides[1])
	return ids.UIDs, ids.GIDs, nil
}
