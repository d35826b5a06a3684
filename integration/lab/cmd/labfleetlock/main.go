// Labfleetlock is a FleetLock server whose slots are in etcd.
//
//	labfleetlock --listen HOST:PORT --etcd URL --slots N
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	etcd "go.etcd.io/etcd/client/v3"

	"github.com/updatectl/updatectl/integration/lab/fleetlockd"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "labfleetlock: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:3333", "the address to listen at")
	endpoint := flag.String("etcd", "http://127.0.0.1:2379", "the URL of etcd")
	slots := flag.Int("slots", 1, "the slots of each group that etcd does not have yet")
	flag.Parse()
	if flag.NArg() > 0 || *slots < 1 {
		return errors.New("usage: labfleetlock --listen HOST:PORT --etcd URL --slots N")
	}
	client, err := etcd.New(etcd.Config{Endpoints: []string{*endpoint}, DialTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	server := http.Server{
		Addr: *listen, Handler: fleetlockd.Server{Etcd: client, Slots: *slots}.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
	}
	return server.ListenAndServe()
}
