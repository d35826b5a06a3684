package fleetlock

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// appID is the application ID of updatectl, a random number. A change makes a stranger of every host that holds a slot.
const appID = "499b8e9cf7b54159b525c0ad369ac5e1"

// ID returns the identity of a host for FleetLock, 32 hexadecimal digits: the application-specific machine ID of
// sd_id128_get_machine_app_specific(3). The server does not learn the machine ID, which is meant to stay on the host.
// A machine ID that is not 32 hexadecimal digits, or zero, is an error: hosts with the same ID share a slot.
func ID(machineID string) (string, error) {
	key, err := hex.DecodeString(strings.TrimSpace(machineID))
	if err != nil || len(key) != 16 || [16]byte(key) == [16]byte{} {
		return "", fmt.Errorf("%.40q is no machine ID: write one with systemd-machine-id-setup(1)", machineID)
	}
	app, err := hex.DecodeString(appID)
	if err != nil {
		return "", errors.New("the application ID is not hexadecimal")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(app)
	id := mac.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x40 // version 4: random
	id[8] = id[8]&0x3f | 0x80 // the variant of RFC 9562
	return hex.EncodeToString(id), nil
}
