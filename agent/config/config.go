// Package config answers what the operator wants: the merged configuration, and the signature policy made from it. It
// promises that a configuration it returns without an error is valid as a whole, and that every error about a key
// names the file and, if it can, the line.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/docker/go-units"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/registry"
	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/switcher/etc/adopted"
	"github.com/updatectl/updatectl/switcher/level"
)

// ErrConfig means that the configuration cannot be used as it is.
var ErrConfig = errors.New("the configuration is not valid")

// ErrUnreadable means that a file is missing, is not TOML, or has a value of a wrong type. It is an ErrConfig, and what
// else the file would set is unknown.
var ErrUnreadable = fmt.Errorf("%w", ErrConfig)

// Config is what the operator wants. Its TOML form is documented in configs/updatectl.toml.
type Config struct {
	Source struct {
		// Image is a registry reference, oci:DIR[:tag], or oci-archive:FILE[:tag].
		Image string `toml:"image" json:"image"`
		// Mirrors are more references to the same image, asked in this order when Image fails.
		Mirrors []string `toml:"mirrors" json:"mirrors"`
		// PlainHTTP lists registry hosts that are asked over HTTP, without TLS.
		PlainHTTP []string `toml:"plain-http" json:"plain_http"`
		// MinRate is the rate of a transfer below which a place is given up, per second over a minute. MaxRate is the
		// most that all transfers take together, per second; 0 means all that they get. FetchDeadline is how long
		// fetching may take in total.
		MinRate       Bytes    `toml:"min-rate" json:"min_rate"`
		MaxRate       Bytes    `toml:"max-rate,omitzero" json:"max_rate,omitzero"`
		FetchDeadline Duration `toml:"fetch-deadline" json:"fetch_deadline"`
		// Compatible is the class of this machine. Of a release, the host takes an image for this class or for all.
		Compatible string `toml:"compatible" json:"compatible"`
		// Stream is the stream of releases that the host follows, "" for any. The host takes no other.
		Stream string `toml:"stream" json:"stream"`
	} `toml:"source" json:"source"`
	Verify struct {
		// Keys are files with PEM public keys.
		Keys []string `toml:"keys" json:"keys"`
		// Threshold is how many different signers must have signed.
		Threshold int `toml:"threshold" json:"threshold"`
		// RevokedRoots is what a full reboot does about a last good root that a revoked key signed: warn or refuse.
		RevokedRoots string `toml:"revoked-roots" json:"revoked_roots"`
		// Key lists keys with rules of their own; Identity lists signers without a key (keyless signing).
		Key      []KeyRule      `toml:"key,omitempty" json:"key,omitempty"`
		Identity []IdentityRule `toml:"identity,omitempty" json:"identity,omitempty"`
		// Restrictions are rules of Key that a later file left out. They make no key count, and restrict those that do.
		Restrictions []KeyRule `toml:"-" json:"restrictions,omitempty"`
	} `toml:"verify" json:"verify"`
	Store struct {
		// Verity is auto or require.
		Verity string `toml:"verity" json:"verity"`
	} `toml:"store" json:"store"`
	State  State `toml:"state" json:"state"`
	Switch struct {
		// Level is auto, soft or full.
		Level string `toml:"level" json:"level"`
		// ShutdownDeadline is how long the services of the root that is left may take to stop.
		ShutdownDeadline Duration `toml:"shutdown-deadline" json:"shutdown_deadline"`
		// Stuck is what is done if they take longer: cancel or escalate.
		Stuck string `toml:"stuck" json:"stuck"`
		// Fallback is what level auto does if a check asks for a full reboot: refuse or full.
		Fallback string `toml:"fallback" json:"fallback"`
		// MaxKernelAge is how long a kernel may run before the next switch has to be a full reboot; 0 is no limit.
		MaxKernelAge Duration `toml:"max-kernel-age,omitzero" json:"max_kernel_age,omitzero"`
		// Hold lists the TCP ports at which connections are held during a switch, see [HoldRule].
		Hold []string `toml:"hold,omitempty" json:"hold,omitempty"`
		// HoldFirewall makes connections from other hosts wait while the packet filter of the host is away.
		HoldFirewall bool `toml:"hold-firewall" json:"hold_firewall"`
	} `toml:"switch" json:"switch"`
	Boot struct {
		// Kernel is which kernel the full reboot of a switch starts: that of the image, or the host's own.
		Kernel string `toml:"kernel" json:"kernel"`
	} `toml:"boot" json:"boot"`
	LivePatch struct {
		// Enabled makes apply fetch and load live patches, and loads them after a switch and at boot.
		Enabled bool `toml:"enabled" json:"enabled"`
		// Deadline is how long the transition of a live patch may take, and again its reversal.
		Deadline Duration `toml:"deadline" json:"deadline"`
	} `toml:"livepatch" json:"livepatch"`
	Health struct {
		// Deadline is how long a new root has to become good.
		Deadline Duration `toml:"deadline" json:"deadline"`
		// The other fields are documented in [health.Config].
		CheckDeadline Duration `toml:"check-deadline" json:"check_deadline"`
		Settle        Duration `toml:"settle" json:"settle"`
		Active        []string `toml:"active" json:"active"`
		Ports         []string `toml:"ports" json:"ports"`
		Reachable     string   `toml:"reachable" json:"reachable"`
		Ignore        []string `toml:"ignore" json:"ignore"`
	} `toml:"health" json:"health"`

	// Keep lists the units that a switch hands over to the next root.
	Keep []KeepRule `toml:"keep,omitempty" json:"keep,omitempty"`

	// What hosts need that update unattended, alone or in a fleet.
	Schedule  Schedule  `toml:"schedule" json:"schedule"`
	Fleet     Fleet     `toml:"fleet" json:"fleet"`
	Rollout   Rollout   `toml:"rollout" json:"rollout"`
	FleetLock FleetLock `toml:"fleetlock" json:"fleetlock"`
	Hooks     Hooks     `toml:"hooks" json:"hooks"`
	Metrics   Metrics   `toml:"metrics" json:"metrics"`

	// Files lists the files that were read, in order.
	Files []string `toml:"-" json:"files"`

	places map[string]string `toml:"-"` // where each key was set last: FILE:LINE or FILE
}

// State is what a root gets from the host.
type State struct {
	// Persist lists directories that belong to the host and not to the image.
	Persist []string `toml:"persist" json:"persist"`
	// Adopt lists more paths below /etc that the first image takes over from the host root.
	Adopt []string `toml:"adopt" json:"adopt"`
	// ImageOwned lists paths below Persist that describe the image and come from it, such as package databases, and what
	// was compiled from its files.
	ImageOwned []string `toml:"image-owned" json:"image_owned"`
}

// KeepRule names a unit that a switch hands over to the next root: a service with a store of file descriptors, a
// socket, or a service whose processes go on.
type KeepRule struct {
	Unit string `toml:"unit" json:"unit"`
}

// KeptUnits returns the names of the units that a switch hands over.
func (c Config) KeptUnits() []string {
	var names []string
	for _, k := range c.Keep {
		names = append(names, k.Unit)
	}
	return names
}

// The values of [switch] stuck: what is done about a shutdown that takes longer than its deadline.
const (
	StuckCancel   = "cancel"   // cancel the shutdown: the host stays in its root
	StuckEscalate = "escalate" // kill the services that do not stop
)

// The values of [store] verity: what happens to an image that the kernel cannot verify while it runs.
const (
	VerityAuto    = "auto"    // it is checked when it is staged and when it is switched to
	VerityRequire = "require" // it is not switched to
)

// The values of [verify] revoked-roots: what is done if a revoked key signed the root that the host would resume.
const (
	RevokedWarn   = "warn"   // resume it all the same
	RevokedRefuse = "refuse" // stay on the host root
)

// Duration is a time span, written as in Go: "90s", "5m".
type Duration time.Duration

// UnmarshalText reads a duration. Zero and less is an error.
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

// Bytes is a number of bytes, written with a unit: "1KiB", "10MB".
type Bytes int64

// UnmarshalText reads a number of bytes. Zero and less is an error.
func (b *Bytes) UnmarshalText(text []byte) error {
	parse := units.FromHumanSize
	if strings.HasSuffix(string(text), "iB") {
		parse = units.RAMInBytes
	}
	v, err := parse(string(text))
	if err == nil && v <= 0 {
		err = errors.New("it must be more than zero")
	}
	*b = Bytes(v)
	return err
}

// MarshalText writes a number of bytes.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String returns a number of bytes with a unit.
func (b Bytes) String() string {
	text := units.CustomSize("%g %s", float64(b), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
	return strings.ReplaceAll(text, " ", "")
}

// Default returns the configuration before any file is read.
func Default() Config {
	var c Config
	c.Files = []string{} // in JSON, no list is null
	c.Source.Mirrors, c.Source.PlainHTTP = []string{}, []string{}
	c.Source.MinRate, c.Source.FetchDeadline = registry.DefaultRate, Duration(72*time.Hour)
	c.Verify.Keys, c.Verify.Threshold, c.Verify.RevokedRoots = []string{}, 1, RevokedWarn
	c.Store.Verity = VerityAuto
	c.State.Adopt = []string{}
	c.Health.Active, c.Health.Ports, c.Health.Ignore = []string{}, []string{}, []string{}
	c.State.Persist = []string{"/var", "/home", "/root", "/srv"}
	c.State.ImageOwned = []string{"/var/lib/dpkg", "/var/lib/rpm", "/var/lib/pacman", "/var/cache/apparmor"}
	c.Switch.Level, c.Switch.Fallback = string(level.Auto), FallbackRefuse
	c.Boot.Kernel = KernelHost
	c.Switch.ShutdownDeadline, c.Switch.Stuck = Duration(2*time.Minute), StuckCancel
	h := health.DefaultConfig()
	c.Health.Deadline, c.Health.CheckDeadline = Duration(h.Deadline), Duration(h.CheckDeadline)
	c.Health.Settle, c.Health.Reachable = Duration(h.Settle), h.Reachable
	c.LivePatch.Enabled, c.LivePatch.Deadline = true, livePatchDeadline
	c.defaultFleet()
	return c
}

// livePatchDeadline is the default of [livepatch] deadline. Most transitions take seconds.
const livePatchDeadline = Duration(time.Minute)

// configPlaces are read in this order; a later file overrides an earlier one key by key.
var configPlaces = []string{
	"/usr/lib/updatectl/conf.d/*.toml", "/etc/updatectl/updatectl.toml",
	"/etc/updatectl/conf.d/*.toml", "/run/updatectl/conf.d/*.toml",
}

// Load returns the merged configuration of the host, or that of a single file unless file is "". path returns the path
// of a file of the host as this process sees it. The error is an [ErrConfig], unless a file cannot be read.
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

// errUnknownKey: a file has a key that this agent does not know. Without that key, the file can be used.
var errUnknownKey = errors.New("unknown key")

// loadFiles reads files and merges them over the defaults, in order. If lenient, it ignores unknown keys and who can
// change the files.
func loadFiles(files []string, lenient bool) (Config, error) {
	c := Default()
	c.LivePatch.Deadline = 0
	var faults []error
	for _, f := range files {
		if err := c.readFile(f, lenient); err != nil && !(lenient && errors.Is(err, errUnknownKey)) {
			faults = append(faults, err)
		}
	}
	if slices.ContainsFunc(faults, func(err error) bool { return !errors.Is(err, errUnknownKey) }) {
		return c, errors.Join(faults...) // what a missing file sets may be what another one needs
	}
	if c.LivePatch.Deadline == 0 { // no file sets it, so the default fits into a short [health] deadline
		c.LivePatch.Deadline = min(livePatchDeadline, c.Health.Deadline/2)
	}
	return c, errors.Join(append(faults, c.validate())...)
}

// LoadUsable is like [Load], but tolerates an invalid configuration: it ignores unknown keys, who can change the files,
// and whole files that are invalid. The only error left is a failure to look for the files.
func LoadUsable(path func(string) string) (Config, error) {
	files, err := configFiles(path)
	var usable []string
	for _, f := range files {
		if _, err := loadFiles(append(usable, f), true); err == nil {
			usable = append(usable, f)
		}
	}
	c, _ := loadFiles(usable, true) // these files were loaded above without an error
	return c, err
}

// configFiles returns the configuration files of the host, in the order in which they are read.
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

// maxConfig bounds a configuration file, in bytes. A real one has a few hundred.
const maxConfig = 1 << 20

// readFile merges one file over what was read before.
func (c *Config) readFile(file string, lenient bool) error {
	text, err := durable.ReadRegular(file, maxConfig)
	if err == nil && !lenient {
		err = owned.Check(file)
	}
	switch {
	case errors.Is(err, owned.ErrOthers):
		return fmt.Errorf("%w: root obeys %s, and %w", ErrConfig, file, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s does not exist", ErrUnreadable, file)
	case errors.Is(err, durable.ErrNotRegular), errors.Is(err, durable.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	case err != nil:
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	if err := c.decode(file, string(text)); err != nil {
		return err
	}
	c.Files = append(c.Files, file)
	return nil
}

// decode merges one fragment. Its errors name the file and the line.
func (c *Config) decode(file, text string) error {
	// Decoding over the list of an earlier file would merge its entries field by field.
	keys, identities := c.Verify.Key, c.Verify.Identity
	kept := c.Keep
	c.Verify.Key, c.Verify.Identity, c.Keep = nil, nil, nil
	meta, err := toml.Decode(text, c)
	if err != nil {
		return fmt.Errorf("%w: %s%s%s", ErrUnreadable, file, complaint(err), quotesMissing(text, err))
	}
	c.inherit(keys, identities, meta)
	if !meta.IsDefined("keep") {
		c.Keep = kept
	}
	c.notePlaces(file, text, meta)
	var unknown []error
	for _, key := range meta.Undecoded() {
		unknown = append(unknown, fmt.Errorf("%w: %s:%d: %w %s%s",
			ErrConfig, file, lineOf(text, key), errUnknownKey, key, knownKeys(key)))
	}
	return errors.Join(unknown...)
}

// notePlaces keeps where a fragment sets each known key of a table.
func (c *Config) notePlaces(file, text string, meta toml.MetaData) {
	places, unknown := map[string]string{}, map[string]bool{}
	for _, key := range meta.Undecoded() {
		unknown[key.String()] = true
	}
	for _, key := range meta.Keys() {
		name := key.String()
		if unknown[name] || len(key) != 2 {
			continue
		}
		if _, twice := places[name]; twice { // in an array of tables: no single line
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

// errorAtLine matches an error of the TOML library that has its position only in the text.
var errorAtLine = regexp.MustCompile(`(?s)^toml: line (\d+)(?: \(last key "([^"]*)"\))?: (.*)$`)

// bareDuration matches a line with a duration that lacks its quotes.
var bareDuration = regexp.MustCompile(`=\s*([0-9.]+(?:ns|us|ms|s|m|h|d)[0-9a-z.]*)\s*(?:#.*)?$`)

// quotesMissing returns the end of an error of the TOML library: what to write if its line has a bare duration, or "".
func quotesMissing(text string, err error) string {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return ""
	}
	lines := strings.Split(text, "\n")
	if n := parse.Position.Line; n >= 1 && n <= len(lines) {
		if m := bareDuration.FindStringSubmatch(strings.TrimSpace(lines[n-1])); m != nil {
			return fmt.Sprintf("; durations are quoted: %q", m[1])
		}
	}
	return ""
}

// complaint returns an error of the TOML library as ":LINE: KEY: what is wrong", to follow the name of the file.
func complaint(err error) string {
	var parse toml.ParseError
	if errors.As(err, &parse) && parse.Message != "" {
		key := ""
		if parse.LastKey != "" {
			key = parse.LastKey + ": "
		}
		return fmt.Sprintf(":%d: %s%s", parse.Position.Line, key, parse.Message)
	}
	if m := errorAtLine.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Sprintf(":%s: %s: %s", m[1], m[2], m[3])
	}
	return ": " + err.Error()
}

var tableHeader = regexp.MustCompile(`^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$`)

// lineOf returns the line of a key, which the TOML library does not tell: from 1, or 0 if the key is written in an
// unusual form.
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

// knownKeys returns the end of the error about an unknown key: which keys its table may have, "" if it may have none.
func knownKeys(key toml.Key) string {
	known := keysOf(reflect.TypeFor[Config](), key[:len(key)-1])
	if len(known) == 0 {
		return ""
	}
	return "; known here: " + strings.Join(known, ", ")
}

// keysOf returns the TOML keys of a struct type, or of the table at path in it; nil if there is no such table.
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

// Where returns where a key was set last, as "FILE:LINE: " or "FILE: "; "" if no file sets it.
func (c *Config) Where(key string) string {
	if place, ok := c.places[key]; ok {
		return place + ": "
	}
	return ""
}

// AdoptedPaths returns the paths below /etc that the first image takes over from the host root.
func (c Config) AdoptedPaths() []string { return slices.Concat(adopted.Default, c.State.Adopt) }

// HealthGate returns the [health] table in the form that the health gate takes.
func (c Config) HealthGate() health.Config {
	h := c.Health
	return health.Config{
		Deadline: time.Duration(h.Deadline), CheckDeadline: time.Duration(h.CheckDeadline),
		Settle: time.Duration(h.Settle), Active: h.Active, Ports: h.Ports, Reachable: h.Reachable, Ignore: h.Ignore,
	}
}

// The values of [switch] fallback: what level auto does if a check asks for a full reboot.
const (
	FallbackRefuse = "refuse"
	FallbackFull   = "full"
)

// The values of [boot] kernel.
const (
	KernelImage = "image"
	KernelHost  = "host"
)
