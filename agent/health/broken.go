package health

// BrokenCheck is a check program that cannot be run.
type BrokenCheck struct {
	// File is where it is, as this process sees it.
	File string
	Why  string
	// Required is whether no root becomes good because of it.
	Required bool
}

// BrokenChecks returns the check programs below a root that cannot be run.
func BrokenChecks(root string) []BrokenCheck {
	var broken []BrokenCheck
	for _, p := range (Gate{Root: root}).programs() {
		if p.broken != "" {
			broken = append(broken, BrokenCheck{p.file, p.broken, p.required})
		}
	}
	return broken
}
