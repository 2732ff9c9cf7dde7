// `npm run image [-- cpu|cuda]`: runs the steps of the Dockerfile in scratch roots and tries what comes of them as an operator would, on a machine
// without a container engine. Needs Linux, root, debootstrap and the network; takes some minutes.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stagesOf } from './dockerfile.ts';
import { Builder, Container, type Image, put } from './roots.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const TARGETS = ['cpu', 'cuda'];
const READY_MS = 180_000;
/** As an engine waits before it kills. */
const STOP_MS = 30_000;
const NOBODY_ASKED = { FFJOBS_ALLOW_ANONYMOUS: 'yes' };

const say = (line: string) => console.log(line);

async function untilWell(container: Container, { health }: Image): Promise<void> {
  for (const deadline = Date.now() + READY_MS; ; await sleep(500)) {
    const problem = await container.exec(health).then(
      () => undefined,
      (error: Error) => error,
    );
    if (problem === undefined) return;
    const ended = await Promise.race([container.exited, sleep(0)]);
    if (ended !== undefined || Date.now() > deadline) throw new Error(`it is not well: ${problem.message}\n${container.said}`);
  }
}

async function within<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  const late = new AbortController();
  const timer = sleep(ms, undefined, late).then(() => {
    throw new Error(`${what} took longer than ${ms / 1000} s`);
  });
  return await Promise.race([promise, timer]).finally(() => late.abort());
}

/** Of files below a folder of the image, those that are not its user's. */
function notOwn({ root, user }: Image, folder: string): string {
  const [uid, gid] = user.split(':');
  return execFileSync('find', [join(root, folder), '!', '(', '-uid', uid!, '-gid', gid!, ')'], { encoding: 'utf8' });
}

async function attempt(image: Image): Promise<void> {
  assert.notEqual(image.user.split(':')[0], '0', 'it runs as root');
  say('with nothing said about who may call: it refuses, and says what to do');
  await using bare = new Container(image);
  assert.notEqual(await within(bare.exited, READY_MS, 'the refusal'), 0, bare.said);
  assert.match(bare.said, /FFJOBS_ALLOW_ANONYMOUS/);

  say('as it is meant to be started');
  const portraits = ['grace_hopper.jpg', 'eileen_collins.jpg'];
  for (const name of portraits) put(image, `data/${name}`, readFileSync(join(ROOT, 'samples', name)));
  await using first = new Container(image, NOBODY_ASKED);
  await untilWell(first, image);
  assert.equal(
    (await first.exec(['sh', '-c', 'ps -o uid= -e 2>/dev/null || id -u'])).trim().split(/\s+/).includes('0'),
    false,
    'a process is root',
  );
  say('a job, with the program that is in the image');
  const made = await first.exec([
    'ffjobs',
    '--json',
    'submit',
    ...portraits.map((name) => `/data/${name}`),
    '--output',
    '/data/result.jpg',
  ]);
  const jobId = /job_\d{8}_\w+/.exec(made)?.[0];
  assert.ok(jobId, made);
  const result = readFileSync(join(image.root, 'data/result.jpg'));
  assert.deepEqual([...result.subarray(0, 3)], [0xff, 0xd8, 0xff], 'the result is no JPEG');
  const metrics = await first.exec(['node', '-e', 'fetch("http://127.0.0.1:8001/metrics").then(async (a) => console.log(await a.text()))']);
  assert.match(metrics, /^api_requests_total\{.*JobService\/Submit/m);

  say('stopped, and started again on the same volume');
  assert.equal(await within(first.stop(), STOP_MS, 'the stop'), 0, first.said);
  await using second = new Container(image, NOBODY_ASKED);
  await untilWell(second, image);
  assert.match(await second.exec(['ffjobs', '--json', 'get', jobId]), /"SUCCEEDED"|succeeded/i);
  assert.equal(await within(second.stop(), STOP_MS, 'the stop'), 0, second.said);
  assert.equal(notOwn(image, 'data'), '', 'not everything under /data is its user’s');
}

const wanted = process.argv.slice(2);
if (process.platform !== 'linux' || process.getuid?.() !== 0) {
  console.error('npm run image needs root on Linux, for roots and namespaces of its own: run it with sudo, or in a virtual machine');
  process.exit(2);
}
try {
  execFileSync('sh', ['-c', 'command -v debootstrap unshare nsenter ip']);
} catch {
  console.error('npm run image needs debootstrap, util-linux and iproute2 (Debian: apt install debootstrap util-linux iproute2)');
  process.exit(2);
}
const unknown = wanted.filter((one) => !TARGETS.includes(one));
if (unknown.length > 0) {
  console.error(`there is no image ${unknown.join(', ')}, only ${TARGETS.join(' and ')}`);
  process.exit(2);
}
const work = mkdtempSync(join(tmpdir(), 'ffjobs-image-'));
try {
  const builder = new Builder(stagesOf(readFileSync(join(ROOT, 'Dockerfile'), 'utf8')), { context: ROOT, work, say });
  for (const target of wanted.length > 0 ? wanted : TARGETS) {
    const image = builder.build(target);
    await attempt(image);
    const size = execFileSync('du', ['-sm', image.root], { encoding: 'utf8' }).split('\t')[0];
    say(`${target}: the image can be made and used; ${size} MiB with its imitated base`);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
