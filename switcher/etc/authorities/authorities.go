// Package authorities knows where a host names the certificate authorities that it trusts besides the image's, and adds
// them to the image's. It reads and writes no file.
package authorities

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
)

const (
	// Dir is the directory of the host's own certificate authorities, of those that are not in another place that
	// outlives a root.
	Dir = "updatectl/ca-certificates"
	// Conf lists the authorities of Debian that are trusted; those with a "!" are not.
	Conf = "ca-certificates.conf"

	LocalShare = "/usr/local/share/ca-certificates" // where Debian's program looks for the host's own authorities

	Max       = 256     // Certificates of the host's own
	MaxBundle = 8 << 20 // bytes of a bundle; Mozilla's is 200 KB
)

// Dirs are the directories in /etc that the host's own authorities are in.
var Dirs = paths.List{Dir, "pki/ca-trust/source/anchors", "ca-certificates/trust-source/anchors"}

// MergeConf returns the image's list of trusted authorities with the choices of the host: what it switched off
// stays off, and what the old image had switched off and the host switched on stays on. Names that the image does not
// list are not in it.
func MergeConf(old, cur, next []byte) []byte {
	state := func(text []byte) map[string]bool {
		trusted := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if name, off := strings.CutPrefix(line, "!"); line != "" && !strings.HasPrefix(line, "#") {
				trusted[name] = !off
			}
		}
		return trusted
	}
	before, here := state(old), state(cur)
	var out bytes.Buffer
	for line := range strings.Lines(string(next)) {
		name := strings.TrimPrefix(strings.TrimSpace(line), "!")
		wanted, listed := here[name]
		was, known := before[name]
		if listed && name != "" && (known && was != wanted || !known && !wanted) {
			line = name + "\n"
			if !wanted {
				line = "!" + line
			}
		}
		out.WriteString(line)
	}
	return out.Bytes()
}

// Certificates returns the certificates in a text of PEM blocks.
func Certificates(text []byte) [][]byte {
	var all [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if _, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			all = append(all, block.Bytes)
		}
	}
}

// Add returns a bundle with the certificates of some texts that it does not have.
func Add(bundle []byte, texts [][]byte) []byte {
	have := map[string]bool{}
	for _, der := range Certificates(bundle) {
		have[string(der)] = true
	}
	added := slices.Clone(bundle)
	for _, text := range texts {
		for _, der := range Certificates(text) {
			if have[string(der)] {
				continue
			}
			have[string(der)] = true
			if len(added) > 0 && !bytes.HasSuffix(added, []byte("\n")) {
				added = append(added, '\n')
			}
			added = append(added, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
	}
	return added
}
