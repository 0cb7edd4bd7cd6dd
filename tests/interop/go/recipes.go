package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
)

var leaseChecks = []check{
	{"lease", leaseLife},
	{"lease-keepalive", leaseKeepAlive},
	{"lease-expiry", leaseExpiry},
}

var recipeChecks = []check{
	{"mutex", mutex},
	{"mutex-many", mutexMany},
	{"mutex-of-the-dead", mutexOfTheDead},
	{"mutex-cancel", mutexCancel},
	{"election", election},
	{"election-resume", electionResume},
}

func leaseLife(s *suite) {
	grant, err := s.client.Grant(s.ctx, 60)
	s.must(err, "grant")
	_, err = s.client.Put(s.ctx, s.prefix+"k", "v", clientv3.WithLease(grant.ID))
	s.must(err, "put")
	left, err := s.client.TimeToLive(s.ctx, grant.ID, clientv3.WithAttachedKeys())
	s.must(err, "time to live")
	s.expect(left.GrantedTTL == 60 && left.TTL > 50 && left.TTL <= 60 && len(left.Keys) == 1, "time to live %+v", left)
	leases, err := s.client.Leases(s.ctx)
	s.must(err, "leases")
	found := false
	for _, lease := range leases.Leases {
		found = found || lease.ID == grant.ID
	}
	s.expect(found, "the lease is not listed")
	once, err := s.client.KeepAliveOnce(s.ctx, grant.ID)
	s.must(err, "keep alive once")
	s.expect(once.TTL == 60, "kept alive for %d", once.TTL)
	_, err = s.client.Revoke(s.ctx, grant.ID)
	s.must(err, "revoke")
	_, err = s.client.Revoke(s.ctx, grant.ID)
	s.expect(errors.Is(err, rpctypes.ErrLeaseNotFound), "revoked again: %v", err)
	_, err = s.client.KeepAliveOnce(s.ctx, grant.ID)
	s.expect(errors.Is(err, rpctypes.ErrLeaseNotFound), "kept alive after the end: %v", err)
	left, err = s.client.TimeToLive(s.ctx, grant.ID)
	s.must(err, "time to live of nothing")
	s.expect(left.TTL == -1, "time to live of nothing: %d", left.TTL)
	gone, err := s.client.Get(s.ctx, s.prefix+"k")
	s.must(err, "get")
	s.expect(gone.Count == 0, "the key is still there")
}

func leaseKeepAlive(s *suite) {
	grant, err := s.client.Grant(s.ctx, 2)
	s.must(err, "grant")
	_, err = s.client.Put(s.ctx, s.prefix+"k", "v", clientv3.WithLease(grant.ID))
	s.must(err, "put")
	alive, err := s.client.KeepAlive(s.ctx, grant.ID)
	s.must(err, "keep alive")
	for begin := time.Now(); time.Since(begin) < 5*time.Second; {
		select {
		case answer, open := <-alive:
			s.expect(open && answer.TTL > 0, "keep alive ended: %v", answer)
		case <-s.ctx.Done():
			s.fail("no answer to a keep alive")
		}
	}
	there, err := s.client.Get(s.ctx, s.prefix+"k")
	s.must(err, "get")
	s.expect(there.Count == 1, "the key is gone although its lease is kept alive")
}

func leaseExpiry(s *suite) {
	grant, err := s.client.Grant(s.ctx, 2)
	s.must(err, "grant")
	put, err := s.client.Put(s.ctx, s.prefix+"k", "v", clientv3.WithLease(grant.ID))
	s.must(err, "put")
	begin := time.Now()
	watch := &events{s: s, channel: s.client.Watch(s.ctx, s.prefix+"k", clientv3.WithRev(put.Header.Revision+1))}
	event := watch.next()
	s.expect(event.Type == clientv3.EventTypeDelete, "%v", event)
	s.expect(time.Since(begin) > 1500*time.Millisecond, "ended after %v already", time.Since(begin))
}

func (s *suite) session(ttl int) (*concurrency.Session, *clientv3.Client) {
	client := s.newClient()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl), concurrency.WithContext(s.ctx))
	s.must(err, "session")
	return session, client
}

// waitClaims returns when so many claims stand under the prefix.
func (s *suite) waitClaims(prefix string, count int64) {
	for {
		answer, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		s.must(err, "count of claims")
		if answer.Count == count {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func mutex(s *suite) {
	one, oneClient := s.session(10)
	defer oneClient.Close()
	two, twoClient := s.session(10)
	defer twoClient.Close()
	first, second := concurrency.NewMutex(one, s.prefix+"m"), concurrency.NewMutex(two, s.prefix+"m")
	s.must(first.Lock(s.ctx), "lock")
	got := make(chan error, 1)
	go func() { got <- second.Lock(s.ctx) }()
	s.waitClaims(s.prefix+"m/", 2)
	select {
	case err := <-got:
		s.fail("both hold it (%v)", err)
	default:
	}
	owner, err := s.client.Txn(s.ctx).If(first.IsOwner()).Then(clientv3.OpGet(first.Key())).Commit()
	s.must(err, "is owner")
	s.expect(owner.Succeeded, "the holder is not the owner")
	token := first.Header().Revision
	s.must(first.Unlock(s.ctx), "unlock")
	s.must(<-got, "the second's lock")
	owner, err = s.client.Txn(s.ctx).If(first.IsOwner()).Commit()
	s.must(err, "is owner")
	s.expect(!owner.Succeeded, "the first is the owner after its unlock")
	key, err := s.client.Get(s.ctx, second.Key())
	s.must(err, "get")
	s.expect(key.Kvs[0].CreateRevision > 0 && second.Header().Revision > token, "tokens %d, %d", token, second.Header().Revision)
	s.must(second.Unlock(s.ctx), "unlock")
}

func mutexMany(s *suite) {
	const workers, rounds = 12, 5
	var inside, entered int64
	var last int64
	var group sync.WaitGroup
	problems := make(chan error, workers)
	for i := 0; i < workers; i++ {
		session, client := s.session(20)
		defer client.Close()
		group.Add(1)
		go func() {
			defer group.Done()
			lock := concurrency.NewMutex(session, s.prefix+"m")
			for round := 0; round < rounds; round++ {
				if err := lock.Lock(s.ctx); err != nil {
					problems <- err
					return
				}
				if atomic.AddInt64(&inside, 1) != 1 {
					problems <- errors.New("two are inside")
				}
				mine, err := client.Get(s.ctx, lock.Key())
				if err != nil || len(mine.Kvs) != 1 || mine.Kvs[0].CreateRevision <= atomic.LoadInt64(&last) {
					problems <- fmt.Errorf("the token does not grow: %v, %v after %d", mine, err, last)
					atomic.AddInt64(&inside, -1)
					return
				}
				atomic.StoreInt64(&last, mine.Kvs[0].CreateRevision)
				atomic.AddInt64(&entered, 1)
				atomic.AddInt64(&inside, -1)
				if err := lock.Unlock(s.ctx); err != nil {
					problems <- err
					return
				}
			}
		}()
	}
	group.Wait()
	select {
	case err := <-problems:
		s.fail("%v", err)
	default:
	}
	s.expect(entered == workers*rounds, "entered %d times", entered)
}

// The holder's client is gone without a word: the waiter gets the lock after the lease's end, and not before.
func mutexOfTheDead(s *suite) {
	holder, holderClient := s.session(3)
	first := concurrency.NewMutex(holder, s.prefix+"m")
	s.must(first.Lock(s.ctx), "lock")
	waiter, waiterClient := s.session(10)
	defer waiterClient.Close()
	second := concurrency.NewMutex(waiter, s.prefix+"m")
	got := make(chan error, 1)
	go func() { got <- second.Lock(s.ctx) }()
	s.waitClaims(s.prefix+"m/", 2)
	begin := time.Now()
	s.must(holderClient.Close(), "close")
	s.must(<-got, "the waiter's lock")
	s.expect(time.Since(begin) > 1500*time.Millisecond, "after %v already", time.Since(begin))
	s.must(second.Unlock(s.ctx), "unlock")
}

func mutexCancel(s *suite) {
	one, oneClient := s.session(10)
	defer oneClient.Close()
	two, twoClient := s.session(10)
	defer twoClient.Close()
	first, second := concurrency.NewMutex(one, s.prefix+"m"), concurrency.NewMutex(two, s.prefix+"m")
	s.must(first.Lock(s.ctx), "lock")
	ctx, cancel := context.WithCancel(s.ctx)
	got := make(chan error, 1)
	go func() { got <- second.Lock(ctx) }()
	s.waitClaims(s.prefix+"m/", 2)
	cancel()
	s.expect(errors.Is(<-got, context.Canceled), "a cancelled lock succeeded")
	// Who waits takes its claim back. Who was cancelled while the answer to its claim was still on its way to it does not:
	// the recipe leaves that to its caller, and which of the two it was cannot be seen.
	s.must(second.Unlock(s.ctx), "unlock of a cancelled one")
	s.waitClaims(s.prefix+"m/", 1)
	s.must(first.Unlock(s.ctx), "unlock")
	s.must(second.Lock(s.ctx), "lock after a cancelled one")
	s.must(second.Unlock(s.ctx), "unlock")
}

func election(s *suite) {
	one, oneClient := s.session(10)
	defer oneClient.Close()
	two, twoClient := s.session(10)
	defer twoClient.Close()
	name := s.prefix + "e"
	first, second := concurrency.NewElection(one, name), concurrency.NewElection(two, name)
	_, err := first.Leader(s.ctx)
	s.expect(errors.Is(err, concurrency.ErrElectionNoLeader), "leader of nothing: %v", err)
	observed := concurrency.NewElection(one, name).Observe(s.ctx)
	next := func(want string) {
		for {
			select {
			case answer, open := <-observed:
				s.expect(open, "observe ended")
				if string(answer.Kvs[0].Value) == want {
					return
				}
			case <-s.ctx.Done():
				s.fail("%q was not observed", want)
			}
		}
	}
	s.must(first.Campaign(s.ctx, "one"), "campaign")
	next("one")
	got := make(chan error, 1)
	go func() { got <- second.Campaign(s.ctx, "two") }()
	s.waitClaims(name+"/", 2)
	s.must(first.Proclaim(s.ctx, "one again"), "proclaim")
	next("one again")
	leader, err := second.Leader(s.ctx)
	s.must(err, "leader")
	s.expect(string(leader.Kvs[0].Value) == "one again" && leader.Kvs[0].CreateRevision == first.Rev(), "leader %v", leader.Kvs[0])
	select {
	case err := <-got:
		s.fail("both lead (%v)", err)
	default:
	}
	s.must(first.Resign(s.ctx), "resign")
	s.must(<-got, "the second's campaign")
	next("two")
	s.expect(first.Proclaim(s.ctx, "late") != nil, "proclaimed after the resignation")
	s.must(second.Resign(s.ctx), "resign")
}

func electionResume(s *suite) {
	session, client := s.session(10)
	defer client.Close()
	name := s.prefix + "e"
	first := concurrency.NewElection(session, name)
	s.must(first.Campaign(s.ctx, "one"), "campaign")
	again := concurrency.ResumeElection(session, name, first.Key(), first.Rev())
	s.must(again.Proclaim(s.ctx, "two"), "proclaim")
	leader, err := again.Leader(s.ctx)
	s.must(err, "leader")
	s.expect(string(leader.Kvs[0].Value) == "two", "leader %v", leader.Kvs[0])
	s.must(again.Resign(s.ctx), "resign")
}
