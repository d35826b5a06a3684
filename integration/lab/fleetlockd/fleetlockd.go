// Package fleetlockd is a FleetLock server for the lab. The slots are in etcd and change by compare-and-swap, so that
// any number of servers, one after the other or side by side, never give away more of them than there are.
package fleetlockd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
)

// Prefix is what the keys of the groups in etcd begin with. A value is a [Group] in JSON.
const Prefix = "updatectl-lab/fleetlock/"

// Group is what etcd has of a group of hosts.
type Group struct {
	Slots   int      `json:"slots"`
	Holders []string `json:"holders"`
}

// take returns the group after a host has asked for a slot, and whether the host has one.
func (g Group) take(id string) (Group, bool) {
	switch {
	case slices.Contains(g.Holders, id):
		return g, true
	case len(g.Holders) >= g.Slots:
		return g, false
	}
	return Group{g.Slots, append(slices.Clone(g.Holders), id)}, true
}

// giveBack returns the group after a host has given its slot back; one that has none gives nothing.
func (g Group) giveBack(id string) (Group, bool) {
	return Group{g.Slots, slices.DeleteFunc(slices.Clone(g.Holders), func(h string) bool { return h == id })}, true
}

// Server answers hosts.
type Server struct {
	Etcd  etcd.KV
	Slots int // of a group that etcd does not have yet
}

// Handler returns the handler of the two requests of the protocol.
func (s Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/pre-reboot", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, Group.take) })
	mux.HandleFunc("POST /v1/steady-state", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, Group.giveBack) })
	return mux
}

// errConflict means that somebody else changed the group in between.
var errConflict = errors.New("the group was changed meanwhile")

// patience is how long etcd may take for a request: less than clients wait.
const patience = 10 * time.Second

func (s Server) serve(w http.ResponseWriter, r *http.Request, change func(Group, string) (Group, bool)) {
	id, group, err := parse(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad_request", err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	var state Group
	var done bool
	for err = errConflict; errors.Is(err, errConflict); {
		state, done, err = s.change(ctx, group, func(g Group) (Group, bool) { return change(g, id) })
	}
	switch {
	case err != nil: // etcd may have done it all the same: the client asks again
		refuse(w, http.StatusInternalServerError, "failed_sem", err.Error())
	case !done:
		refuse(w, http.StatusConflict, "failed_lock", fmt.Sprintf("all %d slots of %s are held, by %s", state.Slots, group,
			strings.Join(state.Holders, ", ")))
	}
}

var groups = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)

// parse returns the host and the group of a request.
func parse(r *http.Request) (id, group string, err error) {
	if r.Header.Get("fleet-lock-protocol") != "true" {
		return "", "", errors.New("the header fleet-lock-protocol is not true")
	}
	var body struct {
		Params struct{ ID, Group string } `json:"client_params"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&body); err != nil {
		return "", "", fmt.Errorf("cannot read the body: %w", err)
	}
	if body.Params.ID == "" || !groups.MatchString(body.Params.Group) {
		return "", "", fmt.Errorf("the id %q or the group %q is not allowed", body.Params.ID, body.Params.Group)
	}
	return body.Params.ID, body.Params.Group, nil
}

// refuse writes the answer of a request that was not done.
func refuse(w http.ResponseWriter, status int, kind, value string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"kind": kind, "value": value}) // the client may be gone
}

// change changes a group, unless another server does so in between: an errConflict.
func (s Server) change(ctx context.Context, group string, change func(Group) (Group, bool)) (Group, bool, error) {
	key := Prefix + group
	answer, err := s.Etcd.Get(ctx, key)
	if err != nil {
		return Group{}, false, err
	}
	old, revision := Group{Slots: s.Slots}, int64(0) // of a key that is not there
	if len(answer.Kvs) > 0 {
		revision = answer.Kvs[0].ModRevision
		if err := json.Unmarshal(answer.Kvs[0].Value, &old); err != nil {
			return Group{}, false, fmt.Errorf("cannot read the key %s: %w", key, err)
		}
	}
	changed, done := change(old)
	if !done || slices.Equal(old.Holders, changed.Holders) {
		return changed, done, nil
	}
	value, err := json.Marshal(changed)
	if err != nil {
		return Group{}, false, err
	}
	swapped, err := s.Etcd.Txn(ctx).If(etcd.Compare(etcd.ModRevision(key), "=", revision)).
		Then(etcd.OpPut(key, string(value))).Commit()
	if err == nil && !swapped.Succeeded {
		err = errConflict
	}
	return changed, done, err
}
