package renew

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/configs"
)

// Action is what is done about a unit that a soft reboot does not treat as a boot does.
type Action string

// The actions, as configs/renew.conf explains them.
const (
	Renew    Action = "renew"
	Devices  Action = "devices"
	Keep     Action = "keep"
	Skip     Action = "skip"
	Tolerate Action = "tolerate"
)

// Rule is a line of the list: what is done about the units that match, and why.
type Rule struct {
	Pattern string
	Action  Action
	Reason  string
}

// Rules is a list; the first rule that matches a unit counts.
type Rules []Rule

// parseRules returns the rules of a list. The error names the lines that are none.
func parseRules(list string) (rules Rules, err error) {
	for line := range strings.Lines(list) {
		rule, reason, _ := strings.Cut(line, "#")
		fields := strings.Fields(rule)
		if len(fields) == 0 {
			continue
		}
		known := len(fields) == 2 &&
			slices.Contains([]Action{Renew, Devices, Keep, Skip, Tolerate}, Action(fields[1]))
		_, bad := path.Match(fields[0], "")
		if !known || bad != nil || !strings.Contains(fields[0], ".") {
			err = errors.Join(err, fmt.Errorf("%q is not a unit and what is done about it", strings.TrimSpace(rule)))
			continue
		}
		rules = append(rules, Rule{fields[0], Action(fields[1]), strings.TrimSpace(reason)})
	}
	return rules, err
}

// find returns the rule for a unit; the action is "" if there is none.
func (rs Rules) find(unit string) Rule {
	for _, r := range rs {
		if ok, err := path.Match(r.Pattern, unit); err == nil && ok {
			return r
		}
	}
	return Rule{}
}

// siteLists is where the host's own lists lie.
const siteLists = "/etc/updatectl/renew.d/*.conf"

// maxList bounds each of them, in bytes.
const maxList = 64 << 10

// rules returns the host's own rules, followed by the shipped ones. Lines and files that cannot be read are left out;
// the error names them.
func (r *Renewal) rules() (rules Rules, err error) {
	files, err := r.Machine.Disk.Glob(r.Path(siteLists))
	slices.Sort(files)
	for _, file := range files {
		text, ferr := r.Machine.Disk.ReadFile(file, maxList)
		if errors.Is(ferr, fs.ErrNotExist) {
			continue
		}
		list, perr := parseRules(string(text))
		if perr = errors.Join(ferr, perr); perr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", file, perr))
		}
		rules = append(rules, list...)
	}
	shipped, serr := parseRules(configs.Renew())
	return append(rules, shipped...), errors.Join(err, serr)
}

// Tolerated returns the units, as patterns, that a soft reboot may break and that the host works without.
func (r *Renewal) Tolerated() []string {
	rules, err := r.rules()
	if err != nil {
		r.Log.Warn("a list of units to renew is not valid", zap.Error(err))
	}
	var patterns []string
	for _, rule := range rules {
		if rules.find(rule.Pattern).Action == Tolerate { // and no earlier line says otherwise
			patterns = append(patterns, rule.Pattern)
		}
	}
	return patterns
}
