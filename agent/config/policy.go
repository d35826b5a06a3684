package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/verify"
)

// KeyRule is a [[verify.key]]: a public key with rules of its own.
type KeyRule struct {
	// File holds the PEM public key.
	File string `toml:"file" json:"file"`
	// NotAfter is when the key is no longer accepted.
	NotAfter time.Time `toml:"not-after,omitempty" json:"not_after,omitzero"`
	// Revoked means that the key is never accepted, even if [verify] keys lists it; Reason says why.
	Revoked bool   `toml:"revoked,omitempty" json:"revoked,omitempty"`
	Reason  string `toml:"reason,omitempty" json:"reason,omitempty"`
	// Log is whether a transparency log must have the signature: required, optional or off. TrustRoot is the file that
	// names the logs.
	Log       verify.LogRule `toml:"log,omitempty" json:"log,omitempty"`
	TrustRoot string         `toml:"trust-root,omitempty" json:"trust_root,omitempty"`
}

// IdentityRule is a [[verify.identity]]: a signer without a key of its own (keyless signing). Issuer and subject are
// each given either exactly or as a pattern that has to match the whole text.
type IdentityRule struct {
	Issuer         string         `toml:"issuer,omitempty" json:"issuer,omitempty"`
	IssuerPattern  string         `toml:"issuer-pattern,omitempty" json:"issuer_pattern,omitempty"`
	Subject        string         `toml:"subject,omitempty" json:"subject,omitempty"`
	SubjectPattern string         `toml:"subject-pattern,omitempty" json:"subject_pattern,omitempty"`
	TrustRoot      string         `toml:"trust-root,omitempty" json:"trust_root"`
	Log            verify.LogRule `toml:"log,omitempty" json:"log,omitempty"`
	// Revoked means that nobody whom the rule matches counts, even if another rule matches, too; Reason says why.
	Revoked bool   `toml:"revoked,omitempty" json:"revoked,omitempty"`
	Reason  string `toml:"reason,omitempty" json:"reason,omitempty"`
}

// restricts reports whether the rule makes a key count less than listing it in [verify] keys does.
func (r KeyRule) restricts() bool {
	return r.Revoked || !r.NotAfter.IsZero() || r.Log != "" && r.Log != verify.LogOff
}

// inherit merges the lists of earlier fragments into the ones of this fragment: a list replaces an earlier list as a
// whole, except that every restriction of a key stays, and the revocation of an identity. A revocation stays in the
// list, so that a signature by the key is reported as one by a revoked key.
func (c *Config) inherit(keys []KeyRule, identities []IdentityRule, meta toml.MetaData) {
	if !meta.IsDefined("verify", "identity") {
		c.Verify.Identity = identities
	} else {
		for _, i := range identities {
			if i.Revoked {
				c.Verify.Identity = append(c.Verify.Identity, i)
			}
		}
	}
	if !meta.IsDefined("verify", "key") {
		c.Verify.Key = keys
		return
	}
	for _, k := range keys {
		switch {
		case k.Revoked:
			c.Verify.Key = append(c.Verify.Key, k)
		case k.restricts() && !slices.Contains(c.Verify.Restrictions, k):
			c.Verify.Restrictions = append(c.Verify.Restrictions, k)
		}
	}
}

// Policy returns the signature policy, with the keys and trust roots read from the files that the configuration names.
// path returns the path of a file of the host as this process sees it; signatures are judged as of now. The error is
// an [ErrConfig].
func (c Config) Policy(path func(string) string, now time.Time) (verify.Policy, error) {
	p := verify.Policy{Threshold: c.Verify.Threshold, Now: now}
	for _, file := range c.Verify.Keys {
		if err := addKey(&p.Keys, KeyRule{File: file}, path); err != nil {
			return p, fmt.Errorf("%w: %s[verify] keys: %w", ErrConfig, c.Where("verify.keys"), err)
		}
	}
	for _, rule := range c.Verify.Key {
		if err := addKey(&p.Keys, rule, path); err != nil {
			return p, fmt.Errorf("%w: %s[[verify.key]]: %w", ErrConfig, c.Where("verify.key"), err)
		}
	}
	for _, rule := range c.Verify.Restrictions {
		if err := addKey(&p.Restrictions, rule, path); err != nil {
			return p, fmt.Errorf("%w: a [[verify.key]] of an earlier file, which still restricts its key: %w", ErrConfig, err)
		}
	}
	for _, rule := range c.Verify.Identity {
		if err := addIdentity(&p, rule, path); err != nil {
			return p, fmt.Errorf("%w: %s[[verify.identity]]: %w", ErrConfig, c.Where("verify.identity"), err)
		}
	}
	n := len(p.Keys) + len(p.Identities)
	if n == 0 {
		return p, fmt.Errorf(
			"%w: [verify] keys is empty: name the public key that signs your images, or a [[verify.identity]]", ErrConfig)
	}
	if c.Verify.Threshold > n {
		return p, fmt.Errorf("%w: %s[verify] threshold is %d with %d keys and identities",
			ErrConfig, c.Where("verify.threshold"), c.Verify.Threshold, n)
	}
	if err := p.Check(); err != nil {
		return p, fmt.Errorf("%w: [verify]: %w", ErrConfig, err)
	}
	return p, nil
}

// addKey adds the key of a rule to keys.
func addKey(keys *[]verify.Key, rule KeyRule, path func(string) string) error {
	if rule.File == "" {
		return fmt.Errorf("file is missing: name the PEM file with the public key")
	}
	text, err := readBounded(rule.File, path)
	if err != nil {
		return err
	}
	key, err := verify.ParseKey(filepath.Base(rule.File), text)
	if err != nil {
		return fmt.Errorf("%s: %w", rule.File, err)
	}
	key.NotAfter, key.Revoked, key.Reason, key.Log = rule.NotAfter, rule.Revoked, rule.Reason, rule.Log
	if key.Root, err = readTrustRoot(rule.TrustRoot, path); err != nil {
		return err
	}
	*keys = append(*keys, key)
	return nil
}

// addIdentity adds the identity of a rule to a policy.
func addIdentity(p *verify.Policy, rule IdentityRule, path func(string) string) error {
	i := verify.Identity{
		Issuer:  verify.Match{Exact: rule.Issuer, Pattern: rule.IssuerPattern},
		Subject: verify.Match{Exact: rule.Subject, Pattern: rule.SubjectPattern},
		Log:     rule.Log, Reason: rule.Reason,
	}
	if rule.Revoked {
		p.Revoked = append(p.Revoked, i)
		return nil
	}
	var err error
	i.Root, err = readTrustRoot(rule.TrustRoot, path)
	p.Identities = append(p.Identities, i)
	return err
}

// readTrustRoot returns the trust root in a trusted_root.json file, nil if file is "".
func readTrustRoot(file string, path func(string) string) (*verify.TrustRoot, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readBounded(file, path)
	if err != nil {
		return nil, err
	}
	return verify.ParseTrustRoot(file, text)
}

// readBounded returns the content of a file that the configuration names, at most maxConfig bytes, which only root can
// change.
func readBounded(file string, path func(string) string) ([]byte, error) {
	text, err := durable.ReadRegular(path(file), maxConfig)
	if err == nil {
		err = owned.Check(path(file))
	}
	return text, err
}
