// A few rounds of `npm run chaos`, and that its model sees what it is there to see.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import { type EventWords, type JobWords, Violation } from '../scripts/chaos/calls.ts';
import { checkHistory } from '../scripts/chaos/checks.ts';
import { chaos } from '../scripts/chaos/main.ts';
import { Receiver, SECRET } from '../scripts/chaos/receiver.ts';
import { randomOf } from '../scripts/random.ts';
import { python } from './api/service.ts';

const skip = process.platform !== 'linux' && 'machine: it finds what is left behind in /proc';

describe('chaos', { skip, concurrency: false }, () => {
  for (const [kind, rounds] of [
    ['sqlite', 2],
    ['redis', 2],
  ] as const) {
    test(`${rounds} rounds on ${kind} lose nothing and do nothing twice`, { timeout: 560_000 }, async (t) => {
      const options = { kind, rounds, seed: 7, jobs: 12, roundMs: 3_000, python: python(), signal: t.signal };
      const held = await chaos({ ...options, say: (line) => t.diagnostic(line) });
      assert.equal(held.jobs, rounds * 12);
      assert.ok(held.faults > 0);
    });
  }
});

describe('the model', () => {
  const state = (sequence: number, status: string): EventWords => ({ sequence, state: { status, attempt: 1, progress: 0, error: null } });
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

  const ended = (status: string) => new Map([['job_1', { job_id: 'job_1', status } as JobWords]]);
  const told = new Set(['job_1']);
  /** As the service does: again until it is taken. */
  async function tell(receiver: Receiver, id: string, status: string, secret = SECRET): Promise<void> {
    const body = JSON.stringify({ type: `job.${status}`, data: { job_id: 'job_1', status } });
    const at = new Date(Math.floor(Date.now() / 1000) * 1000);
    const headers = {
      'webhook-id': id,
      'webhook-timestamp': `${at.getTime() / 1000}`,
      'webhook-signature': new Webhook(secret).sign(id, at, body),
    };
    for (;;) {
      const answer = await fetch(receiver.url, { method: 'POST', body, headers }).catch(() => undefined);
      if (answer?.ok) return;
    }
  }
  const start = () => Receiver.start(randomOf(3));

  test('takes webhooks that come in order, again too', async () => {
    await using receiver = await start();
    assert.match(receiver.check(ended('succeeded'), told) ?? '', /was not told of the ends of job_1/);
    await tell(receiver, 'a', 'processing');
    await tell(receiver, 'b', 'succeeded');
    await tell(receiver, 'b', 'succeeded');
    await tell(receiver, 'a', 'processing');
    assert.equal(receiver.check(ended('succeeded'), told), undefined);
  });
  for (const [name, sent, status] of [
    ['two ends under two ids', ['a succeeded', 'b succeeded'], 'succeeded'],
    ['an end that is none', ['a failed'], 'succeeded'],
    ['something after the end', ['a succeeded', 'b processing'], 'succeeded'],
    ['one delivery that says two things', ['a processing', 'a succeeded'], 'succeeded'],
  ] as const) {
    test(`sees ${name}`, async () => {
      await using receiver = await start();
      for (const one of sent) await tell(receiver, ...(one.split(' ') as [string, string]));
      assert.throws(() => receiver.check(ended(status), told), Violation);
    });
  }
  test('sees a signature that is not right', async () => {
    await using receiver = await start();
    await tell(receiver, 'a', 'succeeded', `whsec_${Buffer.from('another').toString('base64')}`);
    assert.throws(() => receiver.check(ended('succeeded'), told), /not signed rightly/);
  });
});
