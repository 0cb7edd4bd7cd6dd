package main

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/clientv3"
)

var watchChecks = []check{
	{"watch", watchEvents},
	{"watch-resume", watchResume},
	{"watch-filters", watchFilters},
	{"watch-fragments", watchFragments},
	{"watch-many", watchMany},
	{"watch-progress", watchProgress},
}

// next is the next event of a watch, whatever answer it came in.
type events struct {
	s       *suite
	channel clientv3.WatchChan
	waiting []*clientv3.Event
}

func (e *events) next() *clientv3.Event {
	for len(e.waiting) == 0 {
		select {
		case answer, open := <-e.channel:
			e.s.expect(open, "the watch ended")
			e.s.must(answer.Err(), "watch")
			e.waiting = append(e.waiting, answer.Events...)
		case <-e.s.ctx.Done():
			e.s.fail("no event came")
		}
	}
	event := e.waiting[0]
	e.waiting = e.waiting[1:]
	return event
}

func watchEvents(s *suite) {
	key := s.prefix + "k"
	first, err := s.client.Put(s.ctx, key, "one")
	s.must(err, "put")
	watch := &events{s: s, channel: s.client.Watch(s.ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(first.Header.Revision), clientv3.WithPrevKV())}
	_, err = s.client.Put(s.ctx, key, "two")
	s.must(err, "put")
	_, err = s.client.Delete(s.ctx, key)
	s.must(err, "delete")
	event := watch.next()
	s.expect(event.IsCreate() && string(event.Kv.Value) == "one" && event.PrevKv == nil, "first %v", event)
	event = watch.next()
	s.expect(event.IsModify() && string(event.Kv.Value) == "two" && string(event.PrevKv.Value) == "one", "second %v", event)
	event = watch.next()
	s.expect(event.Type == clientv3.EventTypeDelete && string(event.PrevKv.Value) == "two", "third %v", event)
}

// A watcher that left comes back at the revision after its last event and misses nothing.
func watchResume(s *suite) {
	start, err := s.client.Put(s.ctx, s.prefix+"start", "")
	s.must(err, "put")
	from, seen := start.Header.Revision+1, 0
	for round := 0; round < 5; round++ {
		for i := 0; i < 20; i++ {
			_, err := s.client.Put(s.ctx, s.prefix+"k", fmt.Sprint(20*round+i))
			s.must(err, "put")
		}
		ctx, cancel := context.WithCancel(s.ctx)
		watch := &events{s: s, channel: s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(from))}
		for i := 0; i < 15; i++ {
			event := watch.next()
			s.expect(string(event.Kv.Value) == fmt.Sprint(seen), "event %q instead of %d", event.Kv.Value, seen)
			seen++
			from = event.Kv.ModRevision + 1
		}
		cancel()
	}
}

func watchFilters(s *suite) {
	start, err := s.client.Put(s.ctx, s.prefix+"start", "")
	s.must(err, "put")
	from := clientv3.WithRev(start.Header.Revision + 1)
	deletes := &events{s: s, channel: s.client.Watch(s.ctx, s.prefix+"k", from, clientv3.WithFilterPut())}
	puts := &events{s: s, channel: s.client.Watch(s.ctx, s.prefix+"k", from, clientv3.WithFilterDelete())}
	for i := 0; i < 3; i++ {
		_, err := s.client.Put(s.ctx, s.prefix+"k", fmt.Sprint(i))
		s.must(err, "put")
		_, err = s.client.Delete(s.ctx, s.prefix+"k")
		s.must(err, "delete")
	}
	for i := 0; i < 3; i++ {
		event := puts.next()
		s.expect(event.Type == clientv3.EventTypePut && string(event.Kv.Value) == fmt.Sprint(i), "put %v", event)
		s.expect(deletes.next().Type == clientv3.EventTypeDelete, "a put among the deletes")
	}
}

// One revision larger than a message: in fragments, put together by the client.
func watchFragments(s *suite) {
	start, err := s.client.Put(s.ctx, s.prefix+"start", "")
	s.must(err, "put")
	large := make([]byte, 500<<10)
	for i := 0; i < 8; i++ {
		_, err := s.client.Put(s.ctx, fmt.Sprint(s.prefix, "k", i), string(large))
		s.must(err, "put")
	}
	_, err = s.client.Delete(s.ctx, s.prefix+"k", clientv3.WithPrefix())
	s.must(err, "delete")
	watch := s.client.Watch(s.ctx, s.prefix+"k", clientv3.WithPrefix(), clientv3.WithRev(start.Header.Revision+1), clientv3.WithPrevKV(), clientv3.WithFragment())
	seen := 0
	for seen < 16 {
		select {
		case answer, open := <-watch:
			s.expect(open, "the watch ended after %d events", seen)
			s.must(answer.Err(), "watch")
			seen += len(answer.Events)
			for _, event := range answer.Events {
				s.expect(event.Type == clientv3.EventTypePut || event.PrevKv != nil, "no previous value of %s at %d, event %d", event.Kv.Key, event.Kv.ModRevision, seen)
			}
		case <-s.ctx.Done():
			s.fail("%d of 16 events came", seen)
		}
	}
}

func watchMany(s *suite) {
	start, err := s.client.Put(s.ctx, s.prefix+"start", "")
	s.must(err, "put")
	var watches []*events
	for i := 0; i < 200; i++ {
		watches = append(watches, &events{s: s, channel: s.client.Watch(s.ctx, s.prefix+"k", clientv3.WithRev(start.Header.Revision+1))})
	}
	for i := 0; i < 10; i++ {
		_, err := s.client.Put(s.ctx, s.prefix+"k", fmt.Sprint(i))
		s.must(err, "put")
	}
	for _, watch := range watches {
		for i := 0; i < 10; i++ {
			event := watch.next()
			s.expect(string(event.Kv.Value) == fmt.Sprint(i), "event %q instead of %d", event.Kv.Value, i)
		}
	}
}

func watchProgress(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	put, err := s.client.Put(s.ctx, s.prefix+"k", "1")
	s.must(err, "put")
	watch := s.client.Watch(ctx, s.prefix+"k", clientv3.WithRev(put.Header.Revision))
	first := <-watch
	s.expect(len(first.Events) == 1, "first %v", first)
	s.must(s.client.RequestProgress(ctx), "request progress")
	select {
	case answer := <-watch:
		s.expect(answer.IsProgressNotify() && answer.Header.Revision >= put.Header.Revision, "progress %+v", answer)
	case <-s.ctx.Done():
		s.fail("no progress was told")
	}
}
