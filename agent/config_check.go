package agent

import (
	"errors"
	"fmt"

	"github.com/updatectl/updatectl/agent/config"
)

// CheckConfig returns a [config.ErrConfig] for each reason why the configuration, with the key files it names, is not
// enough to apply an image.
func (a *Agent) CheckConfig() error {
	_, err := a.Policy()
	if a.Config.Source.Image == "" {
		err = errors.Join(err, fmt.Errorf("%w: %s[source] image is empty: name the image to follow", config.ErrConfig,
			a.Config.Where("source.image")))
	}
	return errors.Join(err, a.Trial.CheckPrograms(), checkState(a))
}

// checkState returns a [config.ErrConfig] for state paths that users of the running host can make lead elsewhere.
func checkState(a *Agent) (err error) {
	if !a.Machine.Running { // in a tree that is built, files may have any owner
		return nil
	}
	for _, list := range []struct {
		key   string
		paths []string
	}{{"persist", a.Config.State.Persist}, {"image-owned", a.Config.State.ImageOwned}} {
		if oerr := a.Machine.Mounts.CheckOwners(a.Machine.Root, list.paths); oerr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %s[state] %s: %w", config.ErrConfig, a.Config.Where("state."+list.key),
				list.key, oerr))
		}
	}
	return err
}
