package store

import (
	"fmt"

	"github.com/updatectl/updatectl/image/composefs"
)

// Compare returns how the files of a root differ from those of an older one, apart from the paths that skip reports,
// which are absolute. The error is a [composefs.ErrImage].
func Compare(old, fresh Root, skip func(path string) bool) (c composefs.Changes, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot compare the files of two roots: %w", err)
		}
	}()
	before, err := old.openCFS()
	if err != nil {
		return c, err
	}
	defer before.Close()
	after, err := fresh.openCFS()
	if err != nil {
		return c, err
	}
	defer after.Close()
	return composefs.Compare(before, after, skip)
}
