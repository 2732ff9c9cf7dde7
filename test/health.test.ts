import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, ConnectError, createClient, createRouterTransport } from '@connectrpc/connect';
import { HealthRegistry, healthService, ServingStatus } from '../src/rpc/health.ts';

function serve() {
  const registry = new HealthRegistry();
  const { desc, implementation } = healthService(registry);
  const shutdown = new AbortController();
  const transport = createRouterTransport((router) => router.service(desc, implementation), {
    router: { shutdownSignal: shutdown.signal },
  });
  return { registry, shutdown, client: createClient(desc, transport) };
}

test('check tells the status, and NOT_FOUND of what nothing is known of', async () => {
  const { registry, client } = serve();
  registry.set('', ServingStatus.SERVING);
  assert.equal((await client.check({})).status, ServingStatus.SERVING);
  await assert.rejects(client.check({ service: 'x' }), (error) => error instanceof ConnectError && error.code === Code.NotFound);
});

test('list tells every status', async () => {
  const { registry, client } = serve();
  registry.set('a', ServingStatus.SERVING);
  registry.set('b', ServingStatus.NOT_SERVING);
  const { statuses } = await client.list({});
  assert.deepEqual(
    Object.entries(statuses).map(([service, { status }]) => [service, status]),
    [
      ['a', ServingStatus.SERVING],
      ['b', ServingStatus.NOT_SERVING],
    ],
  );
});

test('watch begins with SERVICE_UNKNOWN, tells changes and only changes, and ends with the shutdown', async () => {
  const { registry, shutdown, client } = serve();
  const statuses = client.watch({ service: 'a' })[Symbol.asyncIterator]();
  const next = async () => (await statuses.next()).value?.status;
  assert.equal(await next(), ServingStatus.SERVICE_UNKNOWN);
  registry.set('b', ServingStatus.SERVING);
  registry.set('a', ServingStatus.SERVING);
  assert.equal(await next(), ServingStatus.SERVING);
  registry.set('a', ServingStatus.SERVING);
  const later = next();
  registry.shutdown();
  assert.equal(await later, ServingStatus.NOT_SERVING);
  registry.set('a', ServingStatus.SERVING);
  assert.equal(registry.get('a'), ServingStatus.NOT_SERVING);
  shutdown.abort(new ConnectError('going', Code.Unavailable));
  await assert.rejects(next(), (error) => error instanceof ConnectError && error.code === Code.Unavailable);
});

test('a watcher that leaves is forgotten', async () => {
  const registry = new HealthRegistry();
  const left = new AbortController();
  const statuses = registry.watch('a', left.signal);
  await statuses.next();
  const waiting = statuses.next();
  left.abort(new Error('left'));
  await assert.rejects(waiting, /left/);
  assert.equal((await statuses.next()).done, true);
});
