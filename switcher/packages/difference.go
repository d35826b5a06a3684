package packages

import (
	"cmp"
	"slices"

	rpmversion "github.com/knqyf263/go-rpm-version"
	debversion "pault.ag/go/debian/version"
)

// Difference is how the packages of a root differ from those of another. All lists are sorted by name.
type Difference struct {
	Added   []Package `json:"added,omitempty"`
	Removed []Package `json:"removed,omitempty"`
	// Upgraded and Downgraded have another version, by the rules of their package manager. Changed do, too, where no
	// library compares versions: those of apk and pacman, and versions that break the rules.
	Upgraded   []Change `json:"upgraded,omitempty"`
	Downgraded []Change `json:"downgraded,omitempty"`
	Changed    []Change `json:"changed,omitempty"`
	// Installed is how many packages the new root has. Bytes is how much more than the other all of them state as their
	// size.
	Installed int   `json:"installed"`
	Bytes     int64 `json:"bytes"`
}

// Change is a package that two roots have in different versions.
type Change struct {
	Format       Format `json:"format"`
	Name         string `json:"name"`
	Architecture string `json:"architecture,omitempty"`
	From         string `json:"from"`
	To           string `json:"to"`
	Bytes        int64  `json:"bytes,omitempty"` // how much larger the new one is
}

// Empty reports whether there is no difference.
func (d Difference) Empty() bool {
	return len(d.Added)+len(d.Removed)+len(d.Upgraded)+len(d.Downgraded)+len(d.Changed) == 0
}

// Compare returns how the packages of a new root differ from those of an old one. Of a package that a root has in
// several versions, such as a kernel, each counts for itself, unless each root has one that the other lacks. So does a
// package for another architecture.
func Compare(old, fresh []Package) Difference {
	d := Difference{Installed: len(fresh)}
	gone, came := lacking(old, fresh), lacking(fresh, old)
	for _, p := range gone {
		d.Bytes -= p.Bytes
	}
	for _, p := range came {
		d.Bytes += p.Bytes
	}
	for _, same := range []func(Package) Package{ // first of the same architecture, then of another
		func(p Package) Package { return Package{Format: p.Format, Name: p.Name, Architecture: p.Architecture} },
		func(p Package) Package { return Package{Format: p.Format, Name: p.Name} },
	} {
		gone, came = d.pair(gone, came, same)
	}
	d.Added, d.Removed = came, gone
	for _, list := range []*[]Change{&d.Upgraded, &d.Downgraded, &d.Changed} {
		slices.SortFunc(*list, func(a, b Change) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture),
				cmp.Compare(a.Format, b.Format))
		})
	}
	return d
}

// lacking returns the packages of a list that another does not have in the same version.
func lacking(list, other []Package) []Package {
	key := func(p Package) Package { p.Bytes = 0; return p }
	has := map[Package]bool{}
	for _, p := range other {
		has[key(p)] = true
	}
	lacks := slices.DeleteFunc(slices.Clone(list), func(p Package) bool { return has[key(p)] })
	slices.SortFunc(lacks, compare)
	return lacks
}

// pair adds a change for each package that went and came exactly once, and returns all others.
func (d *Difference) pair(gone, came []Package, same func(Package) Package) (restGone, restCame []Package) {
	byKey := func(list []Package) map[Package][]Package {
		in := map[Package][]Package{}
		for _, p := range list {
			in[same(p)] = append(in[same(p)], p)
		}
		return in
	}
	went, arrived := byKey(gone), byKey(came)
	paired := func(p Package) bool { return len(went[same(p)]) == 1 && len(arrived[same(p)]) == 1 }
	for _, p := range came {
		if paired(p) {
			d.addChange(went[same(p)][0], p)
		}
	}
	return slices.DeleteFunc(gone, paired), slices.DeleteFunc(came, paired)
}

func (d *Difference) addChange(from, to Package) {
	c := Change{to.Format, to.Name, to.Architecture, from.Version, to.Version, to.Bytes - from.Bytes}
	switch order, known := compareVersions(to.Format, from.Version, to.Version); {
	case !known || order == 0:
		d.Changed = append(d.Changed, c)
	case order < 0:
		d.Upgraded = append(d.Upgraded, c)
	default:
		d.Downgraded = append(d.Downgraded, c)
	}
}

// compareVersions returns a negative number if version a is older than b, a positive one if it is newer. Known is
// whether the rules of the package manager say so.
func compareVersions(f Format, a, b string) (order int, known bool) {
	switch f {
	case Dpkg:
		x, xerr := debversion.Parse(a)
		y, yerr := debversion.Parse(b)
		return debversion.Compare(x, y), xerr == nil && yerr == nil
	case RPM:
		return rpmversion.NewVersion(a).Compare(rpmversion.NewVersion(b)), true
	}
	return 0, false
}
