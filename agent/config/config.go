// Package config answers what the operator wants: the merged configuration, and the policy that it makes.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/level"
)

var (
	// ErrConfig: the configuration cannot be used as it is.
	ErrConfig = errors.New("the configuration is not valid")
)

// Config is what the operator wants. Its TOML form is documented in configs/updatectl.toml.
type Config struct {
	Source struct {
		// Image is a registry reference, oci:DIR[:tag], or oci-archive:FILE[:tag].
		Image string `toml:"image" json:"image"`
		// Mirrors are more references to it, asked in this order when Image fails.
		Mirrors []string `toml:"mirrors" json:"mirrors"`
		// PlainHTTP lists registry hosts that are spoken to without TLS.
		PlainHTTP []string `toml:"plain-http" json:"plain_http"`
		// Compatible is the class of this machine: of a release, images for it or for every machine are taken.
		Compatible string `toml:"compatible" json:"compatible"`
	} `toml:"source" json:"source"`
	Verify struct {
		// Keys are files with PEM public keys.
		Keys []string `toml:"keys" json:"keys"`
		// Threshold is how many different signers must have signed.
		Threshold int `toml:"threshold" json:"threshold"`
		// Key lists keys that there is more to say about; Identity who signs without one.
		Key      []KeyRule      `toml:"key,omitempty" json:"key,omitempty"`
		Identity []IdentityRule `toml:"identity,omitempty" json:"identity,omitempty"`
	} `toml:"verify" json:"verify"`
	State  State `toml:"state" json:"state"`
	Switch struct {
		// Level is auto, soft or full.
		Level string `toml:"level" json:"level"`
		// ShutdownDeadline is how long the services of the root that is left may take to stop.
		ShutdownDeadline Duration `toml:"shutdown-deadline" json:"shutdown_deadline"`
		// Stuck is what is done when they take longer: cancel or escalate.
		Stuck string `toml:"stuck" json:"stuck"`
		// Fallback is what level auto does when a check asks for a full reboot: refuse or full.
		Fallback string `toml:"fallback" json:"fallback"`
		// MaxKernelAge is how long after its boot a kernel may go on with soft reboots; 0 is for ever.
		MaxKernelAge Duration `toml:"max-kernel-age,omitzero" json:"max_kernel_age,omitzero"`
	} `toml:"switch" json:"switch"`
	LivePatch struct {
		// Enabled has live patches fetched and loaded by apply, after a switch and at boot.
		Enabled bool `toml:"enabled" json:"enabled"`
		// Deadline is how long a transition may take, and taking it back.
		Deadline Duration `toml:"deadline" json:"deadline"`
	} `toml:"livepatch" json:"livepatch"`
	Health struct {
		// Deadline is how long a new root has to become good.
		Deadline Duration `toml:"deadline" json:"deadline"`
		// The rest is what health.Config says of it.
		CheckDeadline Duration `toml:"check-deadline" json:"check_deadline"`
		Settle        Duration `toml:"settle" json:"settle"`
		Active        []string `toml:"active" json:"active"`
		Ports         []string `toml:"ports" json:"ports"`
		Reachable     string   `toml:"reachable" json:"reachable"`
		Ignore        []string `toml:"ignore" json:"ignore"`
	} `toml:"health" json:"health"`

	// Files lists the files that were read, in order.
	Files []string `toml:"-" json:"files"`

	places map[string]string `toml:"-"` // where each key was set last
}

// State is what a root has from the host.
type State struct {
	// Persist lists directories that belong to the host and not to the image.
	Persist []string `toml:"persist" json:"persist"`
	// Adopt lists more paths below /etc that the first image takes over from the mutable host.
	Adopt []string `toml:"adopt" json:"adopt"`
	// ImageOwned lists paths below the state that describe the image and come from it.
	ImageOwned []string `toml:"image-owned" json:"image_owned"`
}

// What is done about a shutdown that takes longer than its deadline.
const (
	StuckCancel   = "cancel"   // the host goes on in the root it is in
	StuckEscalate = "escalate" // what does not stop is killed
)

// Duration is a time span written as Go does: "90s", "5m".
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v <= 0 {
		err = errors.New("it must be more than zero")
	}
	*d = Duration(v)
	return err
}

// MarshalText writes a duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Default is the configuration before any file is read.
func Default() Config {
	var c Config
	c.Files = []string{} // in JSON, no list is null
	c.Source.Mirrors, c.Source.PlainHTTP = []string{}, []string{}
	c.Verify.Keys, c.Verify.Threshold = []string{}, 1
	c.State.Adopt = []string{}
	c.Health.Active, c.Health.Ports, c.Health.Ignore = []string{}, []string{}, []string{}
	c.State.Persist = []string{"/var", "/home", "/root", "/srv"}
	c.State.ImageOwned = []string{"/var/lib/dpkg", "/var/lib/rpm", "/var/lib/pacman"}
	c.Switch.Level, c.Switch.Fallback = string(level.Auto), FallbackRefuse
	c.Switch.ShutdownDeadline, c.Switch.Stuck = Duration(2*time.Minute), StuckCancel
	h := health.DefaultConfig()
	c.Health.Deadline, c.Health.CheckDeadline, c.Health.Settle = Duration(h.Deadline), Duration(h.CheckDeadline), Duration(h.Settle)
	c.Health.Reachable = h.Reachable
	c.LivePatch.Enabled, c.LivePatch.Deadline = true, livePatchDeadline
	return c
}

// livePatchDeadline is the default of [livepatch] deadline: most transitions take seconds.
const livePatchDeadline = Duration(time.Minute)

// configPlaces are read in this order; a later file overrides an earlier one key by key.
var configPlaces = []string{
	"/usr/lib/updatectl/conf.d/*.toml", "/etc/updatectl/updatectl.toml",
	"/etc/updatectl/conf.d/*.toml", "/run/updatectl/conf.d/*.toml",
}

// Load reads and merges the configuration, or only the given file when it is not "". Path tells where a file of the
// host lies for this process.
func Load(path func(string) string, file string) (Config, error) {
	files := []string{file}
	if file == "" {
		var err error
		if files, err = configFiles(path); err != nil {
			return Default(), err
		}
	}
	return loadFiles(files, false)
}

// errUnknownKey is part of the error about a file that can be used but for a key that this agent does not know.
var errUnknownKey = errors.New("unknown key")

// loadFiles reads and merges files over the defaults; with lenient, keys that are not known are passed over.
func loadFiles(files []string, lenient bool) (Config, error) {
	c := Default()
	c.LivePatch.Deadline = 0
	for _, f := range files {
		if err := c.read(f); err != nil && !(lenient && errors.Is(err, errUnknownKey)) {
			return c, err
		}
	}
	if c.LivePatch.Deadline == 0 { // no file names it, so that it gives way to a short time for a new root
		c.LivePatch.Deadline = min(livePatchDeadline, c.Health.Deadline/2)
	}
	return c, c.validate()
}

// LoadUsable is what can be used of a configuration with faults: the keys that are known, of the files that can be read.
func LoadUsable(path func(string) string) (Config, error) {
	files, err := configFiles(path)
	var usable []string
	for _, f := range files {
		if _, err := loadFiles(append(usable, f), true); err == nil {
			usable = append(usable, f)
		}
	}
	c, _ := loadFiles(usable, true) // it was loaded before
	return c, err
}

func configFiles(path func(string) string) ([]string, error) {
	var files []string
	for _, place := range configPlaces {
		found, err := filepath.Glob(path(place)) // sorted by name
		if err != nil {
			return nil, fmt.Errorf("cannot look for configuration: %w", err)
		}
		files = append(files, found...)
	}
	return files, nil
}

// maxConfig bounds a configuration file; a real one has a few hundred bytes.
const maxConfig = 1 << 20

func (c *Config) read(file string) error {
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s does not exist", ErrConfig, file)
	}
	if err != nil {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	if st.Size() > maxConfig {
		return fmt.Errorf("%w: %s is larger than %d bytes", ErrConfig, file, maxConfig)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	if err := c.decode(file, string(text)); err != nil {
		return err
	}
	c.Files = append(c.Files, file)
	return nil
}

// decode merges one fragment. Every complaint carries the file and the line.
func (c *Config) decode(file, text string) error {
	// The library would fill the entries of an earlier file's list field by field.
	keys, identities := c.Verify.Key, c.Verify.Identity
	c.Verify.Key, c.Verify.Identity = nil, nil
	meta, err := toml.Decode(text, c)
	if err != nil {
		return fmt.Errorf("%w: %s%s", ErrConfig, file, complaint(err))
	}
	c.inherit(keys, identities, meta)
	c.note(file, text, meta)
	var unknown []error
	for _, key := range meta.Undecoded() {
		unknown = append(unknown, fmt.Errorf("%w: %s:%d: %w %s%s", ErrConfig, file, lineOf(text, key), errUnknownKey, key, didYouMean(key)))
	}
	return errors.Join(unknown...)
}

// note keeps where a fragment sets the keys that are known: those of tables, once each.
func (c *Config) note(file, text string, meta toml.MetaData) {
	places, passed := map[string]string{}, map[string]bool{}
	for _, key := range meta.Undecoded() {
		passed[key.String()] = true
	}
	for _, key := range meta.Keys() {
		name := key.String()
		if passed[name] || len(key) != 2 {
			continue
		}
		if _, again := places[name]; again { // of one of several tables
			places[name] = file
			continue
		}
		places[name] = file
		if line := lineOf(text, key); line > 0 {
			places[name] = fmt.Sprintf("%s:%d", file, line)
		}
	}
	if c.places == nil {
		c.places = map[string]string{}
	}
	maps.Copy(c.places, places)
}

// positioned is how the library writes an error whose position it keeps in the text only.
var positioned = regexp.MustCompile(`(?s)^toml: line (\d+)(?: \(last key "([^"]*)"\))?: (.*)$`)

// complaint writes the library's error as ":LINE: KEY: what is wrong".
func complaint(err error) string {
	var parse toml.ParseError
	if errors.As(err, &parse) && parse.Message != "" {
		key := ""
		if parse.LastKey != "" {
			key = parse.LastKey + ": "
		}
		return fmt.Sprintf(":%d: %s%s", parse.Position.Line, key, parse.Message)
	}
	if m := positioned.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Sprintf(":%s: %s: %s", m[1], m[2], m[3])
	}
	return ": " + err.Error()
}

var tableHeader = regexp.MustCompile(`^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$`)

// lineOf finds the line of a key; the library keeps positions for itself. 0 when it stands in an unusual form.
func lineOf(text string, key toml.Key) int {
	table, want := "", key.String()
	for i, line := range strings.Split(text, "\n") {
		if m := tableHeader.FindStringSubmatch(line); m != nil {
			table = m[1]
			if table == want {
				return i + 1
			}
			continue
		}
		name, _, assigned := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if assigned && (table == "" && name == want || table != "" && table+"."+name == want) {
			return i + 1
		}
	}
	return 0
}

// didYouMean names the keys that exist where an unknown one stood.
func didYouMean(key toml.Key) string {
	known := keysOf(reflect.TypeFor[Config](), key[:len(key)-1])
	if len(known) == 0 {
		return ""
	}
	return "; known here: " + strings.Join(known, ", ")
}

func keysOf(t reflect.Type, path []string) []string {
	var names []string
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if tag == "-" {
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if len(path) > 0 && tag == path[0] && inner.Kind() == reflect.Struct {
			return keysOf(inner, path[1:])
		}
		names = append(names, tag)
	}
	if len(path) > 0 {
		return nil
	}
	return names
}

// Where is where a key was set last, as "FILE:LINE: "; "" where no file sets it.
func (c *Config) Where(key string) string {
	if place, ok := c.places[key]; ok {
		return place + ": "
	}
	return ""
}

// validate finds everything that is wrong with the values.
func (c *Config) validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s%w", ErrConfig, c.Where(key), fmt.Errorf(format, args...)))
	}
	if _, err := level.ParseLevel(c.Switch.Level); err != nil {
		fault("switch.level", "[switch] level: %w", err)
	}
	if s := c.Switch.Stuck; s != StuckCancel && s != StuckEscalate {
		fault("switch.stuck", "[switch] stuck is %q and must be %s or %s", s, StuckCancel, StuckEscalate)
	}
	if f := c.Switch.Fallback; f != FallbackRefuse && f != FallbackFull {
		fault("switch.fallback", "[switch] fallback: cannot use %q: it is one of refuse, full", f)
	}
	if c.Verify.Threshold < 1 {
		fault("verify.threshold", "[verify] threshold is %d and must be at least 1", c.Verify.Threshold)
	}
	if _, err := source.Open("oci:/", source.Options{Mirrors: c.Source.Mirrors}); errors.Is(err, source.ErrReference) {
		fault("source.mirrors", "[source] mirrors: %w", err)
	}
	if c.Source.Compatible != "" {
		if _, err := release.ParseClass(c.Source.Compatible); err != nil {
			fault("source.compatible", "[source] compatible: %w", err)
		}
	}
	if err := c.HealthGate().Validate(); err != nil {
		key, _, _ := strings.Cut(err.Error(), ":")
		fault("health."+key, "[health] %w", err)
	}
	if l, h := c.LivePatch.Deadline, c.Health.Deadline; c.LivePatch.Enabled && l >= h {
		fault("livepatch.deadline", "[livepatch] deadline is %v and must be less than [health] deadline, %v: a live patch that stalls would use up the time in which a new root has to become good",
			time.Duration(l), time.Duration(h))
	}
	c.validateState(fault)
	return errors.Join(faults...)
}

func (c *Config) validateState(fault func(key, format string, args ...any)) {
	absolute := func(key string, paths []string) {
		for _, p := range paths {
			if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
				fault("state."+key, "[state] %s: %q is not a clean absolute path below /", key, p)
			}
		}
	}
	absolute("persist", c.State.Persist)
	absolute("image-owned", c.State.ImageOwned)
	for _, p := range c.State.Persist {
		if slices.Contains([]string{"/etc", "/usr", "/boot", "/dev", "/proc", "/sys", "/run", "/bin", "/sbin", "/lib", "/lib64"}, p) {
			fault("state.persist", "[state] persist: %s cannot belong to the host: it comes from the image or the kernel", p)
		}
	}
	if !slices.Contains(c.State.Persist, "/var") {
		fault("state.persist", "[state] persist must contain /var: the roots and the record live there")
	}
}

// AdoptedPaths is the list of paths below /etc that the first image takes over from the mutable host.
func (c Config) AdoptedPaths() []string { return slices.Concat(etc.DefaultAdopt, c.State.Adopt) }

// HealthGate is the [health] table as the gate takes it.
func (c Config) HealthGate() health.Config {
	h := c.Health
	return health.Config{
		Deadline: time.Duration(h.Deadline), CheckDeadline: time.Duration(h.CheckDeadline), Settle: time.Duration(h.Settle),
		Active: h.Active, Ports: h.Ports, Reachable: h.Reachable, Ignore: h.Ignore,
	}
}

// What auto does when a check says that only a full reboot will do.
const (
	FallbackRefuse = "refuse"
	FallbackFull   = "full"
)
