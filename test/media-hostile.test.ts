// Hostile and odd media, made anew by test/fixtures/media/make_hostile.py: each goes the way of a job's input and meets its expected end, and
// whatever it does to the process that examines it, the next one is examined as if nothing had happened.
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { create } from '@bufbuild/protobuf';
import { JobRequestSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { type Random, randomOf } from '../scripts/random.ts';
import type { Failure } from '../src/jobs/job.ts';
import { fetchInputs, type Inputs } from '../src/media/inputs.ts';
import { type Kind, openProbe, type Probe, type ProbeOptions } from '../src/media/probe.ts';
import { localFiles } from '../src/media/references.ts';
import { python, ROOT } from './api/service.ts';

interface Hostile {
  readonly class: string;
  readonly name: string;
  readonly kind: Kind;
  readonly outcome: string | readonly string[];
}

const NEVER = new AbortController().signal;
const GOOD: Hostile = { class: 'good', name: 'plain.jpg', kind: 'image', outcome: 'ok' };
let dir: string;
let listed: readonly Hostile[];
let probe: Probe;

const probeWith = (options: Partial<ProbeOptions> = {}) =>
  openProbe({
    command: python(),
    packageDir: join(ROOT, 'worker'),
    environment: process.env,
    limits: { imagePixels: 2 ** 26, videoPixels: 2 ** 24, side: 16_384, frames: 300, seconds: 60, streams: 32 },
    children: 2,
    memoryBytes: 1536 * 2 ** 20,
    cpuMs: 10_000,
    wallMs: 120_000,
    verdicts: 1000,
    log: { warn: () => {} },
    ...options,
  });

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ffjobs-hostile-'));
  await mkdir(join(dir, 'input'));
  await mkdir(join(dir, 'work'));
  const script = join(ROOT, 'test', 'fixtures', 'media', 'make_hostile.py');
  const { stdout } = await promisify(execFile)(python(), [script, join(dir, 'input')], { maxBuffer: 2 ** 24 });
  listed = JSON.parse(stdout) as Hostile[];
  probe = probeWith();
});

after(async () => {
  await probe?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

let jobs = 0;
async function handIn({ name, kind }: Hostile, through = probe, signal = NEVER): Promise<Inputs | Failure> {
  const folder = join(dir, 'work', `${++jobs}`);
  await mkdir(folder);
  const target =
    kind === 'video'
      ? { case: 'targetVideo' as const, value: name }
      : { case: 'targetImage' as const, value: kind === 'audio' ? GOOD.name : name };
  const request = create(JobRequestSchema, { target, sourceAudio: kind === 'audio' ? name : undefined });
  return await fetchInputs({ resolver: localFiles(join(dir, 'input')), probe: through }, request, folder, signal);
}

/** Numbers below `n`. */
const below =
  ({ int }: Random) =>
  (n: number) =>
    int(0, n - 1);

/** Bytes changed, mostly in the headers; or cut off, doubled, taken out. */
function mutated(bytes: Buffer, below: (n: number) => number): Buffer {
  const at = () => (below(2) === 0 ? below(Math.min(bytes.length, 600)) : below(bytes.length));
  const from = at();
  const to = Math.min(bytes.length, from + 1 + below(300));
  switch (below(6)) {
    case 0:
      return bytes.subarray(0, 16 + below(bytes.length));
    case 1:
      return Buffer.concat([bytes.subarray(0, to), bytes.subarray(from)]);
    case 2:
      return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
    default: {
      const changed = Buffer.from(bytes);
      for (let i = 1 + below(12); i > 0; i--) changed[at()] = [0, 0xff, 0x7f, 0x80, below(256)][below(5)]!;
      return changed;
    }
  }
}

const reasonOf = (outcome: Inputs | Failure) => ('reason' in outcome ? outcome.reason : 'ok');

describe('hostile media', () => {
  it('are many, of many classes', () => {
    const hostile = listed.filter((one) => one.outcome !== 'ok');
    assert.ok(hostile.length >= 60, `${hostile.length}`);
    assert.ok(new Set(hostile.map((one) => one.class)).size >= 20);
    assert.equal(new Set(listed.map((one) => one.name)).size, listed.length);
  });

  it('meet the end that is expected of each, with one sentence about the field', async () => {
    const wrong: string[] = [];
    await Promise.all(
      listed.map(async (one) => {
        const outcome = await handIn(one);
        const expected = typeof one.outcome === 'string' ? [one.outcome] : one.outcome;
        if (!expected.includes(reasonOf(outcome))) wrong.push(`${one.class}: ${one.name}: ${JSON.stringify(outcome)}, not ${one.outcome}`);
        if (!('reason' in outcome)) return;
        assert.equal(outcome.retryable, false, one.name);
        const field = { image: 'target_image', video: 'target_video', audio: 'source_audio' }[one.kind];
        assert.match(outcome.message, new RegExp(`^${field}: [^\n]{10,160}$`));
        assert.doesNotMatch(outcome.message, /\/tmp|work|Traceback|Error|\[/, one.name);
      }),
    );
    assert.deepEqual(wrong, []);
  });

  it('of any other kind too: what is changed in a good file ends in facts within the limits, or in a sentence', async (t) => {
    const seed = randomInt(2 ** 31);
    t.diagnostic(`seed ${seed}`);
    const good = listed.filter((one) => one.outcome === 'ok');
    const outcomes = new Map<string, number>();
    await Promise.all(
      Array.from({ length: 96 }, async (_, nth) => {
        const one = good[nth % good.length]!;
        const bytes = mutated(await readFile(join(dir, 'input', one.name)), below(randomOf(seed + nth)));
        const name = `mutated-${nth}`;
        await writeFile(join(dir, 'input', name), bytes);
        const outcome = await handIn({ ...one, name });
        outcomes.set(reasonOf(outcome), (outcomes.get(reasonOf(outcome)) ?? 0) + 1);
        const what = `${one.name}, the ${nth}th of seed ${seed}`;
        if ('reason' in outcome) {
          assert.match(outcome.reason, /^INPUT_[A-Z_]+$/, what);
          assert.match(outcome.message, /^(?:target_image|target_video|source_audio): [^\n]{10,160}$/, what);
        } else if (outcome.targetFacts) {
          const { width, height, frames, seconds } = outcome.targetFacts;
          assert.ok(width * height <= 2 ** 26 && frames <= 300 && seconds <= 60, what);
        }
      }),
    );
    t.diagnostic(JSON.stringify(Object.fromEntries(outcomes)));
    assert.ok(outcomes.size >= 3, 'they are changed enough to matter');
    assert.equal(reasonOf(await handIn(GOOD)), 'ok');
  });

  it('do not make anybody believe what they claim', async () => {
    for (const name of ['claims.mp4', 'claims-media.mp4', 'data-elsewhere.mp4']) {
      const inputs = await handIn({ ...GOOD, name, kind: 'video' });
      assert.ok(!('reason' in inputs));
      assert.deepEqual([inputs.targetFacts?.frames, inputs.targetFacts?.seconds, inputs.targetFacts?.width], [30, 1.2, 96]);
      assert.match(inputs.targetPath, /target\.mp4$/);
    }
  });
});

describe('the process that examines', () => {
  it('keeps a verdict by the bytes, not by the name, and each kind has its own', async () => {
    await writeFile(join(dir, 'input', 'copy.bin'), await readFile(join(dir, 'input', 'plain.mp4')));
    await using counted = probeWith();
    const first = await handIn({ ...GOOD, name: 'plain.mp4', kind: 'video' }, counted);
    const second = await handIn({ ...GOOD, name: 'copy.bin', kind: 'video' }, counted);
    assert.ok('targetFacts' in first && 'targetFacts' in second);
    assert.equal(first.targetFacts, second.targetFacts);
    assert.equal(reasonOf(await handIn({ ...GOOD, name: 'copy.bin', kind: 'audio' }, counted)), 'ok');
    assert.equal(reasonOf(await handIn({ ...GOOD, name: 'copy.bin', kind: 'image' }, counted)), 'INPUT_WRONG_KIND');
  });

  it('examines the same bytes once for all that come together', async () => {
    await using narrow = probeWith({ children: 1 });
    const all = await Promise.all(Array.from({ length: 10 }, () => handIn({ ...GOOD, name: 'faststart.mp4', kind: 'video' }, narrow)));
    assert.equal(new Set(all.map((one) => ('targetFacts' in one ? one.targetFacts : one))).size, 1);
  });

  it('does not fail a job because another one with the same bytes has left', async () => {
    await using narrow = probeWith({ children: 1 });
    const bytes = await readFile(join(dir, 'input', 'faststart.mp4'));
    const [first, second] = [join(dir, 'first'), join(dir, 'second')];
    await writeFile(second, bytes);
    const subject = { digest: 'of both', kind: 'video', mediaType: 'video/mp4' } as const;
    // The first one's file went with its job before it was opened.
    const outcomes = await Promise.allSettled([narrow.probe(first, subject, NEVER), narrow.probe(second, subject, NEVER)]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'fulfilled'],
    );
  });

  it('has little memory for each file, and survives one that wants more', async () => {
    await using poor = probeWith({
      memoryBytes: 420 * 2 ** 20,
      children: 1,
      limits: { imagePixels: 2 ** 26, videoPixels: 2 ** 27, side: 16_384, frames: 300, seconds: 60, streams: 32 },
    });
    const outcome = await handIn({ ...GOOD, name: 'many-pixels.avi', kind: 'video' }, poor);
    assert.notEqual(reasonOf(outcome), 'ok');
    assert.equal(reasonOf(await handIn(GOOD, poor)), 'ok');
  });

  it('ends an examination that takes too long by the clock, which may be tried again', async () => {
    await using hurried = probeWith({ wallMs: 1 });
    // Nobody writes into it, so that no machine is fast enough.
    const pipe = join(dir, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const outcome = await hurried.probe(pipe, { digest: 'of a pipe', kind: 'video', mediaType: 'video/mp4' }, NEVER);
    assert.ok('reason' in outcome);
    assert.deepEqual([outcome.reason, outcome.retryable], ['INPUT_TOO_COMPLEX', true]);
  });

  it('stops when nobody waits any more', async () => {
    await using narrow = probeWith({ children: 1 });
    const leaving = new AbortController();
    const left = handIn({ ...GOOD, name: 'frames.mkv', kind: 'video' }, narrow, leaving.signal);
    leaving.abort(new Error('canceled'));
    await assert.rejects(left, /canceled/);
    assert.equal(reasonOf(await handIn({ ...GOOD, name: 'frames.mkv', kind: 'video' }, narrow)), 'INPUT_TOO_LARGE');
  });

  it('is started again when it dies, and says why it cannot be', async () => {
    await using fragile = probeWith();
    assert.equal(reasonOf(await handIn(GOOD, fragile)), 'ok');
    for (const pid of await nurseries()) process.kill(pid, 'SIGKILL');
    assert.equal(reasonOf(await handIn({ ...GOOD, name: 'plain.png' }, fragile)), 'ok');
    await using broken = probeWith({ packageDir: join(dir, 'nowhere') });
    await assert.rejects(handIn(GOOD, broken), /media cannot be examined: .*No module named/);
    await using missing = probeWith({ command: join(dir, 'no-python') });
    await assert.rejects(handIn(GOOD, missing), /could not be started/);
  });

  it('has none of the secrets of the service in its environment', {
    skip: process.platform !== 'linux' && 'machine: needs /proc',
  }, async () => {
    await using one = probeWith({ environment: { ...process.env, AWS_SECRET_ACCESS_KEY: 'secret', FFJOBS_TOKEN: 'secret' } });
    assert.equal(reasonOf(await handIn(GOOD, one)), 'ok');
    for (const pid of await nurseries()) {
      const names = (await readFile(`/proc/${pid}/environ`, 'latin1')).split('\0').map((entry) => entry.split('=')[0]);
      assert.deepEqual(
        names.filter((name) => /SECRET|TOKEN|KEY|FFJOBS/.test(name!)),
        [],
      );
    }
  });
});

/** Processes of this test that fork examiners. */
async function nurseries(): Promise<number[]> {
  const found: number[] = [];
  for (const name of (await readdir('/proc').catch(() => [])).filter((one) => /^\d+$/.test(one))) {
    const [stat, line] = await Promise.all(['stat', 'cmdline'].map((file) => readFile(`/proc/${name}/${file}`, 'utf8').catch(() => '')));
    const parent = stat!.slice(stat!.lastIndexOf(')') + 2).split(' ')[1];
    if (line!.includes('facefusion_worker.probe') && Number(parent) === process.pid) found.push(Number(name));
  }
  return found;
}
