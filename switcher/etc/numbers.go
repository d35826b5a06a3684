package etc

import "fmt"

// Numbers maps the uids and gids in an image's /etc to those of the same names in the host's /etc, for files that are
// copied out of the image. Names that the host does not have are left out.
func Numbers(image, host string) (uids, gids map[uint32]uint32, err error) {
	if uids, err = numbers(image, host, "passwd"); err != nil {
		return nil, nil, err
	}
	gids, err = numbers(image, host, "group")
	return uids, gids, err
}

func numbers(image, host, file string) (map[uint32]uint32, error) {
	var sides [2]*table
	for i, dir := range []string{image, host} {
		text, err := readText(dir, file, maxTable)
		if err != nil {
			return nil, fmt.Errorf("cannot map the numbers in %s: %w", file, err)
		}
		sides[i] = parseTable(formats[file], text)
	}
	names := numbering{}
	for _, n := range sides[1].numbers() {
		names[n.name] = n.id
	}
	return names.translate(sides[0]), nil
}
