package etc

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// derivation is what a merge knows about derived files besides the three sides.
type derivation struct {
	rules   derived.List
	local   map[string][]byte // authorities that are not in /etc, by the name of their file
	copied  bool              // whether local is put into /etc, because nothing else keeps it
	bundles map[string][]byte // the image's
	ours    [][]byte          // text of the authorities in the host's /etc
	gone    map[string]bool   // alternatives that point to what the image does not have

	merged      []string // paths that a former merge has put together
	newInstance bool     // cloud-init would take the host for a new instance
}

// readDerivation reads what derived files need. What is wrong with the host's own list is noted, and the shipped one
// counts: no switch depends on it.
func readDerivation(in Inputs, cur *snapshot) (derivation, error) {
	d := derivation{rules: in.Derived, local: map[string][]byte{}, bundles: map[string][]byte{}, gone: map[string]bool{}}
	text, err := readText(in.Current, derived.HostFile, rootfs.MaxConfig)
	if err != nil {
		return d, err
	}
	own, err := derived.Parse(string(text))
	if err != nil {
		cur.notes = append(cur.notes, fmt.Sprintf("%s is not used: %v", derived.HostFile, err))
	}
	d.rules = append(slices.Clone(d.rules), own...)
	if in.Host != "" {
		d.readLocal(in)
	}
	d.newInstance = in.State != "" && !isInstance(in.State, in.Sources.Kept)
	for name, e := range cur.tree {
		if e.kind == kindFile && authorityDirs.has(name) && len(d.ours) < maxAuthorities {
			text, err := readStart(in.Current, name, rootfs.MaxConfig)
			if err != nil {
				return d, err
			}
			d.ours = append(d.ours, text)
		}
	}
	for _, name := range d.rules.Bundles() {
		if text, err := readText(in.Next, name, maxBundle); err == nil && text != nil {
			d.bundles[name] = text
		}
	}
	merged, err := readText(in.Current, mergedList, rootfs.MaxConfig)
	if err != nil {
		return d, err
	}
	d.merged = strings.Split(string(merged), "\n")
	image := rootfs.Dir(filepath.Dir(in.Next))
	for name, e := range cur.tree {
		kept := func(dir string) bool { return isUnder(e.target, dir) }
		if path.Dir(name) == "alternatives" && e.kind == kindLink && path.IsAbs(e.target) &&
			!slices.ContainsFunc(in.Sources.Kept, kept) && !image.Exists(e.target) {
			d.gone[name] = true
		}
	}
	return d, nil
}

// readLocal reads the host's own authorities that are not in /etc. Those of the old image are no change of the host.
func (d *derivation) readLocal(in Inputs) {
	kept := slices.ContainsFunc(in.Sources.Kept, func(k string) bool { return isUnder(localShare, k) })
	host := rootfs.Dir(in.Host)
	if kept && in.State != "" {
		host = rootfs.Dir(in.State)
	}
	files := host.Names(localShare)
	for _, dir := range host.Names(localShare) {
		for _, name := range host.Names(path.Join(localShare, dir)) {
			files = append(files, path.Join(dir, name))
		}
	}
	for _, name := range files {
		if path.Ext(name) != ".crt" || len(d.local) == maxAuthorities {
			continue
		}
		text, err := host.ReadFile(path.Join(localShare, name), rootfs.MaxConfig)
		if err != nil || len(certificates(text)) == 0 {
			continue
		}
		if in.Old != "" {
			shipped, err := rootfs.Dir(filepath.Dir(in.Old)).ReadFile(path.Join(localShare, name), rootfs.MaxConfig)
			if err == nil && bytes.Equal(shipped, text) {
				continue
			}
		}
		d.local[strings.ReplaceAll(name, "/", "_")] = text
	}
	d.copied = in.Old == "" && !kept
}

// hideDerived makes every derived file unchanged on the host, so that the image's version comes. The list of trusted
// authorities is merged by its own rule.
func (d derivation) hideDerived(o, c, x listing, rep *Report) {
	unchanged := func(name string) {
		if was, ok := o[name]; ok {
			c[name] = was
		} else {
			delete(c, name)
		}
	}
	for name, e := range maps.Clone(c) {
		_, inX := x[name]
		switch {
		case notes.has(name):
			unchanged(name)
		case d.rules.Makes(name, e.target, e.kind == kindLink):
			unchanged(name)
		case d.gone[name] && inX && !same(e, x[name], true, true):
			rep.note(fmt.Sprintf("%s: %s is not in the image; the image's choice is used", name, e.target))
			unchanged(name)
		case name == authoritiesConf && e.kind == kindFile && inX && x[name].kind == kindFile:
			unchanged(name)
		}
	}
	for name, e := range o { // removed on the host
		if _, inC := c[name]; !inC && d.rules.Makes(name, e.target, e.kind == kindLink) {
			c[name] = e
		}
	}
}

// placeDerived puts the host's authorities into the result, and the list of what has to be made anew in the new root.
func (out *outcome) placeDerived(d derivation, x listing, oldConf, curConf, nextConf []byte) {
	if p, ok := out.paths[authoritiesConf]; ok && p.side == image && curConf != nil && nextConf != nil {
		if conf := mergeAuthorities(oldConf, curConf, nextConf); !bytes.Equal(conf, nextConf) {
			p.content = conf
			out.paths[authoritiesConf] = p
			out.report.Kept = append(out.report.Kept, authoritiesConf)
		}
	}
	ours := slices.Clone(d.ours)
	for _, name := range slices.Sorted(maps.Keys(d.local)) {
		ours = append(ours, d.local[name])
		if file := path.Join(authorities, name); d.copied && out.paths[file].side == nowhere {
			out.makeDir(path.Dir(path.Dir(file)))
			out.makeDir(path.Dir(file))
			out.paths[file] = resultPath{side: current, content: d.local[name],
				entry: entry{kind: kindFile, mode: 0o644, sum: sumOf(d.local[name])}}
			out.report.Added = append(out.report.Added, file)
		}
	}
	for name, text := range d.bundles {
		p, ok := out.paths[name]
		if bundle := addCertificates(text, ours); ok && p.side == image && p.entry.kind == kindFile {
			if !bytes.Equal(bundle, text) {
				p.content = bundle
				out.paths[name] = p
			}
		}
	}
	var names []byte
	for _, r := range d.rules {
		if len(r.Run) > 0 && out.mustDerive(r, d.rules, len(d.local) > 0 && len(r.Bundle) > 0, x) {
			names = append(names, r.Name+"\n"...)
		}
	}
	if names != nil {
		out.paths[toDerive] = resultPath{side: current, entry: entry{kind: kindFile, mode: 0o644}, content: names}
	}
}

// placeMergedList lists what has changes of both sides, now or since a former merge.
func (out *outcome) placeMergedList(former []string, x listing) {
	list := slices.Clone(out.report.Merged)
	for _, name := range former {
		p, ok := out.paths[name]
		if was, inX := x[name]; ok && name != "" && p.side == current && inX && !same(p.entry, was, true, true) {
			list = append(list, name)
		}
	}
	if slices.Sort(list); len(list) > 0 {
		text := []byte(strings.Join(slices.Compact(list), "\n") + "\n")
		out.paths[mergedList] = resultPath{side: current, entry: entry{kind: kindFile, mode: 0o644}, content: text}
	}
}

// mustDerive reports whether a source of a rule is not as in the image.
func (out *outcome) mustDerive(r derived.Rule, rules derived.List, local bool, x listing) bool {
	for name, p := range out.paths {
		e := p.entry
		if e.kind == kindDir || !r.Uses(name) || rules.Makes(name, e.target, e.kind == kindLink) {
			continue
		}
		if was, ok := x[name]; !ok || p.content != nil || e.contentOf() != was.contentOf() {
			return true
		}
	}
	for name, e := range x { // removed on the host
		if _, ok := out.paths[name]; !ok && e.kind != kindDir && r.Uses(name) {
			return true
		}
	}
	return local
}

// makeDir adds a directory to the result if it is not there.
func (out *outcome) makeDir(name string) {
	if out.paths[name].side == nowhere {
		out.paths[name] = resultPath{side: current, entry: entry{kind: kindDir, mode: 0o755}}
	}
}
