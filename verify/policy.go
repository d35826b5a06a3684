package verify

// Policy says who must have signed.
type Policy struct {
	Keys      []Key
	Threshold int // how many distinct keys must vouch; below 1 means 1
}

// Verify returns the content as verified when enough distinct keys vouch for
// its digest and it is what its media type says.
func (p Policy) Verify(content []byte, mediaType string, c []Candidate) (*Verified, error) {
	return nil, ErrUnsigned
}
