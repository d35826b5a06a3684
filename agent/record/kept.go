package record

import "github.com/updatectl/updatectl/switcher/kept"

// KeptSince returns where the state lay when the switch was announced, if that was since this full reboot: the numbers
// of devices mean nothing after another one. A record that knows of no switch has nil.
func (s *Switch) KeptSince(bootID string) []kept.Dir {
	if s == nil || s.BootID != bootID {
		return nil
	}
	return s.Kept
}
