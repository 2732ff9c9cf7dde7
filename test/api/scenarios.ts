// What every caller is promised, written once for every way in. A scenario knows the client surface and the test engine, no protocol.
// The engine is `scripted`: its `parameters` say what a run does, and a run can wait for a file, so that no test waits for time.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CallError, type Client, type Json } from './clients.ts';

export interface World {
  readonly client: Client;
  readonly baseUrl: string;
  /** Files under the input root: `face.jpg`, `target.png`, `target.mp4`. */
  readonly dir: string;
}

export type Scenario = readonly [name: string, run: (world: World) => Promise<void>];

/** A job that the test lets go on when it likes. */
export function gate(dir: string): { readonly parameters: Json; open(): Promise<void> } {
  const file = join(dir, `gate-${randomUUID()}`);
  return { parameters: { hold_file: file }, open: () => writeFile(file, '') };
}

const picture = (parameters: Json = {}, more: Json = {}): Json => ({
  source_images: ['face.jpg'],
  target_image: 'target.png',
  parameters,
  ...more,
});

/** Whether an event shows that the job has begun to run: a watcher that comes late finds it in the snapshot. */
export function runs(event: Json & { kind: string }): boolean {
  if (event.kind === 'snapshot') return ((event.snapshot as Json).job as Json).status === 'processing';
  return event.kind === 'progress' || (event.kind === 'state' && (event.state as Json).status === 'processing');
}

/** The path of a job's field as it was sent: over REST the body is the job, elsewhere it is a field of the request. */
export function fieldOfJob({ name }: Pick<Client, 'name'>, field: string): string {
  return name === 'rest' ? field : `job.${field}`;
}

export async function untilTerminal(client: Client, jobId: string): Promise<(Json & { kind: string })[]> {
  const events: (Json & { kind: string })[] = [];
  for await (const event of client.watch(jobId)) events.push(event);
  return events;
}

async function refused(call: Promise<unknown>, code: string, reason?: string): Promise<CallError> {
  const error = await call.then(
    () => assert.fail(`expected ${code}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof CallError, `not a call's error: ${String(error)}`);
  assert.equal(error.code, code, error.message);
  if (reason !== undefined) assert.equal(error.reason, reason, error.message);
  return error;
}

const TERMINAL = ['succeeded', 'failed', 'canceled', 'refused'];

export const SCENARIOS: readonly Scenario[] = [
  [
    'a job goes from submit to a result that can be fetched',
    async ({ client }) => {
      const submitted = await client.submit(picture());
      assert.match(submitted.job_id as string, /^job_\d{8}_[a-z2-7]{12}$/);
      assert.equal(submitted.status, 'queued');
      const events = await untilTerminal(client, submitted.job_id as string);
      assert.equal(events[0]!.kind, 'snapshot');
      const last = events.at(-1)!;
      if (events.length > 1) assert.equal((last.state as Json).status, 'succeeded');
      const job = await client.get(submitted.job_id as string);
      assert.equal(job.status, 'succeeded');
      assert.equal(job.progress, 100);
      assert.equal(job.step, 'done');
      assert.equal((job.engine as Json).name, 'scripted');
      const url = await client.result(job.job_id as string);
      const response = await fetch(url);
      assert.equal(response.status, 200);
      const bytes = Buffer.from(await response.arrayBuffer());
      assert.equal(bytes.length, Number((job.result as Json).bytes));
      assert.ok(typeof job.result_url === 'string' && (await fetch(job.result_url)).ok);
    },
  ],
  [
    'a watcher sees a gapless rising sequence and percent that never falls, and the stream ends with the terminal state',
    async ({ client, dir }) => {
      const held = gate(dir);
      const { job_id } = await client.submit(picture({ steps: 5, log_lines: 2, ...held.parameters }));
      const events: (Json & { kind: string })[] = [];
      for await (const event of client.watch(job_id as string)) {
        events.push(event);
        if (runs(event)) await held.open();
      }
      const snapshot = (events[0]!.snapshot as Json).job as Json;
      const stored = events.slice(1).filter((event) => event.kind !== 'preview');
      assert.deepEqual(
        stored.map((event) => event.sequence),
        stored.map((_, i) => (snapshot.sequence as number) + 1 + i),
      );
      const percents = stored.filter((event) => event.kind === 'progress').map((event) => (event.progress as Json).percent as number);
      assert.ok(percents.length > 0);
      assert.deepEqual(
        percents,
        percents.toSorted((a, b) => a - b),
      );
      // Written before the run is held, so that a late watcher has them in a replay alone.
      const replayed: string[] = [];
      for await (const event of client.watch(job_id as string, 0)) replayed.push(event.kind);
      assert.ok(replayed.includes('log'));
      assert.equal((stored.at(-1)!.state as Json).status, 'succeeded');
      assert.equal(stored.filter((event) => event.kind === 'state' && TERMINAL.includes((event.state as Json).status as string)).length, 1);
    },
  ],
  [
    'a watch resumes after any sequence, and past the end there is nothing',
    async ({ client }) => {
      const { job_id } = await client.submit(picture({ steps: 4, log_lines: 3 }));
      await untilTerminal(client, job_id as string);
      const job = await client.get(job_id as string);
      const all: number[] = [];
      for await (const event of client.watch(job_id as string, 0)) all.push(event.sequence as number);
      assert.deepEqual(
        all,
        Array.from({ length: job.sequence as number }, (_, i) => i + 1),
      );
      for (const after of [1, 2, all.length - 1]) {
        const rest: number[] = [];
        for await (const event of client.watch(job_id as string, after)) rest.push(event.sequence as number);
        assert.deepEqual(rest, all.slice(after));
      }
      for await (const event of client.watch(job_id as string, job.sequence as number)) assert.fail(`unexpected ${event.kind}`);
      const ahead: Json[] = [];
      for await (const event of client.watch(job_id as string, 1_000_000)) ahead.push(event);
      assert.equal((ahead[0]!.snapshot as Json).reset, true);
    },
  ],
  [
    'a running job is cancelled, and says so only when its run has stopped',
    async ({ client, dir }) => {
      const held = gate(dir);
      const { job_id } = await client.submit(picture(held.parameters));
      let asked = false;
      const states: string[] = [];
      for await (const event of client.watch(job_id as string)) {
        if (event.kind === 'state') states.push((event.state as Json).status as string);
        if (runs(event) && !asked) {
          asked = true;
          const answer = await client.cancel(job_id as string);
          assert.ok(answer.cancel_requested_at);
        }
      }
      assert.equal(states.at(-1), 'canceled');
      const again = await client.cancel(job_id as string);
      assert.equal(again.status, 'canceled');
      await refused(client.result(job_id as string), 'NOT_FOUND', 'NO_RESULT');
    },
  ],
  [
    'a queued job is cancelled at once; queue positions count from the front',
    async ({ client, dir }) => {
      const held = gate(dir);
      const first = await client.submit(picture(held.parameters));
      for await (const event of client.watch(first.job_id as string)) if (runs(event)) break;
      const waiting = [];
      for (let i = 0; i < 4; i++) waiting.push(await client.submit(picture()));
      const last = await client.status(waiting[3]!.job_id as string);
      assert.equal(last.status, 'queued');
      assert.ok(typeof last.queue_position === 'number' && last.queue_position >= 2, `position ${last.queue_position}`);
      const canceled = await client.cancel(waiting[3]!.job_id as string);
      assert.equal(canceled.status, 'canceled');
      assert.equal(canceled.queue_position ?? null, null);
      await held.open();
      for (const job of [first, ...waiting]) await untilTerminal(client, job.job_id as string);
    },
  ],
  [
    'priority is a head start in the queue',
    async ({ client, dir }) => {
      const held = gate(dir);
      const first = await client.submit(picture(held.parameters));
      for await (const event of client.watch(first.job_id as string)) if (runs(event)) break;
      const low = await client.submit(picture({}, { priority: -5 }));
      const normal = await client.submit(picture());
      const high = await client.submit(picture({}, { priority: 5 }));
      // The first to come was claimed ahead; it is given back for the higher one, whose inputs are then the ones that are fetched.
      while ((await client.status(high.job_id as string)).step !== 'fetching_inputs') await new Promise(setImmediate);
      while ((await client.status(low.job_id as string)).step !== 'queued') await new Promise(setImmediate);
      await held.open();
      const started: [string, string][] = [];
      for (const job of [low, normal, high]) {
        await untilTerminal(client, job.job_id as string);
        const { started_at, finished_at } = await client.get(job.job_id as string);
        started.push([job.job_id as string, (started_at ?? finished_at) as string]);
      }
      const order = started.sort((a, b) => Date.parse(a[1]) - Date.parse(b[1])).map(([id]) => id);
      assert.deepEqual(
        order,
        [high, normal, low].map((job) => job.job_id),
      );
    },
  ],
  [
    'the same idempotency key gives the same job, another request under it is refused',
    async ({ client }) => {
      const key = randomUUID();
      const [a, b] = await Promise.all([
        client.submit(picture({}, { idempotency_key: key })),
        client.submit(picture({}, { idempotency_key: key })),
      ]);
      assert.equal(a.job_id, b.job_id);
      await refused(client.submit(picture({ steps: 2 }, { idempotency_key: key })), 'ALREADY_EXISTS', 'IDEMPOTENCY_KEY_REUSED');
      await untilTerminal(client, a.job_id as string);
    },
  ],
  [
    'bad parameters are refused with every violation at once, each with what is allowed',
    async ({ client }) => {
      const job = picture(
        { processors: ['face_swaper'], steps: 'many', unheard_of: 1, config_path: '/etc/passwd' },
        { priority: 50, source_images: ['face.jpg', '../../etc/passwd', 'nothing.jpg'] },
      );
      const error = await refused(client.submit(job), 'INVALID_ARGUMENT', 'INVALID_REQUEST');
      const by = new Map(error.violations.map((one) => [one.field, one.description]));
      const at = (field: string) => fieldOfJob(client, field);
      assert.match(by.get(at('parameters.processors[0]')) ?? '', /did you mean 'face_swapper'.*allowed: .*face_swapper/);
      assert.match(by.get(at('parameters.steps')) ?? '', /whole number/);
      assert.ok(by.has(at('parameters.unheard_of')));
      assert.match(by.get(at('parameters.config_path')) ?? '', /whoever runs the service/);
      assert.ok(by.has(at('priority')));
      assert.ok(by.has(at('source_images[1]')), [...by.keys()].join());
      assert.ok(by.has(at('source_images[2]')));
      const dry = await client.validate(job);
      assert.equal(dry.valid, false);
      assert.equal((dry.violations as Json[]).length, error.violations.length);
    },
  ],
  [
    'validate resolves parameters and keeps nothing',
    async ({ client }) => {
      const before = (await client.list({ page_size: 1000 })).jobs as Json[];
      const dry = await client.validate(picture({ steps: 3 }));
      assert.equal(dry.valid, true);
      assert.equal((dry.resolved_parameters as Json).steps, 3);
      const after = (await client.list({ page_size: 1000 })).jobs as Json[];
      assert.equal(after.length, before.length);
    },
  ],
  [
    'an unknown job is NOT_FOUND everywhere',
    async ({ client }) => {
      const id = 'job_20250405_abcdefghijkl';
      const calls = [client.get(id), client.status(id), client.result(id), client.cancel(id), client.purge(id)];
      await Promise.all(calls.map((call) => refused(call, 'NOT_FOUND', 'JOB_NOT_FOUND')));
      await refused(untilTerminal(client, id), 'NOT_FOUND', 'JOB_NOT_FOUND');
    },
  ],
  [
    'a result that is not there yet is NOT_FOUND with retry information',
    async ({ client, dir }) => {
      const held = gate(dir);
      const { job_id } = await client.submit(picture(held.parameters));
      const error = await refused(client.result(job_id as string), 'NOT_FOUND', 'RESULT_NOT_READY');
      assert.ok((error.retryAfterSeconds ?? 0) > 0);
      await refused(client.purge(job_id as string), 'FAILED_PRECONDITION', 'JOB_NOT_TERMINAL');
      await held.open();
      await untilTerminal(client, job_id as string);
    },
  ],
  [
    "an engine's failure, its retries and a refusal are told apart",
    async ({ client }) => {
      const failed = await client.submit(picture({ fail: 'NO_FACE_IN_TARGET', message: 'there is no face in the target' }));
      const broken = await client.submit(picture({ fail: 'FLAKY', retryable: true }, { max_attempts: 2 }));
      const forbidden = await client.submit(picture({ refuse: 'not this' }));
      await Promise.all([failed, broken, forbidden].map((job) => untilTerminal(client, job.job_id as string)));
      const one = await client.get(failed.job_id as string);
      assert.equal(one.status, 'failed');
      assert.equal((one.error as Json).reason, 'NO_FACE_IN_TARGET');
      assert.equal((one.error as Json).retryable, false);
      assert.equal(one.error_message, 'there is no face in the target');
      const two = await client.get(broken.job_id as string);
      assert.equal(two.status, 'failed');
      assert.equal(two.attempt, 2);
      const three = await client.get(forbidden.job_id as string);
      assert.equal(three.status, 'refused');
      assert.equal(three.attempt, 1);
    },
  ],
  [
    'list filters by status, label and error, and pages without gaps or repeats',
    async ({ client }) => {
      const label = randomUUID();
      const ids: string[] = [];
      for (let i = 0; i < 5; i++) {
        const { job_id } = await client.submit(picture(i === 0 ? { fail: 'BROKEN' } : {}, { labels: { run: label } }));
        ids.push(job_id as string);
      }
      for (const id of ids) await untilTerminal(client, id);
      const seen: string[] = [];
      let token = '';
      do {
        const page = await client.list({ label: [`run=${label}`], page_size: 2, ...(token ? { page_token: token } : {}) });
        seen.push(...(page.jobs as Json[]).map((job) => job.job_id as string));
        token = page.next_page_token as string;
      } while (token);
      assert.deepEqual(seen, ids.toReversed());
      const failed = await client.list({ label: [`run=${label}`], status: ['failed'] });
      assert.deepEqual(
        (failed.jobs as Json[]).map((job) => job.job_id),
        [ids[0]],
      );
      const broken = await client.list({ label: [`run=${label}`], error_reason: 'BROKEN' });
      assert.equal((broken.jobs as Json[]).length, 1);
      const error = await refused(client.list({ page_token: 'not-a-token' }), 'INVALID_ARGUMENT');
      assert.equal(error.violations[0]?.field, 'page_token');
    },
  ],
  [
    'purge deletes the result and leaves a tombstone',
    async ({ client }) => {
      const { job_id } = await client.submit(picture({ output: randomUUID() }));
      await untilTerminal(client, job_id as string);
      const url = await client.result(job_id as string);
      assert.equal((await fetch(url)).status, 200);
      const purged = await client.purge(job_id as string);
      assert.ok(purged.purged_at);
      await refused(client.result(job_id as string), 'NOT_FOUND', 'RESULT_PURGED');
      assert.equal((await fetch(url)).status, 404);
    },
  ],
  [
    'a shortcut makes an ordinary job; a webhook needs a secret',
    async ({ client }) => {
      const job = await client.swap({ source_images: ['face.jpg'], target_image: 'target.png' });
      await untilTerminal(client, job.job_id as string);
      const done = await client.get(job.job_id as string);
      assert.deepEqual(((done.request as Json).parameters as Json).processors, ['face_swapper']);
      const error = await refused(client.submit(picture({}, { webhook: { url: 'https://example.com/hook' } })), 'INVALID_ARGUMENT');
      assert.equal(error.violations[0]?.field, fieldOfJob(client, 'webhook.url'), 'nobody could sign it');
    },
  ],
  [
    'a batch goes in whole, is watched to its end, and says what became of each job',
    async ({ client, dir }) => {
      const held = gate(dir);
      const key = randomUUID();
      const wanted = {
        jobs: [
          { ref: 'good', job: picture(held.parameters, { labels: { batch: 'yes' } }) },
          { ref: 'bad', job: picture({ fail: 'NO_FACE_IN_SOURCE' }) },
          { job: picture() },
        ],
        idempotency_key: key,
      };
      const batch = await client.submitBatch(wanted);
      const batchId = batch.batch_id as string;
      assert.match(batchId, /^batch_\d{8}_[a-z2-7]{12}$/);
      assert.equal(batch.jobs, 3);
      const ids = batch.job_ids as string[];
      assert.equal(ids.length, 3);
      assert.equal((await client.submitBatch(wanted)).batch_id, batchId);
      await refused(client.submitBatch({ ...wanted, stop_on_failure: true }), 'ALREADY_EXISTS', 'IDEMPOTENCY_KEY_REUSED');
      await refused(client.batchResults(batchId), 'NOT_FOUND', 'RESULT_NOT_READY');
      const changes: Json[] = [];
      for await (const change of client.watchBatch(batchId)) {
        if (changes.length === 0) await held.open();
        changes.push(change);
      }
      assert.equal(changes[0]!.job ?? null, null);
      assert.deepEqual((changes[0]!.batch as Json).job_ids, ids);
      const last = changes.at(-1)!;
      assert.equal((last.batch as Json).progress, 100);
      const told = new Map(changes.slice(1).map(({ job }) => [(job as Json).job_id, (job as Json).status]));
      assert.deepEqual(
        ids.map((id) => told.get(id)),
        ['succeeded', 'failed', 'succeeded'],
      );
      for await (const more of client.watchBatch(batchId, last.watch_token as string)) assert.fail(JSON.stringify(more));
      const resumed: Json[] = [];
      for await (const change of client.watchBatch(batchId, changes[1]!.watch_token as string)) resumed.push(change);
      assert.ok(resumed.length > 0 && resumed.every(({ job }) => job));
      const done = await client.batch(batchId);
      assert.deepEqual([done.queued, done.processing, done.succeeded, done.failed], [0, 0, 2, 1]);
      assert.ok(done.finished_at);
      const { results } = await client.batchResults(batchId);
      assert.deepEqual(
        (results as Json[]).map(({ ref, job_id, status }) => [ref, job_id, status]),
        [
          ['good', ids[0], 'succeeded'],
          ['bad', ids[1], 'failed'],
          ['', ids[2], 'succeeded'],
        ],
      );
      const [good, bad] = results as [Json, Json];
      assert.equal(await (await fetch(good.result_url as string)).text(), 'scripted');
      assert.equal((bad.error as Json).reason, 'NO_FACE_IN_SOURCE');
      const listed = await client.list({ batch_id: batchId, status: ['succeeded'] });
      assert.deepEqual((listed.jobs as Json[]).map(({ job_id }) => job_id).sort(), [ids[0], ids[2]].sort());
      await refused(client.batch('batch_20250101_aaaaaaaaaaaa'), 'NOT_FOUND', 'BATCH_NOT_FOUND');
    },
  ],
  [
    'a batch is refused whole, with every violation and its index',
    async ({ client }) => {
      const before = (await client.list({ page_size: 1 })).jobs as Json[];
      const error = await refused(
        client.submitBatch({
          jobs: [
            { ref: 'a', job: picture({ steps: 'many' }) },
            { ref: 'a', job: picture() },
            { ref: 'job_1', job: { ...picture({}, { priority: 11, idempotency_key: 'own' }), target_image: 'not-there.png' } },
            { ref: 'x', job: { ...picture(), source_images: ['job://y'] } },
            { ref: 'y', job: { ...picture(), target_image: 'job://x' } },
          ],
        }),
        'INVALID_ARGUMENT',
        'INVALID_REQUEST',
      );
      const fields = error.violations.map(({ field }) => field);
      for (const field of [
        'jobs[0].job.parameters.steps',
        'jobs[1].ref',
        'jobs[2].ref',
        'jobs[2].job.priority',
        'jobs[2].job.idempotency_key',
        'jobs[2].job.target_image',
        'jobs[3].job',
        'jobs[4].job',
      ])
        assert.ok(fields.includes(field), `${field} in ${fields.join(' ')}`);
      assert.equal(
        new Set(fields.map((field, i) => `${field} ${error.violations[i]!.description}`)).size,
        fields.length,
        'each is told once',
      );
      await refused(client.submitBatch({ jobs: [] }), 'INVALID_ARGUMENT', 'INVALID_REQUEST');
      const many = Array.from({ length: 1001 }, () => ({ job: picture() }));
      await refused(client.submitBatch({ jobs: many }), 'INVALID_ARGUMENT');
      assert.equal(((await client.list({ page_size: 1 })).jobs as Json[])[0]?.job_id, before[0]?.job_id);
    },
  ],
  [
    'jobs of a batch take the results of one another by their names',
    async ({ client }) => {
      const batch = await client.submitBatch({
        jobs: [
          { ref: 'last', job: { ...picture(), target_image: 'job://first' } },
          { ref: 'first', job: picture({ output: 'RIFF0000WEBPVP8 ' }) },
        ],
      });
      for await (const change of client.watchBatch(batch.batch_id as string)) void change;
      const [last, first] = await Promise.all((batch.job_ids as string[]).map((id) => client.get(id)));
      assert.equal((last!.request as Json).target_image, `job://${first!.job_id}`);
      assert.equal(first!.status, 'succeeded');
      assert.equal(last!.status, 'succeeded', JSON.stringify(last!.error));
    },
  ],
  [
    'a batch can be canceled, and one that was told to stops at a failure',
    async ({ client, dir }) => {
      const held = gate(dir);
      const running = await client.submitBatch({ jobs: Array.from({ length: 20 }, () => ({ job: picture(held.parameters) })) });
      const canceled = await client.cancelBatch(running.batch_id as string);
      assert.ok(canceled.cancel_requested_at);
      for await (const change of client.watchBatch(running.batch_id as string)) void change;
      assert.equal((await client.batch(running.batch_id as string)).canceled, 20);
      const stopping = await client.submitBatch({
        jobs: [
          { job: picture({ fail: 'NO_FACE_IN_SOURCE' }, { priority: 10 }) },
          ...Array.from({ length: 9 }, () => ({ job: picture(held.parameters) })),
        ],
        stop_on_failure: true,
      });
      for await (const change of client.watchBatch(stopping.batch_id as string)) void change;
      const stopped = await client.batch(stopping.batch_id as string);
      assert.deepEqual([stopped.failed, stopped.canceled], [1, 9]);
      await held.open();
    },
  ],
  [
    'start and run timeouts fail a job by name',
    async ({ client, dir }) => {
      const held = gate(dir);
      const first = await client.submit(picture(held.parameters));
      const late = await client.submit(picture({}, { start_timeout: '0.05s', priority: -10 }));
      await untilTerminal(client, late.job_id as string);
      assert.equal(((await client.get(late.job_id as string)).error as Json).reason, 'START_TIMEOUT');
      await held.open();
      await untilTerminal(client, first.job_id as string);
      const running = await client.submit(picture(gate(dir).parameters, { run_timeout: '0.4s' }));
      await untilTerminal(client, running.job_id as string);
      assert.equal(((await client.get(running.job_id as string)).error as Json).reason, 'RUN_TIMEOUT');
    },
  ],
  [
    'capabilities, slots and overview describe the service',
    async ({ client }) => {
      const capabilities = await client.capabilities();
      assert.equal((capabilities.engine as Json).name, 'scripted');
      assert.ok((capabilities.options as Json[]).some((one) => one.name === 'steps'));
      assert.ok(((capabilities.parameters_schema as Json).properties as Json).steps);
      const slots = (await client.slots()).slots as Json[];
      assert.equal(slots.length, 1);
      assert.ok(['idle', 'busy'].includes(slots[0]!.state as string));
      const overview = await client.overview();
      assert.equal(overview.slots, 1);
      assert.ok(((overview.totals as Json).succeeded as number) > 0);
    },
  ],
];
