package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
)

var kvChecks = []check{
	{"put-get", putGet},
	{"ranges", ranges},
	{"errors", errorTexts},
	{"transactions", transactions},
	{"nested-transactions", nestedTransactions},
	{"stm", stm},
	{"compaction", compaction},
	{"parallel-puts", parallelPuts},
	{"cluster", clusterCalls},
}

func putGet(s *suite) {
	key := s.prefix + "k"
	first, err := s.client.Put(s.ctx, key, "one")
	s.must(err, "put")
	second, err := s.client.Put(s.ctx, key, "two", clientv3.WithPrevKV())
	s.must(err, "put")
	s.expect(string(second.PrevKv.Value) == "one", "previous value %q", second.PrevKv.Value)
	s.expect(second.Header.Revision == first.Header.Revision+1, "revisions %d, %d", first.Header.Revision, second.Header.Revision)
	answer, err := s.client.Get(s.ctx, key)
	s.must(err, "get")
	s.expect(answer.Count == 1 && string(answer.Kvs[0].Value) == "two" && answer.Kvs[0].Version == 2, "got %v", answer.Kvs)
	old, err := s.client.Get(s.ctx, key, clientv3.WithRev(first.Header.Revision))
	s.must(err, "get at a revision")
	s.expect(string(old.Kvs[0].Value) == "one", "old value %q", old.Kvs[0].Value)
	gone, err := s.client.Delete(s.ctx, key, clientv3.WithPrevKV())
	s.must(err, "delete")
	s.expect(gone.Deleted == 1 && string(gone.PrevKvs[0].Value) == "two", "deleted %v", gone)
	empty, err := s.client.Get(s.ctx, key)
	s.must(err, "get of nothing")
	s.expect(empty.Count == 0 && len(empty.Kvs) == 0, "got %v", empty.Kvs)
}

func ranges(s *suite) {
	for i := 0; i < 50; i++ {
		_, err := s.client.Put(s.ctx, fmt.Sprintf("%s%02d", s.prefix, i), fmt.Sprint(99-i))
		s.must(err, "put")
	}
	all, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithLimit(7))
	s.must(err, "range")
	s.expect(all.Count == 50 && len(all.Kvs) == 7 && all.More, "count %d, %d keys, more %v", all.Count, len(all.Kvs), all.More)
	last, err := s.client.Get(s.ctx, s.prefix, clientv3.WithLastKey()...)
	s.must(err, "last key")
	s.expect(string(last.Kvs[0].Key) == s.prefix+"49", "last key %q", last.Kvs[0].Key)
	byValue, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(1))
	s.must(err, "by value")
	s.expect(string(byValue.Kvs[0].Value) == "50", "smallest value %q", byValue.Kvs[0].Value)
	count, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	s.must(err, "count")
	s.expect(count.Count == 50 && len(count.Kvs) == 0, "count %d, %d keys", count.Count, len(count.Kvs))
	newest, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithMinModRev(all.Kvs[0].ModRevision+40))
	s.must(err, "by revision")
	s.expect(len(newest.Kvs) == 10, "%d keys of the last revisions", len(newest.Kvs))
	keys, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithSerializable())
	s.must(err, "keys only")
	for _, kv := range keys.Kvs {
		s.expect(len(kv.Value) == 0, "a value in %v", kv)
	}
	gone, err := s.client.Delete(s.ctx, s.prefix+"10", clientv3.WithRange(s.prefix+"20"))
	s.must(err, "delete range")
	s.expect(gone.Deleted == 10, "deleted %d", gone.Deleted)
}

func errorTexts(s *suite) {
	_, err := s.client.Put(s.ctx, "", "x")
	s.expect(errors.Is(err, rpctypes.ErrEmptyKey), "empty key: %v", err)
	_, err = s.client.Get(s.ctx, s.prefix, clientv3.WithRev(1<<40))
	s.expect(errors.Is(err, rpctypes.ErrFutureRev), "future: %v", err)
	_, err = s.client.Put(s.ctx, s.prefix, "x", clientv3.WithLease(1234567))
	s.expect(errors.Is(err, rpctypes.ErrLeaseNotFound), "lease: %v", err)
	_, err = s.client.Put(s.ctx, s.prefix+"none", "", clientv3.WithIgnoreValue())
	s.expect(errors.Is(err, rpctypes.ErrKeyNotFound), "ignore value: %v", err)
	var many []clientv3.Op
	for i := 0; i < 129; i++ {
		many = append(many, clientv3.OpPut(fmt.Sprint(s.prefix, i), ""))
	}
	_, err = s.client.Txn(s.ctx).Then(many...).Commit()
	s.expect(errors.Is(err, rpctypes.ErrTooManyOps), "too many: %v", err)
	_, err = s.client.Txn(s.ctx).Then(many[0], many[0]).Commit()
	s.expect(errors.Is(err, rpctypes.ErrDuplicateKey), "duplicate: %v", err)
	_, err = s.client.Txn(s.ctx).Then(many[:128]...).Commit()
	s.must(err, "128 puts")
}

func transactions(s *suite) {
	key := s.prefix + "k"
	create := func() (*clientv3.TxnResponse, error) {
		return s.client.Txn(s.ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, "made"), clientv3.OpPut(key+"2", "too")).
			Else(clientv3.OpGet(key), clientv3.OpGet(s.prefix, clientv3.WithPrefix())).Commit()
	}
	first, err := create()
	s.must(err, "create")
	s.expect(first.Succeeded && len(first.Responses) == 2, "not created")
	second, err := create()
	s.must(err, "create again")
	s.expect(!second.Succeeded, "created twice")
	kv := second.Responses[0].GetResponseRange().Kvs[0]
	s.expect(string(kv.Value) == "made" && kv.CreateRevision == first.Header.Revision, "read %v", kv)
	s.expect(second.Responses[1].GetResponseRange().Count == 2, "range in a transaction")
	compares := []struct {
		compare clientv3.Cmp
		holds   bool
	}{
		{clientv3.Compare(clientv3.Value(key), "=", "made"), true},
		{clientv3.Compare(clientv3.Value(key), ">", "zzz"), false},
		{clientv3.Compare(clientv3.Version(key), "!=", 7), true},
		{clientv3.Compare(clientv3.ModRevision(key), "<", kv.ModRevision+1), true},
		{clientv3.Compare(clientv3.LeaseValue(key), "=", 0), true},
		{clientv3.Compare(clientv3.Value(s.prefix+"none"), "!=", "x"), false},
		{clientv3.Compare(clientv3.Version(s.prefix).WithPrefix(), "=", 1), true},
	}
	for i, c := range compares {
		answer, err := s.client.Txn(s.ctx).If(c.compare).Then(clientv3.OpGet(key)).Commit()
		s.must(err, "compare")
		s.expect(answer.Succeeded == c.holds, "compare %d: %v", i, answer.Succeeded)
	}
}

func nestedTransactions(s *suite) {
	a, b := s.prefix+"a", s.prefix+"b"
	_, err := s.client.Put(s.ctx, a, "1")
	s.must(err, "put")
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value(a), "=", "1")},
		[]clientv3.Op{clientv3.OpPut(b, "inner"), clientv3.OpGet(b)},
		[]clientv3.Op{clientv3.OpPut(b, "other")})
	answer, err := s.client.Txn(s.ctx).Then(inner, clientv3.OpDelete(a)).Commit()
	s.must(err, "nested")
	nested := answer.Responses[0].GetResponseTxn()
	s.expect(nested.Succeeded, "the inner compare failed")
	s.expect(string(nested.Responses[1].GetResponseRange().Kvs[0].Value) == "inner", "the inner read sees %v", nested.Responses[1])
	s.expect(answer.Responses[1].GetResponseDeleteRange().Deleted == 1, "the delete after it")
}

// Eight clients move money between accounts; none of it is lost or made.
func stm(s *suite) {
	// The default reads what follows at the first read's revision from whichever server comes next, be it behind: etcd's
	// own answer is then an error. It is for one server.
	isolation := concurrency.SerializableSnapshot
	if len(s.client.Endpoints()) > 1 {
		isolation = concurrency.RepeatableReads
	}
	accounts := 5
	for i := 0; i < accounts; i++ {
		_, err := s.client.Put(s.ctx, fmt.Sprint(s.prefix, i), "\x64")
		s.must(err, "put")
	}
	var group sync.WaitGroup
	problems := make(chan error, 8)
	for worker := 0; worker < 8; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			for i := 0; i < 10; i++ {
				from, to := fmt.Sprint(s.prefix, (worker+i)%accounts), fmt.Sprint(s.prefix, (worker+2*i+1)%accounts)
				if from == to {
					continue
				}
				_, err := concurrency.NewSTM(s.client, func(stm concurrency.STM) error {
					a, b := stm.Get(from)[0], stm.Get(to)[0]
					if a == 0 || b == 255 {
						return nil
					}
					stm.Put(from, string([]byte{a - 1}))
					stm.Put(to, string([]byte{b + 1}))
					return nil
				}, concurrency.WithAbortContext(s.ctx), concurrency.WithIsolation(isolation))
				if err != nil {
					problems <- err
					return
				}
			}
		}(worker)
	}
	group.Wait()
	select {
	case err := <-problems:
		s.fail("stm: %v", err)
	default:
	}
	all, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix())
	s.must(err, "get")
	sum := 0
	for _, kv := range all.Kvs {
		sum += int(kv.Value[0])
	}
	s.expect(sum == accounts*100, "the sum is %d", sum)
}

func compaction(s *suite) {
	key := s.prefix + "k"
	first, err := s.client.Put(s.ctx, key, "1")
	s.must(err, "put")
	second, err := s.client.Put(s.ctx, key, "2")
	s.must(err, "put")
	_, err = s.client.Compact(s.ctx, second.Header.Revision, clientv3.WithCompactPhysical())
	s.must(err, "compact")
	_, err = s.client.Get(s.ctx, key, clientv3.WithRev(first.Header.Revision))
	s.expect(errors.Is(err, rpctypes.ErrCompacted), "read of what is gone: %v", err)
	_, err = s.client.Get(s.ctx, key, clientv3.WithRev(second.Header.Revision))
	s.must(err, "read at the compacted revision")
	_, err = s.client.Compact(s.ctx, second.Header.Revision)
	s.expect(errors.Is(err, rpctypes.ErrCompacted), "compacted again: %v", err)
	watch := s.client.Watch(s.ctx, key, clientv3.WithRev(first.Header.Revision))
	answer := <-watch
	s.expect(answer.Canceled && answer.CompactRevision == second.Header.Revision, "watch of what is gone: %+v", answer)
}

func parallelPuts(s *suite) {
	var group sync.WaitGroup
	problems := make(chan error, 64)
	for i := 0; i < 64; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			for n := 0; n < 20; n++ {
				if _, err := s.client.Put(s.ctx, fmt.Sprintf("%s%d", s.prefix, i), fmt.Sprint(n)); err != nil {
					problems <- err
					return
				}
			}
		}(i)
	}
	group.Wait()
	select {
	case err := <-problems:
		s.fail("put: %v", err)
	default:
	}
	all, err := s.client.Get(s.ctx, s.prefix, clientv3.WithPrefix())
	s.must(err, "get")
	s.expect(all.Count == 64, "%d keys", all.Count)
	for _, kv := range all.Kvs {
		s.expect(string(kv.Value) == "19" && kv.Version == 20, "%v", kv)
	}
}

func clusterCalls(s *suite) {
	members, err := s.client.MemberList(s.ctx)
	s.must(err, "member list")
	s.expect(len(members.Members) == len(s.client.Endpoints()), "%d members", len(members.Members))
	for _, endpoint := range s.client.Endpoints() {
		status, err := s.client.Status(s.ctx, endpoint)
		s.must(err, "status")
		s.expect(status.Leader != 0 && status.RaftTerm > 0 && status.Version != "", "status %v", status)
	}
	alarms, err := s.client.AlarmList(s.ctx)
	s.must(err, "alarm list")
	s.expect(len(alarms.Alarms) == 0, "alarms %v", alarms.Alarms)
	s.must(s.client.Sync(context.Background()), "sync")
}
