// A worker of the fleet that follows etcd's recipes with its own Go client: takes the lock NAME, or is elected on it, asks
// the resource to let it in, works, leaves; again and again. Started by fleet_test.py, which kills and pauses it.
//
//	fleet_go mutex|election ENDPOINTS NAME RESOURCE ID
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

const (
	ttl    = 5
	writes = 4
	pause  = 15 * time.Millisecond
)

type resource struct {
	lines *bufio.ReadWriter
	id    string
}

// ask is false where the resource refuses the token.
func (r *resource) ask(what string, token int64) bool {
	fmt.Fprintf(r.lines, "%s %d %s\n", what, token, r.id)
	if r.lines.Flush() != nil {
		os.Exit(1)
	}
	answer, err := r.lines.ReadString('\n')
	if err != nil {
		os.Exit(1)
	}
	return strings.TrimSpace(answer) == "ok"
}

func (r *resource) work(session *concurrency.Session, token int64) {
	if !r.ask("enter", token) {
		return
	}
	for i := 0; i < writes; i++ {
		select {
		case <-session.Done():
			r.ask("leave", token)
			return
		case <-time.After(pause):
		}
		if !r.ask("write", token) {
			return
		}
	}
	r.ask("exit", token)
}

func lockOnce(client *clientv3.Client, session *concurrency.Session, name string, r *resource) error {
	mutex := concurrency.NewMutex(session, name)
	if err := mutex.Lock(context.Background()); err != nil {
		return err
	}
	got, err := client.Get(context.Background(), mutex.Key())
	if err != nil || len(got.Kvs) == 0 {
		return fmt.Errorf("the claim is gone: %v", err)
	}
	r.work(session, got.Kvs[0].CreateRevision)
	return mutex.Unlock(context.Background())
}

func leadOnce(session *concurrency.Session, name string, r *resource) error {
	election := concurrency.NewElection(session, name)
	if err := election.Campaign(context.Background(), r.id); err != nil {
		return err
	}
	r.work(session, election.Rev())
	return election.Resign(context.Background())
}

func main() {
	kind, endpoints, name, where, id := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(endpoints, ","), DialTimeout: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	connection, err := net.Dial("tcp", where)
	if err != nil {
		panic(err)
	}
	r := &resource{bufio.NewReadWriter(bufio.NewReader(connection), bufio.NewWriter(connection)), id}
	for {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
		for err == nil {
			if kind == "mutex" {
				err = lockOnce(client, session, name, r)
			} else {
				err = leadOnce(session, name, r)
			}
			select {
			case <-session.Done():
				err = fmt.Errorf("the session ended")
			case <-time.After(pause):
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}
