package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
	"github.com/updatectl/updatectl/switcher/etc/users"
)

// ownersFile is in the directory of a root, with the owners of its image's files: reading the image takes a second, and
// when a root is armed, services are down.
const (
	ownersFile = "owners.json"
	maxOwners  = 4 << 20 // bytes; an image has some 50 owners
)

// ownersOf returns the owners of the files of an image, none where there is no image yet.
func ownersOf(n assembly.Next) (numbers.FileOwners, error) {
	if n.ID == "" {
		return numbers.FileOwners{}, nil
	}
	name := filepath.Join(filepath.Dir(n.CFS), ownersFile)
	var owners numbers.FileOwners
	text, err := durable.OS{}.ReadFile(name, maxOwners)
	if err == nil && json.Unmarshal(text, &owners) == nil && len(owners.UIDs) > 0 {
		return owners, nil
	}
	cfs, err := os.Open(n.CFS)
	if err != nil {
		return owners, fmt.Errorf("cannot read who owns the files of the image: %w", err)
	}
	defer cfs.Close()
	read, err := composefs.ReadOwners(cfs, "etc")
	if err != nil {
		return owners, fmt.Errorf("cannot read who owns the files of the image: %w", err)
	}
	owners = numbers.FileOwners{UIDs: owned(read.UIDs), GIDs: owned(read.GIDs)}
	if text, err := json.Marshal(owners); err == nil {
		_ = durable.WriteFile(name, text, 0o600) // it only saves time
	}
	return owners, nil
}

func owned(from map[uint32]composefs.Owned) map[uint32]numbers.Owned {
	to := map[uint32]numbers.Owned{}
	for id, o := range from {
		to[id] = numbers.Owned(o)
	}
	return to
}

func (hostTrees) EtcOwners(next assembly.Next, other string) (copies.Owners, error) {
	tree, err := next.Open()
	if err != nil {
		return copies.Owners{}, err
	}
	defer tree.Close()
	owners, err := ownersOf(next)
	if err != nil {
		return copies.Owners{}, err
	}
	c, err := users.Correct(tree.Path()+"/etc", other, owners)
	return copies.Owners{UID: c.IDs.UIDs, GID: c.IDs.GIDs}, err
}
