// A few rounds of `npm run chaos`, and that its model sees what it is there to see.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type EventWords, type JobWords, Violation } from '../scripts/chaos/calls.ts';
import { checkHistory } from '../scripts/chaos/checks.ts';
import { chaos } from '../scripts/chaos/main.ts';
import { python } from './api/service.ts';

const skip = process.platform !== 'linux' && 'machine: it finds what is left behind in /proc';

describe('chaos', { skip, concurrency: false }, () => {
  for (const [kind, rounds] of [
    ['sqlite', 2],
    ['redis', 2],
  ] as const) {
    test(`${rounds} rounds on ${kind} lose nothing and do nothing twice`, { timeout: 280_000 }, async (t) => {
      const options = { kind, rounds, seed: 7, jobs: 12, roundMs: 3_000, python: python(), signal: t.signal };
      const held = await chaos({ ...options, say: (line) => t.diagnostic(line) });
      assert.equal(held.jobs, rounds * 12);
      assert.ok(held.faults > 0);
    });
  }
});

describe('the model', () => {
  const state = (sequence: number, status: string): EventWords => ({ sequence, state: { status, attempt: 1, error: null } });
  const progress = (sequence: number, percent: number, attempt = 1): EventWords => ({ sequence, progress: { percent, attempt } });
  const whole = [state(1, 'queued'), state(2, 'processing'), progress(3, 10), progress(4, 5, 2), state(5, 'succeeded')];
  const check = (events: readonly EventWords[]) => checkHistory('job', 'here', events, { sequence: 5 } as JobWords);

  test('takes a history that is whole', () => check(whole));
  for (const [name, events] of [
    ['an event that is missing', whole.toSpliced(2, 1)],
    ['an event that comes twice', [...whole.slice(0, 3), whole[2]!, ...whole.slice(3)]],
    ['an end that is missing', whole.slice(0, 4)],
    ['two ends', [whole[0]!, state(2, 'succeeded'), ...whole.slice(2)]],
    ['percent that falls', whole.with(3, progress(4, 5))],
    ['an attempt that comes back', whole.with(2, progress(3, 10, 3))],
  ] as const) {
    test(`sees ${name}`, () => assert.throws(() => check(events), Violation));
  }
});
