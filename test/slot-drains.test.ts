// Slots that are taken out of service and put back while the service runs, as operators, callers and other nodes see it.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { startRedis } from '../scripts/redis-server.ts';
import { type Drain, drained, drainOf, restored } from '../src/jobs/drains.ts';
import { JobStatus } from '../src/jobs/job.ts';
import { startSecured } from './api/secured.ts';
import { type Service, startService, untilWarm } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { freePort } from './fixtures/free-port.ts';
import { openRig } from './fixtures/gpu/rig.ts';
import { until } from './fixtures/until.ts';

type Json = Record<string, unknown>;

describe('what is out of a node', () => {
  const why = (reason: string): Drain => ({ by: 'anna', atMs: 1, reason });
  const [fan, update, again] = [why('fan'), why('update'), why('again')];

  test('a slot stays out for what was said first', () => {
    const now = drained(drained(undefined, '1', fan), '1', update);
    assert.deepEqual(drainOf(now, '1'), { drain: fan, wholeNode: false });
    assert.equal(drainOf(now, '0'), undefined);
    // Names that every object has are slots like others.
    assert.equal(drainOf(now, 'constructor'), undefined);
  });

  test('a whole node takes later slots with it, and leaves alone what was out by itself', () => {
    const now = drained(drained(undefined, '1', fan), undefined, update);
    assert.deepEqual(drainOf(now, '1'), { drain: fan, wholeNode: false });
    assert.deepEqual(drainOf(now, '7'), { drain: update, wholeNode: true });
    assert.equal(restored(now, undefined, ['0', '1']), undefined);
  });

  test('one slot comes back alone, and goes out again for the new reason', () => {
    const one = restored(drained(undefined, undefined, update), '0', ['0', '1']);
    assert.equal(drainOf(one, '0'), undefined);
    assert.deepEqual(drainOf(one, '1'), { drain: update, wholeNode: true });
    assert.deepEqual(drainOf(drained(one, '0', again), '0'), { drain: again, wholeNode: false });
    assert.deepEqual(drainOf(drained(one, undefined, again), '0'), { drain: again, wholeNode: false });
    assert.deepEqual(drainOf(drained(one, undefined, again), '1'), { drain: update, wholeNode: true });
  });

  test('nothing is left when the last slot is back, whichever way it went out', () => {
    assert.equal(restored(drained(undefined, '0', fan), '0', ['0', '1']), undefined);
    assert.equal(restored(drained(undefined, undefined, update), '0', ['0']), undefined);
    // Of a node that is not there nobody knows which slots it has.
    assert.ok(restored(drained(undefined, undefined, update), '0', []));
    assert.equal(restored(undefined, '0', ['0']), undefined);
  });
});

describe('a slot that is not offered', () => {
  test('takes nothing, finishes what it has, and what was claimed ahead for it goes back with no attempt spent', async () => {
    const out = new Set<string>();
    await using rig = await openRig({ isOffered: (slot) => !out.has(slot) });
    rig.store.submit({ id: 'job_running', do: [['wait', 0]] });
    await rig.store.until(() => rig.store.job('job_running').status === JobStatus.PROCESSING);
    rig.store.submit({ id: 'job_ahead' });
    await rig.store.until(() => rig.store.leaseOf('job_ahead') !== undefined);
    out.add('slot-0');
    rig.scheduler.reconsiderOffers();
    await rig.store.until(() => rig.store.history.length === 1);
    assert.deepEqual(rig.store.history, ['job_ahead: give back']);
    assert.equal(rig.store.job('job_ahead').attempt, 0);
    await rig.store.until(() => rig.store.claimsPending === 0);
    assert.equal(rig.store.job('job_running').status, JobStatus.PROCESSING, 'what runs is let finish');
    rig.store.cancel('job_running');
    await rig.store.until(() => rig.store.history.length === 2);
    assert.equal(rig.store.claimsPending, 0, 'nothing is asked for');
    out.clear();
    rig.scheduler.reconsiderOffers();
    await rig.store.until(() => rig.store.history.length === 3);
    assert.deepEqual(rig.store.history, ['job_ahead: give back', 'job_running: canceled', 'job_ahead: complete']);
    assert.deepEqual(rig.logger.errors, []);
  });

  test('leaves the others at work, with one job claimed ahead for each of them', async () => {
    const out = new Set(['slot-0', 'slot-2']);
    await using rig = await openRig({ slotCount: 3, isOffered: (slot) => !out.has(slot) });
    for (let i = 0; i < 3; i++) rig.store.submit({ id: `job_${i}`, do: [['wait', 0]] });
    await rig.store.until(() => rig.store.job('job_0').status === JobStatus.PROCESSING && rig.store.leaseOf('job_1') !== undefined);
    assert.deepEqual(
      rig.scheduler.slots().map(({ jobId }) => jobId),
      [undefined, 'job_0', undefined],
    );
    assert.equal(rig.store.leaseOf('job_2'), undefined);
    out.delete('slot-2');
    rig.scheduler.reconsiderOffers();
    await rig.store.until(() => rig.scheduler.slots()[2]!.jobId === 'job_1');
    assert.equal(rig.scheduler.slots()[0]!.jobId, undefined);
  });
});

async function call(baseUrl: string, path: string, body?: object, token?: string): Promise<{ status: number; json: Json }> {
  const response = await fetch(new URL(path, baseUrl), {
    ...(body && { method: 'POST', body: JSON.stringify(body) }),
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
  });
  return { status: response.status, json: (await response.json()) as Json };
}

const slotsOf = async (baseUrl: string, token?: string) => (await call(baseUrl, '/api/v1/slots', undefined, token)).json.slots as Json[];

const nodesOf = async (baseUrl: string) => (await call(baseUrl, '/api/v1/slots')).json.nodes as Json[];

/** Submits a job that needs a slot; answers its id. */
async function submit(baseUrl: string, parameters: object = {}): Promise<string> {
  const { status, json } = await call(baseUrl, '/api/v1/jobs', {
    source_images: ['face.jpg'],
    target_image: 'target.png',
    cache: 'off',
    parameters,
  });
  assert.equal(status, 202, JSON.stringify(json));
  return json.job_id as string;
}

/** Waits until a job has the status, by its events. */
async function reached(baseUrl: string, id: string, wanted: string): Promise<void> {
  const response = await fetch(new URL(`/api/v1/jobs/${id}/events`, baseUrl), { headers: { accept: 'application/x-ndjson' } });
  let rest = '';
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    const lines = `${rest}${chunk}`.split('\n');
    rest = lines.pop()!;
    for (const line of lines.filter(Boolean)) {
      const event = JSON.parse(line) as { snapshot?: { job: Json }; state?: Json };
      if ((event.snapshot?.job ?? event.state)?.status === wanted) return;
    }
  }
  assert.fail(`${id} never was ${wanted}`);
}

const statusOf = async (baseUrl: string, id: string) => (await call(baseUrl, `/api/v1/jobs/${id}`)).json.status;

describe('on one machine', () => {
  test('a drained slot finishes its job, takes no other, stays out over a restart, and works again when it is put back', async () => {
    const metricsPort = await freePort();
    await using service = await startService({ NODE: 'gpu-01', DRAIN_TIMEOUT: '0s', METRICS_PORT: `${metricsPort}` });
    const go = join(service.dir, 'go');
    const running = await submit(service.baseUrl, { hold_file: go });
    await reached(service.baseUrl, running, 'processing');
    const waiting = await submit(service.baseUrl);
    const { status, json } = await call(service.baseUrl, '/api/v1/slots/gpu-01/0:drain', { reason: ' driver\nupdate ' });
    assert.equal(status, 200, JSON.stringify(json));
    const [slot] = json.slots as Json[];
    assert.deepEqual([slot!.state, slot!.draining, slot!.job_id], ['busy', true, running]);
    const drain = slot!.drain as Json;
    assert.deepEqual([drain.by, drain.reason, drain.whole_node], ['anonymous', 'driver update', false]);
    assert.ok(Math.abs(Date.parse(drain.at as string) - Date.now()) < 60_000);

    await writeFile(go, '');
    await reached(service.baseUrl, running, 'succeeded');
    assert.equal(await statusOf(service.baseUrl, waiting), 'queued');
    // It takes no part in what makes a service ready, and is shown.
    const ready = await call(service.baseUrl, '/readyz');
    assert.deepEqual([ready.status, ready.json.slots, ready.json.slots_drained], [200, 1, 1]);
    const metrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
    assert.match(metrics, /^slots\{state="drained"\} 1$/m);

    await service.restart();
    const [after] = await slotsOf(service.baseUrl);
    assert.deepEqual(after!.drain, drain);
    assert.deepEqual([after!.draining, after!.state, await statusOf(service.baseUrl, waiting)], [true, 'idle', 'queued']);
    assert.equal((await call(service.baseUrl, '/readyz')).status, 200);

    // Once more changes nothing, whatever is said.
    const repeated = await call(service.baseUrl, '/api/v1/slots/gpu-01/0:drain', { reason: 'another' });
    assert.deepEqual((repeated.json.slots as Json[])[0]!.drain, drain);
    const back = await call(service.baseUrl, '/api/v1/slots/gpu-01/0:restore', {});
    assert.deepEqual([back.status, (back.json.slots as Json[])[0]!.drain], [200, null]);
    await reached(service.baseUrl, waiting, 'succeeded');
    const job = (await call(service.baseUrl, `/api/v1/jobs/${waiting}`)).json;
    assert.equal(job.attempt, 1);
    assert.equal((await call(service.baseUrl, '/api/v1/slots/gpu-01/0:restore', {})).status, 200);
  });

  test('a whole node goes out and comes back, one slot of it first', async () => {
    await using service = await startService({ NODE: 'gpu-01', SLOTS: '2' });
    const out = async () => (await slotsOf(service.baseUrl)).map(({ drain }) => (drain as Json | null)?.whole_node ?? null);
    await call(service.baseUrl, '/api/v1/slots/gpu-01:drain', { reason: 'driver update' });
    assert.deepEqual(await out(), [true, true]);
    const id = await submit(service.baseUrl);
    await call(service.baseUrl, '/api/v1/slots/gpu-01/1:restore', {});
    assert.deepEqual(await out(), [true, null]);
    await reached(service.baseUrl, id, 'succeeded');
    assert.deepEqual(
      (await slotsOf(service.baseUrl)).map(({ jobs_done }) => jobs_done),
      [0, 1],
    );
    await call(service.baseUrl, '/api/v1/slots/gpu-01:restore', {});
    assert.deepEqual(await out(), [null, null]);
  });

  test('what there is not is said with what there is, and a reason has its length', async () => {
    await using service = await startService({ NODE: 'gpu-01', SLOTS: '2' });
    const refused = async (path: string, body: object = {}) => {
      const { status, json } = await call(service.baseUrl, path, body);
      return [status, json.message];
    };
    assert.deepEqual(await refused('/api/v1/slots/gpu-09:drain'), [404, "there is no node 'gpu-09'; there is gpu-01"]);
    assert.deepEqual(await refused('/api/v1/slots/gpu-09:restore'), [404, "there is no node 'gpu-09'; there is gpu-01"]);
    assert.deepEqual(await refused('/api/v1/slots/gpu-01/7:drain'), [404, "the node gpu-01 has no slot '7'; there are 0, 1"]);
    assert.deepEqual(await refused('/api/v1/slots/gpu-01/7:restore'), [404, "the node gpu-01 has no slot '7'; there are 0, 1"]);
    assert.equal((await refused(`/api/v1/slots/${'x'.repeat(64)}:drain`))[0], 400);
    const [status, message] = await refused('/api/v1/slots/gpu-01:drain', { reason: 'x'.repeat(201) });
    assert.equal(status, 400);
    assert.match(String(message), /^reason: .*200/);
    assert.equal(
      (await slotsOf(service.baseUrl)).some(({ draining }) => draining),
      false,
    );
  });
});

test('the command line takes slots out, shows them, and puts them back', async () => {
  await using service = await startService({ NODE: 'gpu-01', SLOTS: '2' });
  const run = async (...args: string[]) => {
    const terminal = new FakeTerminal();
    const exit = await ffjobs(['--server', service.baseUrl, 'slots', ...args], terminal);
    return { exit, out: terminal.stdout, err: terminal.stderr };
  };
  const out = await run('drain', 'gpu-01/1', '--reason', 'its fan');
  assert.equal(out.exit, 0, out.err);
  assert.match(out.out, /^gpu-01\/1 +drained +0 +taken out by anonymous at \d{4}-\d\d-\d\d \d\d:\d\d: its fan$/m);
  const all = await run();
  assert.match(all.out, /^gpu-01\/0 +idle +0$/m);
  assert.match(all.out, /^gpu-01\/1 +drained/m);
  assert.match(all.out, /^gpu-01: .*disk [\d.]+ [GT]B free$/m);
  const json = (await run('list', '--json')).out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Json);
  assert.deepEqual(
    json.map(({ slot, drain }) => [slot, (drain as Json | null)?.reason]),
    [
      ['0', undefined],
      ['1', 'its fan'],
    ],
  );
  assert.deepEqual([(await run('restore', 'gpu-01')).exit, (await run('restore', 'gpu-01')).exit], [0, 0]);
  assert.equal(
    (await slotsOf(service.baseUrl)).some(({ draining }) => draining),
    false,
  );
  const unknown = await run('drain', 'gpu-09');
  assert.equal(unknown.exit, 5);
  assert.match(unknown.err, /there is no node 'gpu-09'; there is gpu-01/);
  assert.equal((await run('drain', 'gpu-01/')).exit, 2);
});

test('it is for administrators, who are named; others see that a slot is out and not why', async () => {
  await using service = await startSecured({ NODE: 'gpu-01' });
  const admin = await service.token({ tenant: 'operators', scopes: ['admin', 'read'], subject: 'olga' });
  const tenant = await service.token({ tenant: 'one', scopes: ['read', 'submit'] });
  const denied = await call(service.baseUrl, '/api/v1/slots/gpu-01:drain', {}, tenant);
  assert.equal(denied.status, 403);
  assert.match(String(denied.json.message), /needs the scope 'admin'/);
  await call(service.baseUrl, '/api/v1/slots/gpu-01/0:drain', { reason: 'its fan' }, admin);
  const [seen] = await slotsOf(service.baseUrl, admin);
  assert.deepEqual([(seen!.drain as Json).by, (seen!.drain as Json).reason], ['jwt:olga', 'its fan']);
  const [shown] = await slotsOf(service.baseUrl, tenant);
  assert.deepEqual([shown!.draining, shown!.drain], [true, null]);
  await call(service.baseUrl, '/api/v1/slots/gpu-01:restore', {}, admin);
  const lines = (await readFile(service.auditPath, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Json)
    .filter(({ action }) => /\/(Drain|Restore)Slots$/.test(String(action)));
  assert.deepEqual(
    lines.map(({ action, actor, outcome, node, slot }) => [String(action).split('/')[1], actor, outcome, node, slot]),
    [
      ['DrainSlots', 'jwt:anna', 'permission_denied', 'gpu-01', undefined],
      ['DrainSlots', 'jwt:olga', 'ok', 'gpu-01', '0'],
      ['RestoreSlots', 'jwt:olga', 'ok', 'gpu-01', undefined],
    ],
  );
  assert.ok(service.logs.some(({ msg }) => msg === 'the slot gpu-01/0 is taken out of service by jwt:olga: its fan'));
});

test('in a fleet any replica takes a slot of any node out, for all of them, over restarts of the node', { timeout: 240_000 }, async () => {
  await using redis = await startRedis();
  const fleet = { STORE: redis.url, FLEET: randomUUID() };
  await using api = await startService({ ...fleet, ROLE: 'api', NODE: 'api-1' });
  await using other = await startService({ ...fleet, ROLE: 'api', NODE: 'api-2' });
  const shared = { INPUT_ROOT: api.inputDir, BLOBS: `local:${join(api.dir, 'blobs')}` };
  await using one = await startService({ ...fleet, ...shared, ROLE: 'worker', NODE: 'gpu-01', DRAIN_TIMEOUT: '0s' });
  await using two = await startService({ ...fleet, ...shared, ROLE: 'worker', NODE: 'gpu-02', DRAIN_TIMEOUT: '0s' });
  await untilWarm(api.baseUrl);
  const outOf = async ({ baseUrl }: Service) =>
    (await slotsOf(baseUrl)).filter(({ drain }) => drain !== null).map(({ node, slot }) => `${node as string}/${slot as string}`);
  const all = async (service: Service, places: readonly string[]) => {
    await until(async () => (await slotsOf(service.baseUrl)).map(({ node }) => node).join() === places.join());
  };
  for (const service of [api, other]) await all(service, ['gpu-01', 'gpu-02']);

  await call(other.baseUrl, '/api/v1/slots/gpu-01:drain', { reason: 'driver update' });
  assert.deepEqual(await outOf(other), ['gpu-01/0']);
  await until(async () => (await outOf(api)).length > 0);
  // The node has heard of it: it says so itself.
  await until(async () => (await call(one.baseUrl, '/readyz')).json.slots_drained === 1);
  assert.equal((await call(one.baseUrl, '/readyz')).status, 200);

  const ids: string[] = [];
  for (let i = 0; i < 6; i++) ids.push(await submit(api.baseUrl));
  for (const id of ids) await reached(other.baseUrl, id, 'succeeded');
  const done = ({ app }: Service) => app.scheduler!.slots()[0]!.jobsDone;
  assert.deepEqual([done(one), done(two)], [0, 6]);

  await one.restart();
  await call(api.baseUrl, '/api/v1/slots/gpu-02:drain', {});
  await until(async () => (await call(two.baseUrl, '/readyz')).json.slots_drained === 1);
  const held = await submit(api.baseUrl);
  assert.equal((await call(one.baseUrl, '/readyz')).json.slots_drained, 1, 'from its start');
  assert.equal(await statusOf(api.baseUrl, held), 'queued');
  await call(other.baseUrl, '/api/v1/slots/gpu-01:restore', {});
  await reached(api.baseUrl, held, 'succeeded');
  assert.deepEqual([done(one), done(two)], [1, 6]);

  // One that is not there any more can be put back, and nothing is left of it.
  await two.app.close();
  for (const service of [api, other]) await all(service, ['gpu-01']);
  assert.equal((await call(api.baseUrl, '/api/v1/slots/gpu-02:drain', {})).status, 404);
  const away = (await nodesOf(api.baseUrl)).find(({ node }) => node === 'gpu-02')!;
  assert.deepEqual([away.away, (away.drain as Json).whole_node], [true, true]);
  const back = await call(api.baseUrl, '/api/v1/slots/gpu-02:restore', {});
  assert.deepEqual([back.status, back.json.slots], [200, []]);
  assert.equal((await call(api.baseUrl, '/api/v1/slots/gpu-02:restore', {})).status, 404);
  assert.deepEqual(
    (await nodesOf(api.baseUrl)).map(({ node, away: gone }) => [node, gone]),
    [['gpu-01', false]],
  );
});
