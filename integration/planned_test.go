//go:build lab

package integration

import (
	"slices"
	"strings"
)

// packages returns the installed packages of the host as its user sees them: "name architecture version".
func (s *site) packages() (list []string) {
	s.Helper()
	const query = `dpkg-query -W -f '${db:Status-Status} ${Package} ${Architecture} ${Version}\n'`
	for line := range strings.Lines(s.host.Must(s.T, "sh", "-c", query)) {
		if p, installed := strings.CutPrefix(strings.TrimSpace(line), "installed "); installed {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		s.Error("dpkg lists no packages")
	}
	return list
}

// cameAsPlanned expects the packages of the host to differ from those before as a plan said: no more, and no less.
func (s *site) cameAsPlanned(plan decided, before []string) {
	s.Helper()
	if plan.Packages == nil || len(plan.Unknown) > 0 {
		s.Fatalf("the plan does not know the packages: %v", plan.Unknown)
	}
	var went, came []string
	for _, p := range plan.Packages.Added {
		came = append(came, p.Name+" "+p.Architecture+" "+p.Version)
	}
	for _, p := range plan.Packages.Removed {
		went = append(went, p.Name+" "+p.Architecture+" "+p.Version)
	}
	for _, p := range slices.Concat(plan.Packages.Upgraded, plan.Packages.Downgraded, plan.Packages.Changed) {
		went = append(went, p.Name+" "+p.Architecture+" "+p.From)
		came = append(came, p.Name+" "+p.Architecture+" "+p.To)
	}
	after := s.packages()
	for what, lists := range map[string][2][]string{
		"went": {went, lacking(before, after)}, "came": {came, lacking(after, before)},
	} {
		planned, seen := lists[0], lists[1]
		if more, less := lacking(seen, planned), lacking(planned, seen); len(more)+len(less) > 0 {
			s.Errorf("of the packages that %s, the plan did not name %q, and named %q", what, more, less)
		}
	}
	s.Logf("the plan named %d packages that went and %d that came", len(went), len(came))
}

// filesOfImage returns the paths of all files that the host has from its image.
func (s *site) filesOfImage() []string {
	s.Helper()
	const find = `find / $(ls -d /var/lib/dpkg /var/cache/apparmor 2>/dev/null) -xdev ! -type d`
	return strings.Split(s.host.Must(s.T, "sh", "-c", find), "\n")
}

// lacking returns what is in a list and not in another.
func lacking(list, other []string) []string {
	in := map[string]bool{}
	for _, x := range other {
		in[x] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return in[x] })
}
