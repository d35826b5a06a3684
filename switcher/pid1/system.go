package pid1

// System is systemd of this host, with logind where it runs.
type System struct{}
