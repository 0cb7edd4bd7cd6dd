// Drives a cluster with npm's etcd3 and prints a line for each check. Started by node_test.py, which kills servers when
// asked to: a line "kill leader" on standard output is answered by one "done" on standard input.
//
//   interop.js [--cacert FILE --cert FILE --key FILE] [--without CHECK,...] ENDPOINTS [CHECK ...]
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const readline = require('node:readline');
const { once } = require('node:events');
const { setTimeout: pause } = require('node:timers/promises');
const { parseArgs } = require('node:util');

const { Etcd3, EtcdLeaseInvalidError, EtcdLockFailedError, GRPCInvalidArgumentError } = require('etcd3');

// Bounds each check: nothing here may hang.
const limit = 60_000;
// The library's numbers of isolation, which it does not export.
const serializable = 1;
const repeatableReads = 2;
// Of one attempt that is repeated while a leader is elected.
const attempt = 2_000;

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function order(what) {
  console.log(what);
  const { value } = await input.next();
  assert.equal(value, 'done', `no answer to ${what}`);
}
// Returns when the leader's process is gone; bringBack when it serves again.
const killLeader = () => order('kill leader');
const bringBack = () => order('bring back');

// Repeats what may fail while a leader is elected; what is repeated may happen twice.
async function retry(call) {
  const end = Date.now() + limit;
  for (;;) {
    try {
      return await call({ deadline: Date.now() + attempt });
    } catch (error) {
      if (error instanceof assert.AssertionError || Date.now() > end) throw error;
      await pause(20);
    }
  }
}

// What a watcher tells, one after the other.
class Seen {
  constructor(watcher) {
    this.events = [];
    this.waiting = null;
    watcher.on('put', (kv, previous) => this.tell({ type: 'put', kv, previous }));
    watcher.on('delete', (kv, previous) => this.tell({ type: 'delete', kv, previous }));
  }

  tell(event) {
    this.events.push(event);
    if (this.waiting !== null) this.waiting();
  }

  async next() {
    while (this.events.length === 0) {
      await new Promise((resolve) => {
        this.waiting = resolve;
      });
      this.waiting = null;
    }
    return this.events.shift();
  }

  async text() {
    const { type, kv } = await this.next();
    return `${type} ${kv.key} ${kv.value}`;
  }
}

async function putGet(client) {
  assert.equal(await client.get('none').string(), null);
  const first = await client.put('a').value('1');
  assert.ok(BigInt(first.header.revision) > 0n && BigInt(first.header.raft_term) > 0n);
  const again = await client.put('a').value('2').getPrevious();
  assert.equal(again.value.toString(), '1');
  assert.equal(await client.get('a').string(), '2');
  assert.equal(await client.get('a').number(), 2);
  assert.equal(await client.get('a').revision(first.header.revision).string(), '1');
  const { kvs } = await client.get('a').exec();
  assert.equal(kvs[0].create_revision, first.header.revision);
  assert.equal(kvs[0].version, '2');
  assert.equal(await client.get('a').exists(), true);
  await client.put('a').value('3').touch();
  assert.equal(await client.get('a').string(), '2');
  const gone = await client.delete().key('a').getPrevious();
  assert.equal(gone[0].value.toString(), '2');
  assert.equal((await client.delete().key('a').exec()).deleted, '0');
}

async function ranges(client) {
  for (let i = 0; i < 10; ++i) await client.put(`r/${i}`).value(String(9 - i));
  const names = [...Array(10).keys()].map((i) => `r/${i}`);
  assert.deepEqual(await client.getAll().prefix('r/').keys(), names);
  assert.deepEqual(Object.keys(await client.getAll().prefix('r/').strings()), names);
  assert.deepEqual(await client.getAll().prefix('r/').sort('Value', 'Ascend').keys(), [...names].reverse());
  assert.deepEqual(await client.getAll().prefix('r/').sort('Key', 'Descend').limit(2).keys(), ['r/9', 'r/8']);
  assert.deepEqual(await client.getAll().inRange({ start: 'r/3', end: 'r/6' }).keys(), names.slice(3, 6));
  assert.equal(await client.getAll().prefix('r/').count(), 10);
  assert.equal((await client.delete().prefix('r/').exec()).deleted, '10');
}

async function large(client) {
  const value = Buffer.alloc(1 << 20, 'x');
  for (let i = 0; i < 3; ++i) await client.put(`large/${i}`).value(value);
  assert.ok((await client.get('large/2').buffer()).equals(value));
  await assert.rejects(
    client.put('larger').value(Buffer.alloc(3 << 19, 'x')).exec(),
    (error) => error instanceof GRPCInvalidArgumentError && error.message.includes('etcdserver: request is too large'));
}

async function transactions(client) {
  const create = () =>
    client
      .if('a', 'Create', '==', 0)
      .then(client.put('a').value('made'))
      .else(client.get('a'))
      .commit();
  assert.equal((await create()).succeeded, true);
  const second = await create();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), 'made');
  const all = await client
    .if('a', 'Value', '==', 'made')
    .and('a', 'Version', '<', 2)
    .and('a', 'Mod', '>', 0)
    .and('a', 'Lease', '==', 0)
    .and('b', 'Version', '!=', 1)
    .then(client.put('b').value('both'), client.delete().key('a'))
    .commit();
  assert.equal(all.succeeded, true);
  assert.equal(await client.get('b').string(), 'both');
  assert.equal(await client.get('a').exists(), false);
}

// Eight at once, each until it has moved ten: the library repeats what another's write got in the way of. Its default of
// isolation never writes two keys of different ages, on etcd as here; the next one reads what follows at the first read's
// revision from whichever server comes next, be it behind: etcd's own answer is then an error. It is for one server.
async function stm(client, whole, servers) {
  const isolation = servers > 1 ? repeatableReads : serializable;
  await client.put('from').value(80);
  await client.put('to').value(0);
  const move = () =>
    client.stm({ retries: 1000, isolation }).transact(async (tx) => {
      const [from, to] = [await tx.get('from').number(), await tx.get('to').number()];
      await tx.put('from').value(from - 1);
      await tx.put('to').value(to + 1);
    });
  await Promise.all([...Array(8)].map(async () => {
    for (let i = 0; i < 10; ++i) await move();
  }));
  assert.equal(await client.get('from').number(), 0);
  assert.equal(await client.get('to').number(), 80);
}

async function watches(client) {
  const start = (await client.put('a').value('0')).header.revision;
  const watcher = await client.watch().key('a').startRevision(start).withPreviousKV().create();
  const seen = new Seen(watcher);
  assert.equal(await seen.text(), 'put a 0');
  const other = await client.watch().prefix('').only('put').create();
  const puts = new Seen(other);
  await client.put('a').value('1');
  const event = await seen.next();
  assert.equal(event.previous.value.toString(), '0');
  assert.equal(await puts.text(), 'put a 1');
  await client.delete().key('a');
  assert.equal(await seen.text(), 'delete a ');
  await client.put('b').value('2');
  assert.equal(await puts.text(), 'put b 2');
  await watcher.cancel();
  await client.put('a').value('3');
  assert.equal(await puts.text(), 'put a 3');
  assert.equal(seen.events.length, 0);
  await other.cancel();
}

async function leases(client) {
  const lease = client.lease(60, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put('a').value('1');
  assert.equal((await lease.keepaliveOnce()).TTL, '60');
  const left = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  assert.equal(left.grantedTTL, '60');
  assert.equal(left.keys.length, 1);
  await lease.revoke();
  assert.equal(await client.get('a').exists(), false);
  await assert.rejects(client.leaseClient.leaseRevoke({ ID: id }), EtcdLeaseInvalidError);
  // Between the first and the last of five renewals lie four times a third of what the lease lives by itself.
  const kept = client.lease(2);
  await kept.put('a').value('2');
  for (let i = 0; i < 5; ++i) await once(kept, 'keepaliveSucceeded');
  const { header } = await client.get('a').exec();
  assert.equal(await client.get('a').string(), '2');
  kept.release();
  const watcher = await client.watch().key('a').startRevision(String(BigInt(header.revision) + 1n)).create();
  assert.equal(await new Seen(watcher).text(), 'delete a ');
  await watcher.cancel();
}

async function locks(client) {
  const first = client.lock('l').ttl(20);
  await first.acquire();
  await assert.rejects(client.lock('l').acquire(), EtcdLockFailedError);
  await first.release();
  assert.equal(await client.lock('l').do(async () => 'held'), 'held');
  assert.equal(await client.get('l').exists(), false);
}

async function elections(client) {
  const election = client.election('e', 20);
  assert.equal(await election.leader(), undefined);
  const first = election.campaign('one');
  await first.wait();
  assert.equal(await election.leader(), 'one');
  const observer = await election.observe();
  const changed = async (value) => {
    while (observer.leader() !== value) await once(observer, 'change');
  };
  await changed('one');
  await first.proclaim('one again');
  await changed('one again');
  const second = election.campaign('two');
  const elected = second.wait();
  await once(second, '_isWaiting');
  assert.equal(await election.leader(), 'one again');
  await first.resign();
  await elected;
  await changed('two');
  await second.resign();
  await observer.cancel();
}

async function clusterCalls(client, whole) {
  const status = await whole.maintenance.status();
  const { members } = await whole.cluster.memberList({});
  assert.ok(members.some((member) => member.ID === status.leader));
  assert.match(status.version, /^3\.\d+\.\d+$/);
  assert.deepEqual((await whole.maintenance.alarm({ action: 'Get', memberID: 0, alarm: 'None' })).alarms, []);
  await whole.maintenance.defragment();
  const stream = await whole.maintenance.snapshot();
  let bytes = 0;
  stream.on('data', ({ blob }) => {
    bytes += blob.length;
  });
  await once(stream, 'end');
  assert.equal(bytes % 512, 32);
}

async function putsGoOn(client) {
  for (let i = 10; i < 30; ++i) await client.put(`k/${i}`).value(i);
  const before = await client.getAll().prefix('k/').exec();
  await killLeader();
  await retry((options) => client.put('after').value('x').options(options).exec());
  const after = await retry((options) => client.getAll().prefix('k/').options(options).exec());
  assert.deepEqual(after.kvs, before.kvs);
  assert.ok(BigInt(after.header.revision) > BigInt(before.header.revision));
  await bringBack();
}

// The library begins the watch again by itself, from where it was.
async function watchGoesOn(client) {
  const start = (await client.put('a').value('0')).header.revision;
  const watcher = await client.watch().key('a').startRevision(start).create();
  const seen = new Seen(watcher);
  assert.equal(await seen.text(), 'put a 0');
  await killLeader();
  for (let i = 1; i <= 20; ++i) await retry((options) => client.put('a').value(i).options(options).exec());
  let value = 0;
  while (value < 20) {
    const told = Number((await seen.next()).kv.value);
    // A put that was repeated may stand twice.
    assert.ok(told === value || told === value + 1, `${told} after ${value}`);
    value = told;
  }
  await bringBack();
  await watcher.cancel();
}

async function lockIsKept(client) {
  const lock = client.lock('l').ttl(6);
  await lock.acquire();
  await killLeader();
  const renewed = once(lock.lease, 'keepaliveSucceeded');
  await retry((options) => client.put('x').value('1').options(options).exec());
  await renewed;
  assert.equal(await retry((options) => client.get('l').options(options).exists()), true);
  await assert.rejects(retry(async (options) => {
    try {
      await client.lock('l').options(options).acquire();
    } catch (error) {
      assert.ok(!(error instanceof EtcdLockFailedError), 'held');
      throw error;
    }
  }), { message: 'held' });
  await lock.release();
  await bringBack();
}

const checks = [
  putGet, ranges, large, transactions, stm, watches, leases, locks, elections, clusterCalls,
];
const leaderChecks = [putsGoOn, watchGoesOn, lockIsKept];

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      cacert: { type: 'string' },
      cert: { type: 'string' },
      key: { type: 'string' },
      without: { type: 'string', default: '' },
    },
  });
  const hosts = positionals[0].split(',');
  const wanted = positionals.slice(1);
  const unwanted = values.without.split(',');
  const options = { hosts };
  if (values.cacert !== undefined) {
    options.hosts = hosts.map((host) => `https://${host}`);
    options.credentials = {
      rootCertificate: fs.readFileSync(values.cacert),
      privateKey: fs.readFileSync(values.key),
      certChain: fs.readFileSync(values.cert),
    };
  }
  let ran = 0;
  let failures = 0;
  for (const check of hosts.length > 1 ? [...checks, ...leaderChecks] : checks) {
    if ((wanted.length > 0 && !wanted.includes(check.name)) || unwanted.includes(check.name)) continue;
    ++ran;
    const begin = Date.now();
    const client = new Etcd3(options);
    const late = new AbortController();
    try {
      await Promise.race([
        check(client.namespace(`node/${check.name}/`), client, hosts.length),
        pause(limit, undefined, { signal: late.signal }).then(() => {
          throw new Error('not within its limit');
        }),
      ]);
      console.log(`ok ${check.name} ${((Date.now() - begin) / 1000).toFixed(2)} s`);
    } catch (error) {
      ++failures;
      console.log(`FAIL ${check.name}: ${String(error.stack ?? error).replaceAll('\n', ' ')}`);
    } finally {
      late.abort();
      client.close();
    }
  }
  console.log(`${ran} checks, ${failures} failed`);
  process.exit(failures > 0 || ran === 0 ? 1 : 0);
}

main();
