package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// HoldListening stands for all open ports, as a value of [switch] hold.
const HoldListening = "listening"

// HoldRule says at which TCP ports connections are held during a switch.
type HoldRule struct {
	// Listening is whether every open port is held, Ports which ones besides.
	Listening bool
	Ports     []uint16
}

// HoldRule returns what [switch] hold says. The configuration is valid.
func (c Config) HoldRule() HoldRule {
	rule, _ := parseHold(c.Switch.Hold)
	return rule
}

// parseHold reads the values of [switch] hold. The error names the first that is wrong; the rule has the others.
func parseHold(values []string) (rule HoldRule, err error) {
	wrong := func(value, why string) {
		if err == nil {
			err = fmt.Errorf("[switch] hold: %q %s", value, why)
		}
	}
	for _, value := range values {
		protocol, number, _ := strings.Cut(value, ":")
		port, perr := strconv.ParseUint(number, 10, 16)
		switch {
		case value == HoldListening && !rule.Listening:
			rule.Listening = true
		case value == HoldListening, perr == nil && slices.Contains(rule.Ports, uint16(port)):
			wrong(value, "is there twice")
		case protocol == "udp":
			wrong(value, "cannot be held: clients of UDP do not wait; take it out")
		case protocol != "tcp" || perr != nil || port == 0:
			wrong(value, `is neither "listening" nor a TCP port, such as "tcp:443"`)
		default:
			rule.Ports = append(rule.Ports, uint16(port))
		}
	}
	return rule, err
}
