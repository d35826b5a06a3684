package etc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/authorities"
	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// derivation is what a merge knows about derived files besides the three sides.
type derivation struct {
	rules   derived.List
	local   map[string][]byte // Dir that are not in /etc, by the name of their file
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
	text, err := listing.ReadText(in.Current, derived.HostFile, rootfs.MaxConfig)
	if err != nil {
		return d, err
	}
	own, err := derived.Parse(string(text))
	if err != nil {
		cur.Notes = append(cur.Notes, fmt.Sprintf("%s is not used: %v", derived.HostFile, err))
	}
	d.rules = append(slices.Clone(d.rules), own...)
	if in.Host != "" {
		d.readLocal(in)
	}
	d.newInstance = in.State != "" && !isInstance(in.State, in.Sources.Kept)
	for name, e := range cur.Tree {
		if e.Kind == listing.File && authorities.Dirs.Has(name) && len(d.ours) < authorities.Max {
			text, err := listing.ReadStart(in.Current, name, rootfs.MaxConfig)
			if err != nil {
				return d, err
			}
			d.ours = append(d.ours, text)
		}
	}
	for _, name := range d.rules.Bundles() {
		if text, err := listing.ReadText(in.Next, name, authorities.MaxBundle); err == nil && text != nil {
			d.bundles[name] = text
		}
	}
	merged, err := listing.ReadText(in.Current, reserved.MergedList, rootfs.MaxConfig)
	if err != nil {
		return d, err
	}
	d.merged = strings.Split(string(merged), "\n")
	image := rootfs.Dir(filepath.Dir(in.Next))
	for name, e := range cur.Tree {
		kept := func(dir string) bool { return paths.IsUnder(e.Target, dir) }
		if path.Dir(name) == "alternatives" && e.Kind == listing.Link && path.IsAbs(e.Target) &&
			!slices.ContainsFunc(in.Sources.Kept, kept) && !image.Exists(e.Target) {
			d.gone[name] = true
		}
	}
	return d, nil
}

// LocalAuthorities returns a digest of the host's own authorities that are not in /etc.
func LocalAuthorities(in Inputs) (string, error) {
	_, texts := localAuthorities(in)
	list, err := json.Marshal(texts)
	return listing.Sum(list), err
}

// localAuthorities returns the host's own authorities that are not in /etc by the path of their file, and whether every
// root keeps them.
func localAuthorities(in Inputs) (kept bool, texts map[string][]byte) {
	kept = slices.ContainsFunc(in.Sources.Kept, func(k string) bool { return paths.IsUnder(authorities.LocalShare, k) })
	host := rootfs.Dir(in.Host)
	if kept && in.State != "" {
		host = rootfs.Dir(in.State)
	}
	files := host.Names(authorities.LocalShare)
	for _, dir := range host.Names(authorities.LocalShare) {
		for _, name := range host.Names(path.Join(authorities.LocalShare, dir)) {
			files = append(files, path.Join(dir, name))
		}
	}
	texts = map[string][]byte{}
	for _, name := range files {
		if path.Ext(name) != ".crt" || len(texts) == authorities.Max {
			continue
		}
		text, err := host.ReadFile(path.Join(authorities.LocalShare, name), rootfs.MaxConfig)
		if err == nil && len(authorities.Certificates(text)) > 0 {
			texts[name] = text
		}
	}
	return kept, texts
}

// readLocal reads the host's own authorities that are not in /etc. Those of the old image are no change of the host.
func (d *derivation) readLocal(in Inputs) {
	kept, texts := localAuthorities(in)
	for name, text := range texts {
		if in.Old != "" {
			shipped, err := rootfs.Dir(filepath.Dir(in.Old)).ReadFile(path.Join(authorities.LocalShare, name), rootfs.MaxConfig)
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
func (d derivation) hideDerived(o, c, x listing.Tree, rep *Report) {
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
		case reserved.Notes.Has(name):
			unchanged(name)
		case d.rules.Makes(name, e.Target, e.Kind == listing.Link):
			unchanged(name)
		case d.gone[name] && inX && !listing.Same(e, x[name], true, true):
			rep.note(fmt.Sprintf("%s: %s is not in the image; the image's choice is used", name, e.Target))
			unchanged(name)
		case name == authorities.Conf && e.Kind == listing.File && inX && x[name].Kind == listing.File:
			unchanged(name)
		}
	}
	for name, e := range o { // removed on the host
		if _, inC := c[name]; !inC && d.rules.Makes(name, e.Target, e.Kind == listing.Link) {
			c[name] = e
		}
	}
}

// placeDerived puts the host's authorities into the result, and the list of what has to be made anew in the new root.
func (out *outcome) placeDerived(d derivation, x listing.Tree, oldConf, curConf, nextConf []byte) {
	if p, ok := out.paths[authorities.Conf]; ok && p.side == image && curConf != nil && nextConf != nil {
		if conf := authorities.MergeConf(oldConf, curConf, nextConf); !bytes.Equal(conf, nextConf) {
			p.content = conf
			out.paths[authorities.Conf] = p
			out.report.Kept = append(out.report.Kept, authorities.Conf)
		}
	}
	ours := slices.Clone(d.ours)
	for _, name := range slices.Sorted(maps.Keys(d.local)) {
		ours = append(ours, d.local[name])
		if file := path.Join(authorities.Dir, name); d.copied && out.paths[file].side == nowhere {
			out.makeDir(path.Dir(path.Dir(file)))
			out.makeDir(path.Dir(file))
			out.paths[file] = madeFile(d.local[name])
			out.report.Added = append(out.report.Added, file)
		}
	}
	for name, text := range d.bundles {
		p, ok := out.paths[name]
		if bundle := authorities.Add(text, ours); ok && p.side == image && p.entry.Kind == listing.File {
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
		out.paths[reserved.ToDerive] = madeFile(names)
	}
}

// placeMergedList lists what has changes of both sides, now or since a former merge.
func (out *outcome) placeMergedList(former []string, x listing.Tree) {
	list := slices.Clone(out.report.Merged)
	for _, name := range former {
		p, ok := out.paths[name]
		if was, inX := x[name]; ok && name != "" && p.side == current && inX && !listing.Same(p.entry, was, true, true) {
			list = append(list, name)
		}
	}
	if slices.Sort(list); len(list) > 0 {
		text := []byte(strings.Join(slices.Compact(list), "\n") + "\n")
		out.paths[reserved.MergedList] = madeFile(text)
	}
}

// mustDerive reports whether a source of a rule is not as in the image.
func (out *outcome) mustDerive(r derived.Rule, rules derived.List, local bool, x listing.Tree) bool {
	for name, p := range out.paths {
		e := p.entry
		if e.Kind == listing.Dir || !r.Uses(name) || rules.Makes(name, e.Target, e.Kind == listing.Link) {
			continue
		}
		if was, ok := x[name]; !ok || p.content != nil || e.Content() != was.Content() {
			return true
		}
	}
	for name, e := range x { // removed on the host
		if _, ok := out.paths[name]; !ok && e.Kind != listing.Dir && r.Uses(name) {
			return true
		}
	}
	return local
}

// madeFile is a file that the merge makes.
func madeFile(text []byte) resultPath {
	e := listing.Entry{Kind: listing.File, Mode: 0o644, Sum: listing.Sum(text)}
	return resultPath{side: current, entry: e, content: text}
}

// makeDir adds a directory to the result if it is not there.
func (out *outcome) makeDir(name string) {
	if out.paths[name].side == nowhere {
		out.paths[name] = resultPath{side: current, entry: listing.Entry{Kind: listing.Dir, Mode: 0o755}}
	}
}
