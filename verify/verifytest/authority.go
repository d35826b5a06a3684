// Package verifytest is a Sigstore deployment in memory, for tests: a certificate authority, a transparency log and a
// timestamp authority. It makes keyless signatures, good ones and bad ones.
package verifytest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor/pkg/types"
	rekordsse "github.com/sigstore/rekor/pkg/types/dsse"
	rekordsse001 "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	"github.com/sigstore/rekor/pkg/types/hashedrekord"
	hashedrekord001 "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/updatectl/updatectl/verify"
)

// Authority is a deployment. Its trust root does not trust another one.
type Authority struct {
	virtual      *ca.VirtualSigstore // log and timestamp authority
	root         *x509.Certificate
	intermediate *x509.Certificate
	key          *ecdsa.PrivateKey // of the intermediate certificate
}

// Signing says who signs, and what is wrong with the signature. With only the names set, it is a good signature made
// now.
type Signing struct {
	Subject, Issuer string
	Key             crypto.Signer // a key to use instead of a certificate
	Issued          time.Time     // when the certificate was issued; it is valid for ten minutes
	Logged          time.Time     // the time in the log
	NoLog           bool          // no log entry
	NoPromise       bool          // a log entry without the promise of the log
	NoTimestamp     bool          // no timestamp
}

// New makes a deployment.
func New() (*Authority, error) {
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		return nil, err
	}
	top, topKey, err := ca.GenerateRootCa()
	if err != nil {
		return nil, err
	}
	a := &Authority{virtual: virtual, root: top}
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	// The intermediate certificate of the virtual deployment is too new to have issued a certificate that has expired.
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "intermediate", Organization: []string{"example.org"}},
		NotBefore:    top.NotBefore, NotAfter: top.NotAfter,
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true, IsCA: true,
	}, top, a.key.Public(), topKey)
	if err != nil {
		return nil, err
	}
	a.intermediate, err = x509.ParseCertificate(der)
	return a, err
}

// Part is a part of a trust root.
type Part int

// What a trust root can lack, or have in addition.
const (
	NoLogs Part = iota
	NoTimestamps
	NoCertificates
	CertificateLog // with none of the certificates
)

// TrustRoot returns the trusted_root.json of the deployment.
func (a *Authority) TrustRoot(parts ...Part) ([]byte, error) {
	authorities := append(a.virtual.FulcioCertificateAuthorities(),
		&root.FulcioCertificateAuthority{Root: a.root, Intermediates: []*x509.Certificate{a.intermediate},
			URI: "https://ca.example.org"})
	logs, err := rawIDs(a.virtual.RekorLogs())
	if err != nil {
		return nil, err
	}
	stamps := a.virtual.TimestampingAuthorities()
	var certificateLogs map[string]*root.TransparencyLog
	for _, p := range parts {
		switch p {
		case NoLogs:
			logs = nil
		case NoTimestamps:
			stamps = nil
		case NoCertificates:
			authorities = nil
		case CertificateLog:
			if certificateLogs, err = rawIDs(a.virtual.CTLogs()); err != nil {
				return nil, err
			}
		}
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, certificateLogs, stamps, logs)
	if err != nil {
		return nil, err
	}
	return r.MarshalJSON()
}

// rawIDs converts the IDs of the logs from the hex of the virtual deployment to the bytes of a trust root.
func rawIDs(logs map[string]*root.TransparencyLog) (map[string]*root.TransparencyLog, error) {
	for id, l := range logs {
		raw, err := hex.DecodeString(id)
		if err != nil {
			return nil, err
		}
		l.ID, l.SignatureHashFunc = raw, crypto.SHA256
	}
	return logs, nil
}

// Statement is what cosign 3 signs for an image.
func Statement(image digest.Digest) []byte {
	return fmt.Appendf(nil, `{"_type":%q,"subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		verify.BundleStatementType, image.Encoded(), verify.BundlePredicateType)
}

// Bundle signs an image as cosign 3 does.
func (a *Authority) Bundle(s Signing, image digest.Digest) (verify.Candidate, error) {
	b, err := a.Envelope(s, verify.BundlePayloadType, Statement(image))
	if err != nil {
		return verify.Candidate{}, err
	}
	return Candidate(b)
}

// Candidate returns a bundle as it is published.
func Candidate(b *bundlepb.Bundle) (verify.Candidate, error) {
	text, err := protojson.Marshal(b)
	return verify.Candidate{Form: verify.FormBundle, Bundle: text, From: "test"}, err
}

// Envelope signs a payload of any type in a bundle.
func (a *Authority) Envelope(s Signing, payloadType string, payload []byte) (*bundlepb.Bundle, error) {
	w, err := a.who(s)
	if err != nil {
		return nil, err
	}
	sig, err := w.sign(dsse.PAE(payloadType, payload))
	if err != nil {
		return nil, err
	}
	envelope, err := json.Marshal(dsse.Envelope{PayloadType: payloadType,
		Payload:    base64.StdEncoding.EncodeToString(payload),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}}})
	if err != nil {
		return nil, err
	}
	material, err := a.material(s, w, sig, rekordsse.KIND, rekordsse001.APIVERSION,
		types.ArtifactProperties{ArtifactBytes: envelope})
	return &bundlepb.Bundle{
		MediaType:            verify.BundleMediaType,
		VerificationMaterial: material,
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload: payload, PayloadType: payloadType, Signatures: []*dssepb.Signature{{Sig: sig}},
		}},
	}, err
}

// EnvelopeV2 returns a good signature with a log entry of the second version: it has no promise, so only the timestamp
// authority proves the time.
func (a *Authority) EnvelopeV2(s Signing, payload []byte) (*bundlepb.Bundle, error) {
	e, err := a.virtual.AttestHashedRekordV2(s.Subject, s.Issuer, payload)
	if err != nil {
		return nil, err
	}
	certificate, err := e.VerificationContent()
	if err != nil {
		return nil, err
	}
	content, err := e.SignatureContent()
	if err != nil {
		return nil, err
	}
	entries, err := e.TlogEntries()
	if err != nil {
		return nil, err
	}
	stamps, err := e.Timestamps()
	if err != nil {
		return nil, err
	}
	return &bundlepb.Bundle{
		MediaType: verify.BundleMediaType,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_Certificate{
				Certificate: &commonpb.X509Certificate{RawBytes: certificate.Certificate().Raw},
			},
			TlogEntries:               []*rekorpb.TransparencyLogEntry{entries[0].TransparencyLogEntry()},
			TimestampVerificationData: timestamps(stamps[0]),
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload: payload, PayloadType: verify.BundlePayloadType,
			Signatures: []*dssepb.Signature{{Sig: content.Signature()}},
		}},
	}, nil
}

// Simple signs a simple-signing payload, with the proofs that cosign 2 stores in annotations.
func (a *Authority) Simple(s Signing, payload []byte) (verify.Candidate, error) {
	c := verify.Candidate{Form: verify.FormSimple, Payload: payload, From: "test"}
	w, err := a.who(s)
	if err != nil {
		return c, err
	}
	if c.Signature, err = w.sign(payload); err != nil {
		return c, err
	}
	sum := sha256.Sum256(payload)
	material, err := a.material(s, w, c.Signature, hashedrekord.KIND, hashedrekord001.APIVERSION,
		types.ArtifactProperties{ArtifactHash: hex.EncodeToString(sum[:])})
	if err != nil {
		return c, err
	}
	if w.leaf != nil {
		c.Certificate = w.pem
	}
	for _, e := range material.TlogEntries {
		c.LogEntry, err = json.Marshal(map[string]any{
			"SignedEntryTimestamp": e.InclusionPromise.GetSignedEntryTimestamp(),
			"Payload": map[string]any{"body": e.CanonicalizedBody, "integratedTime": e.IntegratedTime,
				"logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId)},
		})
		if err != nil {
			return c, err
		}
	}
	for _, t := range material.TimestampVerificationData.GetRfc3161Timestamps() {
		if c.Timestamp, err = json.Marshal(map[string]any{"SignedRFC3161Timestamp": t.SignedTimestamp}); err != nil {
			return c, err
		}
	}
	return c, nil
}

// SimplePayload is what cosign 2 signs for an image.
func SimplePayload(image digest.Digest) []byte {
	return fmt.Appendf(nil,
		`{"critical":{"identity":{"docker-reference":"registry.example.org/os"},`+
			`"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, image, verify.PayloadType)
}

// who holds a key, with or without a certificate.
type who struct {
	key  crypto.Signer
	leaf *x509.Certificate
	pem  []byte // the certificate or the public key
}

func (a *Authority) who(s Signing) (*who, error) {
	if s.Key != nil {
		der, err := x509.MarshalPKIXPublicKey(s.Key.Public())
		return &who{key: s.Key, pem: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issued := s.Issued
	if issued.IsZero() {
		issued = time.Now()
	}
	leaf, err := ca.GenerateLeafCert(s.Subject, s.Issuer, issued, key, a.intermediate, a.key)
	if err != nil {
		return nil, err
	}
	return &who{key, leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})}, nil
}

func (w *who) sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return w.key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

func (w *who) content() *bundlepb.VerificationMaterial {
	if w.leaf == nil {
		return &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{}},
		}
	}
	return &bundlepb.VerificationMaterial{Content: &bundlepb.VerificationMaterial_Certificate{
		Certificate: &commonpb.X509Certificate{RawBytes: w.leaf.Raw},
	}}
}

// material returns the proofs of a signature.
func (a *Authority) material(s Signing, w *who, sig []byte, kind, version string,
	logged types.ArtifactProperties) (*bundlepb.VerificationMaterial, error) {
	m := w.content()
	if !s.NoLog {
		logged.SignatureBytes, logged.PublicKeyBytes, logged.PKIFormat = sig, [][]byte{w.pem}, "x509"
		entry, err := a.entry(s, kind, version, logged)
		if err != nil {
			return nil, err
		}
		m.TlogEntries = []*rekorpb.TransparencyLogEntry{entry}
	}
	if !s.NoTimestamp {
		stamp, err := a.virtual.TimestampResponse(sig)
		if err != nil {
			return nil, err
		}
		m.TimestampVerificationData = timestamps(stamp)
	}
	return m, nil
}

func timestamps(signed []byte) *bundlepb.TimestampVerificationData {
	return &bundlepb.TimestampVerificationData{
		Rfc3161Timestamps: []*commonpb.RFC3161SignedTimestamp{{SignedTimestamp: signed}},
	}
}

// entry returns a log entry for a signature.
func (a *Authority) entry(s Signing, kind, version string,
	logged types.ArtifactProperties) (*rekorpb.TransparencyLogEntry, error) {
	ctx := context.Background()
	proposed, err := types.NewProposedEntry(ctx, kind, version, logged)
	if err != nil {
		return nil, err
	}
	versioned, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return nil, err
	}
	body, err := types.CanonicalizeEntry(ctx, versioned)
	if err != nil {
		return nil, err
	}
	proof, err := a.virtual.GetInclusionProof(body)
	if err != nil {
		return nil, err
	}
	rootHash, err := hex.DecodeString(*proof.RootHash)
	if err != nil {
		return nil, err
	}
	hexID, err := a.virtual.RekorLogID()
	if err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(hexID)
	if err != nil {
		return nil, err
	}
	when := s.Logged
	if when.IsZero() {
		when = time.Now()
	}
	e := &rekorpb.TransparencyLogEntry{
		LogIndex: logIndex, LogId: &commonpb.LogId{KeyId: id},
		KindVersion:    &rekorpb.KindVersion{Kind: kind, Version: version},
		IntegratedTime: when.Unix(), CanonicalizedBody: bytes.Clone(body),
		InclusionProof: &rekorpb.InclusionProof{LogIndex: *proof.LogIndex, TreeSize: *proof.TreeSize,
			RootHash:   rootHash,
			Checkpoint: &rekorpb.Checkpoint{Envelope: *proof.Checkpoint}},
	}
	if !s.NoPromise {
		promise, err := a.virtual.RekorSignPayload(tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(body),
			IntegratedTime: e.IntegratedTime, LogIndex: e.LogIndex, LogID: hexID})
		if err != nil {
			return nil, err
		}
		e.InclusionPromise = &rekorpb.InclusionPromise{SignedEntryTimestamp: promise}
	}
	return e, nil
}

// logIndex is the index of every entry in the whole log. The proof has another index.
const logIndex = 4711
