package record

import (
	"encoding/json"
	"reflect"
	"strings"
)

// unknownMembers are the members of a JSON object that its Go type does not have. The host root has the oldest agent
// and rewrites the record after every full reboot; it must not lose what a newer agent keeps there.
type unknownMembers map[string]json.RawMessage

// plainRecord and plainSwitch have no JSON methods, so encoding/json reads and writes only the fields of the type.
type (
	plainRecord Record
	plainSwitch Switch
)

// UnmarshalJSON reads a record, and keeps the members that it does not know.
func (r *Record) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, (*plainRecord)(r)); err != nil {
		return err
	}
	rest, err := membersUnknownTo(text, reflect.TypeFor[Record]())
	r.rest = rest
	return err
}

// MarshalJSON writes a record, with the unknown members that were read.
func (r Record) MarshalJSON() ([]byte, error) { return r.rest.with(plainRecord(r)) }

// UnmarshalJSON reads a switch, and keeps the members that it does not know.
func (s *Switch) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, (*plainSwitch)(s)); err != nil {
		return err
	}
	rest, err := membersUnknownTo(text, reflect.TypeFor[Switch]())
	s.rest = rest
	return err
}

// MarshalJSON writes a switch, with the unknown members that were read.
func (s Switch) MarshalJSON() ([]byte, error) { return s.rest.with(plainSwitch(s)) }

// membersUnknownTo returns the members of a JSON object that a type does not have. It ignores case in names, as
// encoding/json does.
func membersUnknownTo(text []byte, t reflect.Type) (unknownMembers, error) {
	var all unknownMembers
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		for member := range all {
			if name != "" && strings.EqualFold(member, name) {
				delete(all, member)
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

// with returns an object as JSON, with the unknown members after its own.
func (m unknownMembers) with(object any) ([]byte, error) {
	text, err := json.Marshal(object)
	if err != nil || len(m) == 0 {
		return text, err
	}
	more, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return append(append(text[:len(text)-1], ','), more[1:]...), nil
}
