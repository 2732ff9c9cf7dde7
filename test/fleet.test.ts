// A node among others, as callers of any of them are shown it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { SlotSchema, WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { CapabilitiesSchema } from '../gen/facefusion/worker/v1/worker_pb.js';
import { Drains } from '../src/app/drains.ts';
import { Fleet } from '../src/app/fleet.ts';
import { Machine } from '../src/app/machine.ts';
import type { Scheduler } from '../src/gpu/scheduler.ts';
import type { NodeFacts, NodeRegistry } from '../src/jobs/ports.ts';

/** A change is told after so long (`SOON_MS`). */
const SOON_MS = 100;

/** Nothing is out of service. */
function drains(): Drains {
  const store = { all: async () => new Map(), change: async () => {}, onChange: () => {} };
  return new Drains({ store, log: { info() {} }, onError: assert.ifError });
}

const machine = () => new Machine({ node: 'one', gpus: () => [], diskFree: async () => 1 });

/** What a fleet asks of the scheduler; `changes` is called as a worker changes. */
function slots() {
  const listeners = new Set<() => void>();
  const slot = create(SlotSchema, { slot: '0', node: 'one', state: WorkerState.BUSY });
  const scheduler = {
    slots: () => [slot],
    isWarm: true,
    reconsiderOffers() {},
    capabilities: () => ({ name: 'noop', version: '1', models: '', capabilities: create(CapabilitiesSchema) }),
    onChange(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  return { scheduler: scheduler as unknown as Scheduler, slot, changes: () => listeners.forEach((listener) => void listener()) };
}

test('a node whose slots change all the time goes on saying that it is there', { timeout: 20_000 }, async () => {
  const announced: NodeFacts[] = [];
  const nodes: NodeRegistry = {
    announce: async (facts) => void announced.push(facts),
    withdraw: async () => {},
    others: async () => [],
  };
  await using fleet = new Fleet({ node: 'one', nodes, drains: drains(), onError: assert.ifError });
  await fleet.start();
  const { scheduler, changes } = slots();
  fleet.attach(scheduler, machine());
  // Short jobs, one after another.
  while (announced.length < 5) {
    changes();
    await delay(5);
  }
  assert.deepEqual([announced.at(-1)?.node, announced.at(-1)?.engine?.name], ['one', 'noop']);
});

test('a change while the others are slow to answer is told soon after, and not with the next word by the clock', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const told: { readonly jobsDone: number | undefined; readonly taken: () => void }[] = [];
  const nodes: NodeRegistry = {
    announce: ({ slots }) => new Promise((resolve) => void told.push({ jobsDone: slots[0]?.jobsDone, taken: resolve })),
    withdraw: async () => {},
    others: async () => [],
  };
  await using fleet = new Fleet({ node: 'one', nodes, drains: drains(), onError: assert.ifError });
  const { scheduler, slot, changes } = slots();
  fleet.attach(scheduler, machine());
  t.mock.timers.tick(SOON_MS + 1);
  assert.equal(told.length, 1, 'the first word is on its way');
  slot.jobsDone = 1;
  changes();
  t.mock.timers.tick(SOON_MS + 1);
  assert.equal(told.length, 1, 'one at a time');
  told[0]!.taken();
  await new Promise(setImmediate);
  t.mock.timers.tick(SOON_MS + 1);
  assert.equal(told[1]?.jobsDone, 1);
  told[1]!.taken();
});
