// Webhooks of the real service: signed, at least once, in order, and nobody waits for a receiver that does not answer.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { startServiceProcess } from '../scripts/cluster/service-process.ts';
import { startRedis } from '../scripts/redis-server.ts';
import { openWebhooks } from '../src/app/webhooks.ts';
import { verifyWebhook } from '../src/client/webhook.ts';
import { readConfig } from '../src/config.ts';
import { DEFAULT_TENANT } from '../src/jobs/caller.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startSecured } from './api/secured.ts';
import { python, ROOT, type Service, startService, untilWarm } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { wantedJob } from './contract/job-store.ts';

const SECRET = `whsec_${Buffer.from('a secret of the tests, long enough').toString('base64')}`;
const picture = (webhook: Json | null = null): Json => ({ source_images: ['face.jpg'], target_image: 'target.png', webhook });

interface Request {
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** A receiver that keeps what it is told, and answers as it is told to. */
async function receiver(t: TestContext, answer: (response: ServerResponse, nth: number) => void = (response) => void response.end()) {
  const got: Request[] = [];
  let wake = () => {};
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      got.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      answer(response, got.length);
      wake();
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}/hook`,
    got,
    async count(many: number) {
      while (got.length < many)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      return got;
    },
  };
}

async function service(t: TestContext, settings: Record<string, string> = {}): Promise<Service> {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-hooks-'));
  await writeFile(join(dir, 'secrets'), `# of everybody\n${SECRET}\n`);
  const started = await startService({
    WEBHOOK_SECRETS_FILE: join(dir, 'secrets'),
    ...settings,
  });
  t.after(async () => {
    await started[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });
  return started;
}

const allowed = (...urls: string[]) => ({ WEBHOOK_ALLOW: urls.map((url) => new URL(url).host).join() });

test('a node that only works needs the receiver of all jobs, and no secret to tell it with', async () => {
  const settings = { FFJOBS_WEBHOOK_URL: 'https://hooks.example.com/', FFJOBS_STORE: 'redis://127.0.0.1:1' };
  const open = (role: string, more = {}) => openWebhooks(readConfig({ ...settings, FFJOBS_ROLE: role, ...more }, ROOT));
  await open('worker');
  await open('worker', { FFJOBS_WEBHOOK_SECRETS_FILE: '/nowhere/at/all' });
  await assert.rejects(open('api'), /FFJOBS_WEBHOOK_URL: .*add a line `whsec_\.\.\.` without a tenant to FFJOBS_WEBHOOK_SECRETS_FILE$/);
  await assert.rejects(open('worker', { FFJOBS_WEBHOOK_URL: 'hooks.example.com' }), /allowed: a URL such as/);
});

test('what was left to be told is told at the next start, with a URL of the result', async (t) => {
  const hook = await receiver(t);
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-hooks-'));
  t.after(() => rm(dir, { recursive: true }));
  {
    // The end of a service just after that of a job.
    await using store = await openSqliteJobStore({ path: join(dir, 'jobs.db') });
    const wanted = wantedJob({ tenant: DEFAULT_TENANT, request: { webhook: { url: hook.url } } });
    await store.submit(wanted, { maxQueued: 1, idempotencyMs: 1000 });
    await using lease = (await store.claim({ node: 'node' }, new AbortController().signal))!;
    await lease.begin({ slot: 'node/0', engine: undefined });
    const result = create(MediaResultSchema, { mediaType: 'image/png', sha256: '0'.repeat(64) });
    await lease.complete({ result, warnings: [], timings: create(TimingsSchema) });
  }
  const api = await service(t, { ...allowed(hook.url), DATA_DIR: dir });
  const [told] = await hook.count(1);
  const { data } = verifyWebhook(told!.body, told!.headers, SECRET);
  assert.equal(new URL(data.result_url!).origin, api.baseUrl);
  assert.deepEqual(
    api.logs.filter(({ level }) => (level as number) >= 50).map(({ msg }) => msg),
    [],
  );
});

const STORES = [
  ['SQLite', async () => ({})],
  [
    'Redis',
    async (t: TestContext) => {
      const redis = await startRedis();
      t.after(() => redis[Symbol.asyncDispose]());
      return { STORE: redis.url };
    },
  ],
] as const;

for (const [store, settings] of STORES) {
  // At once: most of it waits for what is sent again.
  describe(`webhooks of jobs in ${store}`, { concurrency: true }, () => {
    test('tell the job as REST answers it, signed so that both clients take it', async (t) => {
      const hook = await receiver(t);
      const api = await service(t, { ...(await settings(t)), ...allowed(hook.url) });
      const client = restClient(api.baseUrl);
      const { job_id } = await client.submit(picture({ url: hook.url, statuses: ['processing', 'succeeded'] }));
      const [begun, done] = await hook.count(2);
      assert.equal(verifyWebhook(begun!.body, begun!.headers, SECRET).type, 'job.processing');
      const event = verifyWebhook(done!.body, done!.headers, SECRET);
      assert.equal(event.type, 'job.succeeded');
      assert.match(event.id, new RegExp(`^msg_${job_id as string}_\\d+$`));
      const { result_url: told, ...rest } = event.data;
      const { result_url: shown, ...job } = await client.get(job_id as string);
      assert.deepEqual(rest, job);
      assert.ok(shown);
      assert.equal(await (await fetch(told as string)).text(), 'scripted');
      const code = `
import json, sys
sys.path.insert(0, ${JSON.stringify(join(ROOT, 'clients/python/src/facefusion_jobs'))})
import webhooks
given = json.load(sys.stdin)
event = webhooks.verify_webhook(given["body"], given["headers"], given["secret"])
try:
    webhooks.verify_webhook(given["body"] + " ", given["headers"], given["secret"])
except webhooks.WebhookRefused:
    print(event.type, event.data["job_id"])
`;
      const given = JSON.stringify({ body: done!.body, headers: done!.headers, secret: SECRET });
      assert.equal(execFileSync(python(), ['-c', code], { input: given }).toString().trim(), `job.succeeded ${job_id as string}`);
      assert.throws(() => verifyWebhook(done!.body.replace('succeeded', 'refused'), done!.headers, SECRET));
    });

    test('come again under the same id after a 500, a closed connection and a redirect that is not followed', async (t) => {
      const elsewhere = await receiver(t);
      const hook = await receiver(t, (response, nth) => {
        if (nth === 1) response.writeHead(500).end();
        else response.end();
      });
      const closing = await receiver(t, (response) => void response.destroy());
      const moved = await receiver(t, (response) => void response.writeHead(307, { location: elsewhere.url }).end());
      const api = await service(t, { ...(await settings(t)), ...allowed(hook.url, closing.url, moved.url, elsewhere.url) });
      const client = restClient(api.baseUrl);
      for (const url of [closing.url, moved.url, hook.url]) await client.submit(picture({ url }));
      const [first, second] = await hook.count(2);
      assert.equal(first!.headers['webhook-id'], second!.headers['webhook-id']);
      await closing.count(2);
      await moved.count(2);
      assert.deepEqual(elsewhere.got, []);
    });

    test('are sent after a restart where the receiver did not answer before, and a slow one takes nobody else’s turn', async (t) => {
      const slow = await receiver(t, () => {});
      const quick = await receiver(t);
      const api = await service(t, { ...(await settings(t)), ...allowed(slow.url, quick.url) });
      const client = restClient(api.baseUrl);
      for (let i = 0; i < 10; i++) await client.submit(picture({ url: slow.url }));
      const { job_id } = await client.submit(picture({ url: quick.url }));
      await untilTerminal(client, job_id as string);
      await quick.count(1);
      assert.ok(slow.got.length <= 4, 'no more of one host at once');
      await api.restart();
      assert.equal(quick.got.length, 1, 'what was delivered is not told again');
    });

    test('go to no private address, and to the configured receiver where a job names none', async (t) => {
      const hook = await receiver(t);
      const api = await service(t, { ...(await settings(t)), ...allowed(hook.url), WEBHOOK_URL: hook.url });
      const client = restClient(api.baseUrl);
      const refused = await client.submit(picture({ url: 'http://127.0.0.2/hook' })).then(
        () => undefined,
        (error: unknown) => error as { violations: { field: string }[] },
      );
      assert.equal(refused?.violations[0]?.field, 'webhook.url');
      const { job_id } = await client.submit(picture());
      const [told] = await hook.count(1);
      assert.equal(verifyWebhook(told!.body, told!.headers, SECRET).data.job_id, job_id);
      const metrics = JSON.stringify(api.logs);
      assert.ok(!metrics.includes(SECRET), 'a secret is in no log');
    });

    test('of one job arrive in order, however often the first is sent', async (t) => {
      const hook = await receiver(t, (response, nth) => void response.writeHead(nth === 1 ? 503 : 204).end());
      const api = await service(t, { ...(await settings(t)), ...allowed(hook.url) });
      const client = restClient(api.baseUrl);
      await client.submit(picture({ url: hook.url, statuses: ['queued', 'processing', 'succeeded'] }));
      await hook.count(4);
      assert.deepEqual(
        hook.got.map(({ body }) => (JSON.parse(body) as { type: string }).type),
        ['job.queued', 'job.queued', 'job.processing', 'job.succeeded'],
      );
    });

    test('give no URL of a result that is purged while they are tried', async (t) => {
      const { promise: purged, resolve: purge } = Promise.withResolvers<void>();
      const hook = await receiver(t, (response, nth) => {
        if (nth > 1) response.end();
        else void purged.then(() => response.writeHead(500).end());
      });
      const api = await service(t, { ...(await settings(t)), ...allowed(hook.url) });
      const client = restClient(api.baseUrl);
      const { job_id } = await client.submit(picture({ url: hook.url }));
      await hook.count(1);
      await client.purge(job_id as string);
      purge();
      const [before, after] = (await hook.count(2)).map(({ body }) => (JSON.parse(body) as { data: Json }).data);
      assert.ok(before!.result_url);
      assert.deepEqual([after!.status, after!.result_url, after!.result], ['succeeded', null, null]);
      assert.ok(after!.purged_at);
    });

    test('that are dead are listed and tried again, over REST and by `ffjobs webhooks`', async (t) => {
      const hook = await receiver(t, (response, nth) => void response.writeHead(nth <= 3 ? 410 : 200).end());
      const api = await service(t, { ...(await settings(t)), ...allowed(hook.url) });
      const client = restClient(api.baseUrl);
      for (let i = 0; i < 3; i++) await client.submit(picture({ url: hook.url }));
      await hook.count(3);
      const listed = async (query = '') => {
        const response = await fetch(`${api.baseUrl}/api/v1/webhooks${query}`);
        return (await response.json()) as { deliveries: Json[]; next_page_token: string; message?: string };
      };
      // An answer has been read before its outcome is written.
      while ((await listed()).deliveries.length < 3) await new Promise((resolve) => setImmediate(resolve));
      const { deliveries } = await listed();
      const { delivery_id, job_id, created_at, tried_since, ...facts } = deliveries[0]!;
      assert.deepEqual(facts, { status: 'succeeded', state: 'dead', host: new URL(hook.url).host, attempts: 1, error: 'it answered 410' });
      assert.ok(delivery_id && job_id && created_at && tried_since);
      const first = await listed('?page_size=2');
      const second = await listed(`?page_size=2&page_token=${first.next_page_token}`);
      assert.deepEqual([...first.deliveries, ...second.deliveries], deliveries);
      assert.equal(second.next_page_token, '');
      assert.match((await listed('?page_token=none')).message!, /page_token/);
      assert.deepEqual((await listed('?state=pending')).deliveries, []);

      const replay = (id: string) => fetch(`${api.baseUrl}/api/v1/webhooks/${id}:replay`, { method: 'POST' });
      const answer = await replay(delivery_id as string);
      assert.equal(answer.status, 202);
      assert.equal(((await answer.json()) as Json).state, 'pending');
      assert.equal((await hook.count(4)).at(-1)!.headers['webhook-id'], delivery_id);
      const unknown = await replay('msg_none');
      assert.deepEqual([unknown.status, ((await unknown.json()) as Json).code], [404, 'NOT_FOUND']);

      const terminal = new FakeTerminal();
      const cli = (...args: string[]) => ffjobs(['webhooks', ...args], terminal, { server: api.baseUrl });
      assert.equal(await cli('list'), 0);
      assert.match(terminal.lines[0]!, /^DELIVERY +STATUS/);
      assert.equal(terminal.lines.length, 3);
      const third = deliveries[2]!.delivery_id as string;
      assert.equal(await cli('replay', 'msg_none', third), 5, 'one of them is not known');
      assert.match(terminal.stderr, /there is no delivery 'msg_none'/);
      assert.equal(await cli('replay', '--all', '--json'), 0);
      await hook.count(6);
      assert.deepEqual(
        new Set(hook.got.slice(3).map(({ headers }) => headers['webhook-id'])),
        new Set(deliveries.map((one) => one.delivery_id)),
      );
      assert.equal(await cli('replay'), 2);
      assert.equal(await cli('replay', third, '--all'), 2);
    });

    test('come again, under the same id, after the service was killed between sending and noting it', async (t) => {
      const { promise: killed, resolve: kill } = Promise.withResolvers<void>();
      const hook = await receiver(t, (response, nth) => {
        if (nth > 1) response.end();
        else kill();
      });
      const dir = await mkdtemp(join(tmpdir(), 'ffjobs-killed-'));
      await mkdir(join(dir, 'input'));
      for (const name of ['face.jpg', 'target.png']) await cp(join(ROOT, 'samples', 'eileen_collins.jpg'), join(dir, 'input', name));
      await writeFile(join(dir, 'secrets'), `${SECRET}\n`);
      const engines = {
        ENGINE: 'scripted:Scripted',
        ENGINE_PATH: join(ROOT, 'worker', 'tests', 'engines'),
        PYTHON: python(),
        PROBE: 'off',
      };
      const all = { DATA_DIR: dir, WEBHOOK_SECRETS_FILE: join(dir, 'secrets'), ...engines, ...(await settings(t)), ...allowed(hook.url) };
      const start = async () => {
        const started = startServiceProcess({ settings: all, log: join(dir, 'log') });
        return { ...started, client: restClient(await started.listening) };
      };
      const first = await start();
      t.after(async () => {
        first.child.kill('SIGKILL');
        await first.ended;
        await rm(dir, { recursive: true, force: true });
      });
      await untilWarm(await first.listening);
      const { job_id } = await first.client.submit(picture({ url: hook.url }));
      await killed;
      first.child.kill('SIGKILL');
      await first.ended;
      await using second = await start();
      const [before, after] = await hook.count(2);
      assert.equal(after!.headers['webhook-id'], before!.headers['webhook-id']);
      assert.equal(verifyWebhook(after!.body, after!.headers, SECRET).data.job_id, job_id);
      const pending = async () =>
        ((await (await fetch(`${await second.listening}/api/v1/webhooks?state=pending`)).json()) as { deliveries: Json[] }).deliveries;
      while ((await pending()).length > 0) await new Promise((resolve) => setImmediate(resolve));
      assert.equal(hook.got.length, 2);
    });

    test('are signed with the secrets of their tenant, both of them while one replaces the other', async (t) => {
      const hook = await receiver(t);
      const [own, next, others] = ['own', 'next', 'others'].map(
        (word) => `whsec_${Buffer.from(`the secret ${word} of the tests, long enough`).toString('base64')}`,
      ) as [string, string, string];
      const dir = await mkdtemp(join(tmpdir(), 'ffjobs-secrets-'));
      t.after(() => rm(dir, { recursive: true }));
      await writeFile(join(dir, 'secrets'), `own ${own}\nown ${next}\nother ${others}\n`);
      await using api = await startSecured({ WEBHOOK_SECRETS_FILE: join(dir, 'secrets'), ...(await settings(t)), ...allowed(hook.url) });
      const told = async (tenant: string) => {
        await api.furnish(tenant);
        const token = await api.token({ tenant, scopes: ['read', 'submit'] });
        const at = hook.got.length;
        const { job_id } = await restClient(api.baseUrl, token).submit(picture({ url: hook.url }));
        await hook.count(at + 1);
        const { body, headers } = hook.got.at(-1)!;
        assert.equal((JSON.parse(body) as { data: Json }).data.job_id, job_id);
        const takes = (secret: string) => {
          try {
            return verifyWebhook(body, headers, secret).data.job_id === job_id;
          } catch {
            return false;
          }
        };
        return [own, next, others].map(takes);
      };
      assert.deepEqual(await told('own'), [true, true, false]);
      assert.deepEqual(await told('other'), [false, false, true]);
      const token = await api.token({ tenant: 'third', scopes: ['read', 'submit'] });
      await api.furnish('third');
      const none = await restClient(api.baseUrl, token)
        .submit(picture({ url: hook.url }))
        .catch((error: unknown) => error as { violations: { reason: string }[] });
      assert.equal((none as { violations: { reason: string }[] }).violations[0]?.reason, 'WEBHOOKS_OFF');
    });
  });
}
