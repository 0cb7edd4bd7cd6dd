// Drives a cluster with etcd's own Go client (clientv3 and clientv3/concurrency, 3.4) and prints a line for each check.
// Started by go_test.py, which kills servers when asked to: a line "kill leader" on standard output is answered by one
// "done" on standard input.
//
//	interop [--cacert FILE --cert FILE --key FILE] [--without CHECK,...] ENDPOINTS [CHECK ...]
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/pkg/transport"
)

// limit bounds each check: nothing here may hang.
const limit = 60 * time.Second

type check struct {
	name string
	run  func(*suite)
}

// suite is one check's view of the cluster. Its methods end the check by panicking with a failure.
type suite struct {
	ctx    context.Context
	client *clientv3.Client
	prefix string
}

type failure string

func (s *suite) fail(format string, arguments ...interface{}) {
	panic(failure(fmt.Sprintf(format, arguments...)))
}

func (s *suite) must(err error, what string) {
	if err != nil {
		s.fail("%s: %v", what, err)
	}
}

func (s *suite) expect(ok bool, format string, arguments ...interface{}) {
	if !ok {
		s.fail(format, arguments...)
	}
}

// newClient is another client of the same cluster, closed with the check.
func (s *suite) newClient() *clientv3.Client {
	client, err := dial(s.client.Endpoints())
	s.must(err, "dial")
	return client
}

var input = bufio.NewScanner(os.Stdin)

// killLeader returns when the leader's process is gone; bringBack when it serves again.
func (s *suite) killLeader() { s.order("kill leader") }
func (s *suite) bringBack()  { s.order("bring back") }
func (s *suite) order(what string) {
	fmt.Println(what)
	s.expect(input.Scan() && input.Text() == "done", "the harness did not answer %q", what)
}

// retry repeats what may fail while a leader is elected; what is repeated may happen twice.
func (s *suite) retry(what string, attempt func(context.Context) error) {
	var err error
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
		err = attempt(ctx)
		cancel()
		if err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.fail("%s: %v", what, err)
}

// security is how every client speaks: nil for plaintext.
var security *tls.Config

func dial(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		TLS:                  security,
	})
}

func runOne(c check, endpoints []string) (failed error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client, err := dial(endpoints)
	if err != nil {
		return err
	}
	defer client.Close()
	defer func() {
		if problem := recover(); problem != nil {
			text, ok := problem.(failure)
			if !ok {
				panic(problem)
			}
			failed = fmt.Errorf("%s", string(text))
		}
	}()
	c.run(&suite{ctx: ctx, client: client, prefix: fmt.Sprintf("go/%s/%d/", c.name, time.Now().UnixNano())})
	return nil
}

func main() {
	var files transport.TLSInfo
	flag.StringVar(&files.TrustedCAFile, "cacert", "", "the CA of the servers")
	flag.StringVar(&files.CertFile, "cert", "", "the client's certificate")
	flag.StringVar(&files.KeyFile, "key", "", "its key")
	without := flag.String("without", "", "checks to leave out")
	flag.Parse()
	if flag.NArg() < 1 {
		fmt.Fprintln(os.Stderr, "interop [--cacert FILE --cert FILE --key FILE] [--without CHECK,...] ENDPOINTS [CHECK ...]")
		os.Exit(64)
	}
	if files.TrustedCAFile != "" {
		var err error
		if security, err = files.ClientConfig(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(64)
		}
	}
	endpoints := strings.Split(flag.Arg(0), ",")
	wanted := map[string]bool{}
	for _, name := range flag.Args()[1:] {
		wanted[name] = true
	}
	unwanted := map[string]bool{}
	for _, name := range strings.Split(*without, ",") {
		unwanted[name] = true
	}
	var checks []check
	checks = append(checks, kvChecks...)
	checks = append(checks, watchChecks...)
	checks = append(checks, leaseChecks...)
	checks = append(checks, recipeChecks...)
	if len(endpoints) > 1 {
		checks = append(checks, leaderChecks...)
	}
	failures, ran := 0, 0
	for _, c := range checks {
		if len(wanted) > 0 && !wanted[c.name] || unwanted[c.name] {
			continue
		}
		ran++
		begin := time.Now()
		if err := runOne(c, endpoints); err != nil {
			failures++
			fmt.Printf("FAIL %s: %v\n", c.name, err)
		} else {
			fmt.Printf("ok %s %.2f s\n", c.name, time.Since(begin).Seconds())
		}
	}
	fmt.Printf("%d checks, %d failed\n", ran, failures)
	if failures > 0 || ran == 0 {
		os.Exit(1)
	}
}
