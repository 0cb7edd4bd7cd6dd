package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

// With the leader killed under each.
var leaderChecks = []check{
	{"leader-puts", leaderPuts},
	{"leader-watch", leaderWatch},
	{"leader-session", leaderSession},
	{"leader-mutex", leaderMutex},
	{"leader-election", leaderElection},
}

func leaderPuts(s *suite) {
	for i := 0; i < 20; i++ {
		_, err := s.client.Put(s.ctx, fmt.Sprintf("%s%02d", s.prefix, i), fmt.Sprint(i))
		s.must(err, "put")
	}
	before, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix())
	s.must(err, "get")
	s.killLeader()
	var after *clientv3.GetResponse
	s.retry("get", func(ctx context.Context) (err error) {
		after, err = s.client.Get(ctx, s.prefix, clientv3.WithPrefix())
		return err
	})
	s.expect(after.Header.Revision >= before.Header.Revision, "the revision went from %d to %d", before.Header.Revision, after.Header.Revision)
	s.expect(after.Header.RaftTerm > before.Header.RaftTerm, "the term went from %d to %d", before.Header.RaftTerm, after.Header.RaftTerm)
	s.expect(fmt.Sprint(after.Kvs) == fmt.Sprint(before.Kvs), "the keys changed")
	s.retry("put", func(ctx context.Context) error {
		_, err := s.client.Put(ctx, s.prefix+"after", "x")
		return err
	})
	s.bringBack()
}

func leaderWatch(s *suite) {
	start, err := s.client.Put(s.ctx, s.prefix+"start", "")
	s.must(err, "put")
	watch := &events{s: s, channel: s.client.Watch(clientv3.WithRequireLeader(s.ctx), s.prefix+"k", clientv3.WithRev(start.Header.Revision+1))}
	_, err = s.client.Put(s.ctx, s.prefix+"k", "0")
	s.must(err, "put")
	watch.next()
	s.killLeader()
	for i := 1; i <= 20; i++ {
		s.retry("put", func(ctx context.Context) error {
			_, err := s.client.Put(ctx, s.prefix+"k", fmt.Sprint(i))
			return err
		})
	}
	s.bringBack()
	expected, revision := 1, int64(0)
	for expected <= 20 {
		var event *clientv3.Event
		for event == nil {
			// A watch that asks for a leader ends without one; the client's user begins it again after what it saw.
			select {
			case answer, open := <-watch.channel:
				if !open || answer.Err() != nil {
					from := start.Header.Revision + 1
					if revision > 0 {
						from = revision + 1
					}
					watch.channel = s.client.Watch(s.ctx, s.prefix+"k", clientv3.WithRev(from))
					continue
				}
				watch.waiting = append(watch.waiting, answer.Events...)
			case <-s.ctx.Done():
				s.fail("%d did not come", expected)
			}
			if len(watch.waiting) > 0 {
				event = watch.waiting[0]
			}
		}
		for _, e := range watch.waiting {
			s.expect(e.Kv.ModRevision > revision, "revision %d after %d", e.Kv.ModRevision, revision)
			revision = e.Kv.ModRevision
			value := string(e.Kv.Value)
			// A put that was repeated may stand twice.
			if value == fmt.Sprint(expected) {
				expected++
			} else {
				s.expect(value == fmt.Sprint(expected-1), "%q came instead of %d", value, expected)
			}
		}
		watch.waiting = nil
	}
}

// A session lives on through the election, and longer than it would without keep-alives.
func leaderSession(s *suite) {
	session, client := s.session(5)
	defer client.Close()
	_, err := client.Put(s.ctx, s.prefix+"k", "v", clientv3.WithLease(session.Lease()))
	s.must(err, "put")
	s.killLeader()
	select {
	case <-session.Done():
		s.fail("the session ended")
	case <-time.After(8 * time.Second):
	}
	s.retry("get", func(ctx context.Context) error {
		answer, err := s.client.Get(ctx, s.prefix+"k")
		if err == nil && answer.Count != 1 {
			s.fail("the session's key is gone")
		}
		return err
	})
	s.bringBack()
	s.must(session.Close(), "close")
}

func leaderMutex(s *suite) {
	one, oneClient := s.session(10)
	defer oneClient.Close()
	two, twoClient := s.session(10)
	defer twoClient.Close()
	first, second := concurrency.NewMutex(one, s.prefix+"m"), concurrency.NewMutex(two, s.prefix+"m")
	s.must(first.Lock(s.ctx), "lock")
	var released int32
	got := make(chan error, 1)
	go func() {
		err := second.Lock(s.ctx)
		if err == nil && atomic.LoadInt32(&released) == 0 {
			err = fmt.Errorf("both hold it")
		}
		got <- err
	}()
	s.waitClaims(s.prefix+"m/", 2)
	s.killLeader()
	s.retry("is owner", func(ctx context.Context) error {
		owner, err := s.client.Txn(ctx).If(first.IsOwner()).Then(clientv3.OpGet(first.Key())).Commit()
		if err == nil && !owner.Succeeded {
			s.fail("the holder lost it with the leader")
		}
		return err
	})
	atomic.StoreInt32(&released, 1)
	s.retry("unlock", func(ctx context.Context) error { return first.Unlock(ctx) })
	s.must(<-got, "the waiter's lock")
	s.bringBack()
	s.must(second.Unlock(s.ctx), "unlock")
}

func leaderElection(s *suite) {
	one, oneClient := s.session(10)
	defer oneClient.Close()
	name := s.prefix + "e"
	first := concurrency.NewElection(one, name)
	s.must(first.Campaign(s.ctx, "one"), "campaign")
	s.killLeader()
	s.retry("leader", func(ctx context.Context) error {
		leader, err := first.Leader(ctx)
		if err == nil && string(leader.Kvs[0].Value) != "one" {
			s.fail("another leads: %v", leader.Kvs[0])
		}
		return err
	})
	s.retry("proclaim", func(ctx context.Context) error { return first.Proclaim(ctx, "still one") })
	s.bringBack()
	s.must(first.Resign(s.ctx), "resign")
}
