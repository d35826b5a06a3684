package record

import (
	"encoding/json"
	"reflect"
	"strings"
)

// unknownMembers are those of a JSON object that its type does not have. The mutable host has the oldest agent and rewrites the
// record at every boot of the kernel: what a newer one keeps there must not be lost.
type unknownMembers map[string]json.RawMessage

// plainRecord and plainSwitch are read and written without them.
type (
	plainRecord Record
	plainSwitch Switch
)

// UnmarshalJSON reads a record and what else is in it.
func (r *Record) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, (*plainRecord)(r)); err != nil {
		return err
	}
	rest, err := membersUnknownTo(text, reflect.TypeFor[Record]())
	r.rest = rest
	return err
}

// MarshalJSON writes a record with what else was in it.
func (r Record) MarshalJSON() ([]byte, error) { return r.rest.with(plainRecord(r)) }

// UnmarshalJSON reads a switch and what else is in it.
func (s *Switch) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, (*plainSwitch)(s)); err != nil {
		return err
	}
	rest, err := membersUnknownTo(text, reflect.TypeFor[Switch]())
	s.rest = rest
	return err
}

// MarshalJSON writes a switch with what else was in it.
func (s Switch) MarshalJSON() ([]byte, error) { return s.rest.with(plainSwitch(s)) }

// membersUnknownTo are the members of an object that a type does not have. Names are compared as encoding/json does, without case.
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

// with writes an object, and the members after its own.
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
