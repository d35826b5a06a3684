package etc

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
)

const (
	// authorities is the directory of the host's own certificate authorities, of those that are not in another place that
	// outlives a root.
	authorities = "updatectl/ca-certificates"
	// authoritiesConf lists the authorities of Debian that are trusted; those with a "!" are not.
	authoritiesConf = "ca-certificates.conf"

	localShare = "/usr/local/share/ca-certificates" // where Debian's program looks for the host's own authorities

	maxAuthorities = 256     // certificates of the host's own
	maxBundle      = 8 << 20 // bytes of a bundle; Mozilla's is 200 KB
)

// authorityDirs are the directories in /etc that the host's own authorities are in.
var authorityDirs = adoptList{authorities, "pki/ca-trust/source/anchors", "ca-certificates/trust-source/anchors"}

// mergeAuthorities returns the image's list of trusted authorities with the choices of the host: what it switched off
// stays off, and what the old image had switched off and the host switched on stays on. Names that the image does not
// list are not in it.
func mergeAuthorities(old, cur, next []byte) []byte {
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

// certificates returns the certificates in a text of PEM blocks.
func certificates(text []byte) [][]byte {
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

// addCertificates returns a bundle with the certificates of some texts that it does not have.
func addCertificates(bundle []byte, texts [][]byte) []byte {
	have := map[string]bool{}
	for _, der := range certificates(bundle) {
		have[string(der)] = true
	}
	added := slices.Clone(bundle)
	for _, text := range texts {
		for _, der := range certificates(text) {
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
