package lab

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

//go:embed modules
var moduleSources embed.FS

// builder returns the tree in which modules for the kernels of V1 and V2 are built.
func builder(ctx context.Context) (string, error) {
	packages := []string{"make"}
	for _, tree := range []func(context.Context) (string, error){V1, V2} {
		path, err := tree(ctx)
		if err != nil {
			return "", err
		}
		release, err := kernelOf(path)
		if err != nil {
			return "", err
		}
		packages = append(packages, "linux-headers-"+release)
	}
	return tree(ctx, "builder", recipe{Suites: []string{"trixie", "trixie-updates", "trixie-security"},
		Packages: packages})
}

// kernelOf returns the release of the only kernel of a tree.
func kernelOf(tree string) (string, error) {
	kernels, err := os.ReadDir(filepath.Join(tree, "usr/lib/modules"))
	if err != nil {
		return "", fmt.Errorf("cannot find the kernel of a tree: %w", err)
	}
	if len(kernels) != 1 {
		return "", fmt.Errorf("cannot find the kernel of %s: it has %d", tree, len(kernels))
	}
	return kernels[0].Name(), nil
}

// Modules returns the lab's own kernel modules for the kernel of a tree, [V1] or [V2], and builds them if they are not
// in the cache; inside the enclosure only. The result maps names to paths:
//
//	lab_fix        a live patch: /proc/version says "lab fix 1"
//	lab_fix2       its successor: "lab fix 2"
//	lab_fix_fails  a live patch whose init fails
//	lab_hold       no live patch; reading /proc/lab_hold blocks until somebody writes to it
//	lab_fix_hold   what lab_fix is, and a live patch of lab_hold, whose transition waits for all blocked readers
//	lab_plain      no live patch, and does nothing
//
// Each live patch is cumulative: it replaces those that are enabled.
func Modules(ctx context.Context, tree string) (map[string]string, error) {
	build, err := builder(ctx)
	if err != nil {
		return nil, err
	}
	release, err := kernelOf(tree)
	if err != nil {
		return nil, err
	}
	type source struct{ Name, Text string }
	recipe := struct {
		Builder, Release string
		Sources          []source
	}{filepath.Base(build), release, nil}
	files, err := moduleSources.ReadDir("modules")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := moduleSources.ReadFile("modules/" + f.Name())
		if err != nil {
			return nil, err
		}
		recipe.Sources = append(recipe.Sources, source{f.Name(), string(text)})
	}
	dir, err := keep(ctx, "modules", "kernel modules and live patches for "+release, recipe,
		func(ctx context.Context, path string) error {
			for _, s := range recipe.Sources {
				if err := writeFile(filepath.Join(path, s.Name), s.Text); err != nil {
					return err
				}
			}
			_, err := Tool(ctx, build, "make", "-C", "/usr/lib/modules/"+release+"/build", "M="+path,
				"-j"+strconv.Itoa(runtime.NumCPU()), "modules")
			return err
		})
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return nil, err
	}
	modules := map[string]string{}
	for _, path := range paths {
		modules[strings.TrimSuffix(filepath.Base(path), ".ko")] = path
	}
	return modules, nil
}

// A Kernel identifies the build of a kernel, to which a live patch is bound.
type Kernel struct {
	Release string // uname -r
	Version string // uname -v
	BuildID string // in hex
}

// Kernel returns the kernel that runs in the host.
func (h *Host) Kernel(ctx context.Context) (Kernel, error) {
	r := h.Sh(ctx, "uname -r; uname -v; cat /sys/kernel/notes")
	parts := strings.SplitN(r.Stdout, "\n", 3)
	if r.Code != 0 || len(parts) != 3 {
		return Kernel{}, fmt.Errorf("cannot ask host %s for its kernel: %s", h.Name, r)
	}
	id, err := buildID([]byte(parts[2]))
	if err != nil {
		return Kernel{}, fmt.Errorf("cannot read the kernel's notes: %w", err)
	}
	return Kernel{parts[0], parts[1], id}, nil
}

// buildID returns the GNU build id in hex from ELF notes, whose owners and descriptions are padded to four bytes.
func buildID(notes []byte) (string, error) {
	const header, gnuBuildID = 12, 3
	for len(notes) >= header {
		owner, desc := binary.LittleEndian.Uint32(notes), binary.LittleEndian.Uint32(notes[4:])
		kind := binary.LittleEndian.Uint32(notes[8:])
		start := header + int(owner+3)&^3
		end := start + int(desc)
		if end > len(notes) {
			break
		}
		if kind == gnuBuildID && string(notes[header:header+int(owner)]) == "GNU\x00" {
			return fmt.Sprintf("%x", notes[start:end]), nil
		}
		notes = notes[min(len(notes), (end+3)&^3):]
	}
	return "", errors.New("no GNU build id")
}
