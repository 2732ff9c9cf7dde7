// Steps of one script on their way to Redis, with a server that the test plays.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Reply, Script } from '../src/store/redis/script.ts';

/** A script whose commands the test answers; each entry is one command, by the number of its steps. */
function played(stepsOf: (packed: Buffer) => number) {
  const commands: { readonly steps: number; readonly answer: PromiseWithResolvers<(Reply | Error)[]> }[] = [];
  let came = Promise.withResolvers<void>();
  const script = new Script((packed) => {
    const answer = Promise.withResolvers<(Reply | Error)[]>();
    commands.push({ steps: stepsOf(packed), answer });
    came.resolve();
    return answer.promise;
  });
  const command = async (number: number) => {
    while (commands.length <= number) {
      came = Promise.withResolvers();
      await came.promise;
    }
    return commands[number]!;
  };
  return { script, command };
}

/** The length of the outer array, whose form is the one with four bytes. */
const stepsOf = (packed: Buffer) => packed.readUInt32BE(1);

test('what is asked for in one turn is one command, and each step has its own answer', async () => {
  const { script, command } = played(stepsOf);
  const answers = ['a', 'b', 'c'].map((name) => script.run([name]));
  const { steps, answer } = await command(0);
  assert.equal(steps, 3);
  answer.resolve([1, new Error('not this one'), 3]);
  const settled = await Promise.allSettled(answers);
  assert.deepEqual(
    settled.map((one) => (one.status === 'fulfilled' ? one.value : (one.reason as Error).message)),
    [1, 'not this one', 3],
  );
});

test('what the first answers lead to is sent before the last ones are handed on', async () => {
  const { script, command } = played(stepsOf);
  let handedOn = 0;
  const first = Array.from({ length: 64 }, async (_, i) => {
    await script.run([i]);
    handedOn++;
    if (i === 0) await script.run(['next']);
  });
  const { steps, answer } = await command(0);
  assert.equal(steps, 64);
  answer.resolve(Array.from({ length: 64 }, () => 1));
  const next = await command(1);
  assert.equal(next.steps, 1);
  assert.ok(handedOn > 0 && handedOn < 64, `${handedOn} of 64 answers were handed on`);
  next.answer.resolve([1]);
  await Promise.all(first);
  assert.equal(handedOn, 64);
});

test('a server that does not answer is not asked again by those that have waited as long', async () => {
  const { script, command } = played(stepsOf);
  // As many as a command takes, for each command under way, and one more that waits.
  const all = Array.from({ length: 64 * 6 + 1 }, (_, i) => script.run([i]));
  const settled = Promise.allSettled(all);
  const { answer } = await command(5).then(() => command(0));
  answer.reject(new Error('cut'));
  for (let i = 1; i < 6; i++) (await command(i)).answer.resolve(Array.from({ length: 64 }, () => 1));
  const outcomes = (await settled).map(({ status }) => status);
  assert.deepEqual([outcomes.filter((status) => status === 'rejected').length, outcomes.at(-1)], [65, 'rejected']);
});
