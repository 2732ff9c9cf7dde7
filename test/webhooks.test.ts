// Webhooks of the real service: signed, at least once, in order, and nobody waits for a receiver that does not answer.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { startRedis } from '../scripts/redis-server.ts';
import { verifyWebhook } from '../src/client/webhook.ts';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { python, ROOT, type Service, startService } from './api/service.ts';

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
  describe(`webhooks of jobs in ${store}`, () => {
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
  });
}
