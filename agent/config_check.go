package agent

import (
	"fmt"

	"github.com/updatectl/updatectl/agent/config"
)

// CheckConfig tells whether the configuration is enough to work with, the key files included.
func (a *Agent) CheckConfig() error {
	_, err := a.Policy()
	if err == nil && a.Config.Source.Image == "" {
		err = fmt.Errorf("%w: %s[source] image is empty: name the image to follow", config.ErrConfig, a.Config.Where("source.image"))
	}
	return err
}
