// The job store on a Redis that speaks TLS: whom it believes, what it says of others, and that what goes through is whole. The server that the tests bring
// along cannot: a door before it does. What a store does is the same over TLS, and is shown by its other suites.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { createServer, getCACertificates, setDefaultCACertificates } from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import { JobStatus } from '../src/jobs/job.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { Certificates } from './access/certificates.ts';
import { collect, patiently, statusOf } from './contract/calls.ts';
import { wantedJob } from './contract/job-store.ts';

const NEVER = new AbortController().signal;
let certificates: Certificates;
let server: RedisServer;
const doors: AsyncDisposable[] = [];
/** Connections through the doors. */
const through = new Set<Socket>();
let port: number;

/** A door with that certificate; answers its port. */
async function door(name: string): Promise<number> {
  const listening = createServer(certificates.pair(name), (client) => {
    const upstream = connect(server.port, '127.0.0.1');
    client.pipe(upstream).pipe(client);
    through.add(client.on('close', () => through.delete(client)));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const)
      one.on('error', () => {}).on('close', () => other.destroy());
  }).listen(0, '127.0.0.1');
  listening.on('tlsClientError', () => {});
  await once(listening, 'listening');
  doors.push({
    async [Symbol.asyncDispose]() {
      listening.close();
    },
  });
  return (listening.address() as AddressInfo).port;
}

before(async () => {
  server = await startRedis();
  certificates = new Certificates();
  for (const name of ['ours', 'theirs']) certificates.addAuthority(name);
  certificates.sign('redis', 'ours', { subject: '/CN=redis' });
  certificates.sign('unknown', 'theirs', { subject: '/CN=redis' });
  certificates.sign('elsewhere', 'ours', { subject: '/CN=redis', names: 'DNS:redis.example.com' });
  // As NODE_EXTRA_CA_CERTS does at the start of a process.
  setDefaultCACertificates([...getCACertificates('default'), certificates.read('ours.pem').toString()]);
  port = await door('redis');
});
after(async () => {
  for (const one of doors) await one[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  certificates[Symbol.dispose]();
});

describe('a Redis over TLS', () => {
  const refused = async (url: string, words: RegExp) => {
    await assert.rejects(openRedisJobStore({ url, fleet: randomUUID(), timeoutMs: 1000 }), (error: Error) => {
      assert.match(error.message, words);
      assert.ok(!error.message.includes('hidden'), error.message);
      return true;
    });
  };

  it('whose authority is not known is refused in words', async () => {
    const url = `rediss://:hidden@localhost:${await door('unknown')}`;
    await refused(
      url,
      /^cannot open the job store rediss:\S+: its certificate is signed by nobody who is known here .*NODE_EXTRA_CA_CERTS/,
    );
  });

  it('whose certificate is for another name is refused in words', async () => {
    await refused(
      `rediss://:hidden@localhost:${await door('elsewhere')}`,
      /its certificate is for another name; correct the host in FFJOBS_STORE/,
    );
  });

  it('carries a whole job with what is large in it, and goes on when its connections break', async (t) => {
    const store = await openRedisJobStore({ url: `rediss://localhost:${port}`, fleet: randomUUID() });
    t.after(() => store[Symbol.asyncDispose]());
    const parameters = { notes: 'é'.repeat(300_000) };
    const { job } = await store.submit(wantedJob({ request: { parameters } }), { maxQueued: 10, idempotencyMs: 1000 });
    const lease = (await store.claim({ node: 'node' }, NEVER))!;
    assert.deepEqual(lease.job.request!.parameters, parameters);
    await lease.begin({ slot: 'node/0', engine: undefined });
    const watched = collect(store.watch(job.jobId, 0, NEVER));
    assert.ok(through.size > 0);
    for (const connection of through) connection.destroy();
    await patiently(() => store.ping());
    const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: 'aa'.repeat(32) });
    await patiently(() => lease.complete({ result, warnings: [], timings: create(TimingsSchema, {}) }));
    const events = await watched;
    assert.equal(statusOf(events.at(-1)!), JobStatus.SUCCEEDED);
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      events.map((_, i) => events[0]!.sequence + i),
    );
  });

  it('is not found where there is none, and not spoken to without it', async () => {
    await refused(`rediss://localhost:${server.port}`, /^cannot open the job store rediss:\S+: /);
    await refused(`redis://localhost:${port}`, /^cannot open the job store redis:\S+: /);
  });
});
