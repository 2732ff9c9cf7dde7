// The order of service in memory, against a model that is plain and slow, and its way back when a transaction fails.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type QueuedJob, ReadyQueue } from '../src/store/ready-queue.ts';
import { SortedList } from '../src/store/sorted-list.ts';

describe('sorted list', () => {
  it('holds what a sorted array holds', () => {
    const operations = fc.array(fc.tuple(fc.constantFrom('add', 'remove', 'rank'), fc.integer({ min: 0, max: 3000 })), {
      minLength: 2000,
      maxLength: 6000,
    });
    fc.assert(
      fc.property(operations, (steps) => {
        const list = new SortedList<number>((a, b) => a - b);
        const model = new Set<number>();
        for (const [step, value] of steps) {
          if (step === 'remove') assert.equal(list.remove(value), model.delete(value));
          else if (step === 'rank') assert.equal(list.rank(value), [...model].filter((one) => one < value).length);
          else if (!model.has(value)) {
            list.add(value);
            model.add(value);
          }
        }
        assert.equal(list.size, model.size);
        assert.deepEqual(
          [...list],
          [...model].toSorted((a, b) => a - b),
        );
        assert.equal(list.first(), model.size > 0 ? Math.min(...model) : undefined);
      }),
      { numRuns: 15 },
    );
  });
});

type Operation =
  | { readonly do: 'add'; readonly tenant: string; readonly score: number; readonly delay: number }
  | { readonly do: 'take' }
  | { readonly do: 'promote' }
  | { readonly do: 'remove'; readonly which: number }
  | { readonly do: 'giveBack'; readonly which: number };

const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({
    do: fc.constant('add' as const),
    tenant: fc.constantFrom('a', 'b', 'c'),
    score: fc.integer({ min: 0, max: 9 }),
    delay: fc.constantFrom(0, 0, 0, 50),
  }),
  fc.record({ do: fc.constant('take' as const) }),
  fc.record({ do: fc.constant('promote' as const) }),
  fc.record({ do: fc.constant('remove' as const), which: fc.nat() }),
  fc.record({ do: fc.constant('giveBack' as const), which: fc.nat() }),
);

/** A queue with hands: applies operations, remembers what is in it and what was taken. */
class Played {
  readonly undone: (() => void)[] = [];
  readonly queue = new ReadyQueue({ weights: { b: 2 }, undo: (back) => this.undone.push(back) });
  readonly waiting = new Map<string, QueuedJob>();
  readonly taken = new Map<string, QueuedJob>();
  nowMs = 0;
  #num = 0;

  play(step: Operation): void {
    if (step.do === 'add') {
      const num = ++this.#num;
      const { tenant, score, delay } = step;
      const job = { num, jobId: `job${num}`, tenant, score, readyAtMs: delay === 0 ? 0 : this.nowMs + delay, deadlineMs: undefined };
      this.queue.add(job, this.nowMs);
      this.waiting.set(job.jobId, job);
    } else if (step.do === 'take') {
      const job = this.queue.take(undefined)?.job;
      if (!job) return;
      assert.ok(this.waiting.delete(job.jobId));
      this.taken.set(job.jobId, job);
    } else if (step.do === 'promote') {
      this.nowMs += 20;
      this.queue.promote(this.nowMs);
    } else {
      const from = step.do === 'remove' ? this.waiting : this.taken;
      const job = [...from.values()][step.which % Math.max(1, from.size)];
      if (!job) return;
      from.delete(job.jobId);
      if (step.do === 'remove') {
        assert.equal(this.queue.remove(job.jobId), job);
      } else {
        const returned = { ...job, readyAtMs: 0 };
        this.queue.giveBack(returned, this.nowMs);
        this.waiting.set(job.jobId, returned);
      }
    }
  }

  /** All that will be served, in order, without a trace. */
  order(): string[] {
    const from = this.undone.length;
    const ids: string[] = [];
    for (let next = this.queue.take(undefined); next; next = this.queue.take(undefined)) ids.push(next.job.jobId);
    for (const back of this.undone.splice(from).reverse()) back();
    return ids;
  }
}

describe('ready queue', () => {
  it('tells positions that come true, whatever happened before', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), (steps) => {
        const played = new Played();
        for (const step of steps) played.play(step);
        const order = played.order();
        assert.deepEqual(
          order.map((id) => played.queue.position(id)),
          order.map((_, i) => i),
        );
      }),
      { numRuns: 400 },
    );
  });

  it('is after a rollback what it was before', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), fc.array(operation, { minLength: 1, maxLength: 20 }), (before, group) => {
        const played = new Played();
        for (const step of before) played.play(step);
        const order = played.order();
        played.undone.length = 0;
        // Time does not go back, so what it has made ready stays so.
        for (const step of group) if (step.do !== 'promote') played.play(step);
        for (const back of played.undone.splice(0).reverse()) back();
        assert.deepEqual(played.order(), order);
      }),
      { numRuns: 400 },
    );
  });

  it('serves each tenant in the order of its scores, and lets none wait for more than its share', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.nat(9)), { minLength: 1, maxLength: 60 }), (jobs) => {
        const played = new Played();
        for (const [tenant, score] of jobs) played.play({ do: 'add', tenant, score, delay: 0 });
        const all = new Map(played.waiting);
        const served = played.order().map((id) => all.get(id)!);
        assert.equal(served.length, jobs.length);
        for (const tenant of 'abc') {
          const own = served.filter((job) => job.tenant === tenant);
          assert.deepEqual(
            own,
            own.toSorted((a, b) => a.score - b.score || a.num - b.num),
          );
        }
        const waits = (tenant: string) => served.findIndex((job) => job.tenant === tenant);
        for (const tenant of new Set(served.map((job) => job.tenant))) assert.ok(waits(tenant) <= 3);
      }),
      { numRuns: 300 },
    );
  });
});
