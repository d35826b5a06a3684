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
	return errors.Join(err, a.Trial.CheckPrograms())
}
