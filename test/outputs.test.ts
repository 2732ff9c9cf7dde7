// Copies of results: what a caller may name, that nothing is written anywhere else or over anything, and that a copy is whole.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { HeadObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { JobsError } from '../src/jobs/errors.ts';
import { CopiesUnderWay } from '../src/store/copies-under-way.ts';
import { type Copy, folderOutputs, type Outputs, outputs } from '../src/store/outputs.ts';
import { openS3Outputs } from '../src/store/outputs-s3.ts';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { ROOT, startService } from './api/service.ts';
import { errorAnswer, type S3Server, startProxy, startS3 } from './fixtures/media/s3-server.ts';

const BYTES = randomBytes(3_000_000);
const NEVER = new AbortController().signal;

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-outputs-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

async function copyOf(t: TestContext, bytes: Uint8Array = BYTES, jobId = 'job_20250405_abcdefghijkl'): Promise<Copy> {
  const path = join(await folder(t), 'output.mp4');
  await writeFile(path, bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { jobId, path, sha256, bytes: bytes.length, mediaType: 'video/mp4', filename: `${jobId}.mp4` };
}

const copiesTo = async (t: TestContext, roots: readonly string[]) => folderOutputs(roots, new CopiesUnderWay(await folder(t)));

const reasonOf = (outcome: Awaited<ReturnType<Outputs['deliver']>>) => ('reason' in outcome ? outcome.reason : undefined);
const deliver = (to: Outputs, uri: string, copy: Copy) => to.deliver(uri, copy, { signal: NEVER });

describe('copies in a folder', { concurrency: 4 }, () => {
  it('are written where they are wanted, with the folders on the way, and told about', async (t) => {
    const [root, other] = [await folder(t), await folder(t)];
    const to = await copiesTo(t, [root, other]);
    const copy = await copyOf(t);
    const told: number[] = [];
    for (const [uri, path] of [
      ['a.mp4', join(root, 'a.mp4')],
      ['x/y/b.mp4', join(root, 'x', 'y', 'b.mp4')],
      [join(other, 'c.mp4'), join(other, 'c.mp4')],
      ['x/', join(root, 'x', copy.filename)],
      ['Ünï 日本 (1).mp4', join(root, 'Ünï 日本 (1).mp4')],
    ] as const) {
      assert.equal(to.check(uri), undefined, uri);
      const outcome = await to.deliver(uri, copy, { signal: NEVER, progress: (done, total) => void told.push(done / total) });
      assert.deepEqual(outcome, { uri: uri.endsWith('/') ? `${uri}${copy.filename}` : uri });
      assert.deepEqual(await readFile(path), BYTES);
    }
    assert.equal(told.at(-1), 1);
    const left = await readdir(root, { recursive: true });
    assert.ok(!left.some((name) => name.includes('.ffjobs-')), left.join());
  });

  it('are refused outside of the listed folders, whatever the letters', async (t) => {
    const root = await folder(t);
    const to = await copiesTo(t, [root]);
    const copy = await copyOf(t);
    for (const uri of [
      '../a.mp4',
      'x/../../a.mp4',
      '/etc/passwd',
      '/',
      `${root}`,
      `${root}-2/a.mp4`,
      `${root}/../a.mp4`,
      '//a.mp4',
      'x//a.mp4',
      './a.mp4',
      'a\0.mp4',
      'a\n.mp4',
      '..\\a.mp4',
      '',
      '.ffjobs-job.part',
      `${'a'.repeat(256)}.mp4`,
      '\ud800',
    ]) {
      assert.match(to.check(uri)?.reason ?? 'taken', /^(INVALID_OUTPUT_PATH|OUTPUT_NOT_ALLOWED)$/, JSON.stringify(uri));
      assert.ok(reasonOf(await deliver(to, uri, copy)), JSON.stringify(uri));
    }
    assert.deepEqual(await readdir(root), []);
  });

  it('follow no link below the folder', async (t) => {
    const [root, outside] = [await folder(t), await folder(t)];
    await symlink(outside, join(root, 'link'));
    await symlink(join(outside, 'b.mp4'), join(root, 'b.mp4'));
    await writeFile(join(root, 'file'), 'a file');
    const to = await copiesTo(t, [root]);
    const copy = await copyOf(t);
    for (const [uri, reason] of [
      ['link/a.mp4', 'OUTPUT_NOT_ALLOWED'],
      ['link/x/a.mp4', 'OUTPUT_NOT_ALLOWED'],
      ['file/a.mp4', 'OUTPUT_NOT_ALLOWED'],
      ['b.mp4', 'OUTPUT_EXISTS'],
    ] as const) {
      assert.equal(reasonOf(await deliver(to, uri, copy)), reason, uri);
    }
    assert.deepEqual(await readdir(outside), []);
    assert.deepEqual((await readdir(root)).sort(), ['b.mp4', 'file', 'link']);
  });

  it('leave what is there as it is, but for the same bytes', async (t) => {
    const root = await folder(t);
    const to = await copiesTo(t, [root]);
    const copy = await copyOf(t);
    await deliver(to, 'a.mp4', copy);
    assert.deepEqual(await deliver(to, 'a.mp4', copy), { uri: 'a.mp4' });
    await mkdir(join(root, 'folder.mp4'));
    await writeFile(join(root, 'b.mp4'), Buffer.alloc(BYTES.length));
    for (const uri of ['b.mp4', 'folder.mp4']) {
      const outcome = await deliver(to, uri, copy);
      assert.deepEqual([reasonOf(outcome), 'retryable' in outcome && outcome.retryable], ['OUTPUT_EXISTS', false]);
    }
    assert.deepEqual(await readFile(join(root, 'b.mp4')), Buffer.alloc(BYTES.length));
    const racers = await Promise.all(
      [1, 2, 3].map(async (n) => deliver(to, 'race.mp4', await copyOf(t, randomBytes(1_000_000), `job_${n}`))),
    );
    assert.equal(racers.filter((outcome) => 'uri' in outcome).length, 1);
  });

  it('that leave keep nothing', async (t) => {
    const root = await folder(t);
    const to = await copiesTo(t, [root]);
    const copy = await copyOf(t);
    await deliver(to, 'a.mp4', copy);
    const leaving = new AbortController();
    const left = to.deliver('b.mp4', copy, { signal: leaving.signal, progress: () => leaving.abort() });
    await assert.rejects(left, { name: 'AbortError' });
    // As long as it was.
    await writeFile(copy.path, 'x', { flag: 'r+' });
    await assert.rejects(deliver(to, 'b.mp4', copy), { reason: 'RESULT_CHANGED' });
    assert.deepEqual(await readdir(root), ['a.mp4']);
  });

  /** A process that is killed with half a copy to `uri` written. */
  async function killed(t: TestContext, roots: readonly string[], uri: string, { jobId, path, sha256, bytes }: Copy): Promise<string> {
    const records = await folder(t);
    const script = `
      import { kill, pid } from 'node:process';
      import { CopiesUnderWay } from '${join(ROOT, 'src/store/copies-under-way.ts')}';
      import { folderOutputs } from '${join(ROOT, 'src/store/outputs.ts')}';
      const [roots, records, uri, copy] = JSON.parse(process.argv[1]);
      const progress = (done, total) => done < total && kill(pid, 'SIGKILL');
      await folderOutputs(roots, new CopiesUnderWay(records)).deliver(uri, copy, { signal: new AbortController().signal, progress });`;
    const copy = { jobId, path, sha256, bytes, mediaType: 'video/mp4', filename: `${jobId}.mp4` };
    const args = ['--input-type=module', '--no-warnings', '-e', script, JSON.stringify([roots, records, uri, copy])];
    const { signal, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.equal(signal, 'SIGKILL', stderr);
    return records;
  }

  const filesIn = async (root: string) =>
    (await readdir(root, { recursive: true, withFileTypes: true })).filter((one) => one.isFile()).map((one) => one.name);

  it('that a killed process left half are gone after the next start, and those of others are left alone', async (t) => {
    const root = await folder(t);
    const copy = await copyOf(t);
    const records = await killed(t, [root], 'x/y/a.mp4', copy);
    const [left, ...more] = await filesIn(root);
    assert.match(left ?? 'none', new RegExp(`^\\.ffjobs-${copy.jobId}\\.[\\w-]+\\.part$`));
    assert.deepEqual(more, []);
    // Of another node, which has the job now, and of a program that has nothing to do with us.
    const others = [`.ffjobs-${copy.jobId}.of-another.part`, `.ffjobs-${copy.jobId}.part`, 'a.mp4.part'];
    for (const name of others) await writeFile(join(root, 'x', 'y', name), 'half');
    await new CopiesUnderWay(records).clear(assert.fail);
    assert.deepEqual((await filesIn(root)).sort(), others.sort());
    assert.deepEqual(await readdir(records), []);
  });

  it('that a killed process left half are gone with the next try of their job', async (t) => {
    const root = await folder(t);
    const copy = await copyOf(t);
    const records = await killed(t, [root], 'x/a.mp4', copy);
    assert.equal((await filesIn(root)).length, 1);
    await deliver(folderOutputs([root], new CopiesUnderWay(records)), 'x/a.mp4', copy);
    assert.deepEqual(await filesIn(root), ['a.mp4']);
    assert.deepEqual(await readdir(records), []);
  });

  it('that were left half are followed over no link, and forgotten where their folder is gone but not where its disk is', async (t) => {
    const [root, outside] = [await folder(t), await folder(t)];
    const copy = await copyOf(t);
    const [swapped, removed, away] = [
      await killed(t, [root], 'x/a.mp4', copy),
      await killed(t, [root], 'y/a.mp4', copy),
      await killed(t, [root], 'z/a.mp4', copy),
    ];
    await rename(join(root, 'x'), join(outside, 'x'));
    await symlink(join(outside, 'x'), join(root, 'x'));
    await rm(join(root, 'y'), { recursive: true });
    await new CopiesUnderWay(swapped).clear(assert.fail);
    await new CopiesUnderWay(removed).clear(assert.fail);
    assert.equal((await filesIn(outside)).length, 1);
    assert.deepEqual([await readdir(swapped), await readdir(removed)], [[], []]);
    const elsewhere = `${root}-unmounted`;
    await rename(root, elsewhere);
    const told: string[] = [];
    const later = new CopiesUnderWay(away);
    await later.clear((file) => told.push(file.folders.join('/')));
    await rename(elsewhere, root);
    assert.deepEqual(told, ['z']);
    await later.clear(assert.fail);
    assert.deepEqual(await filesIn(root), []);
  });

  it('that were written down and not begun are no trouble', async (t) => {
    const records = await folder(t);
    await writeFile(join(records, 'job_20250405_abcdefghijkl'), '{"root": "/srv');
    await new CopiesUnderWay(records).clear(assert.fail);
    assert.deepEqual(await readdir(records), []);
  });

  it('of a folder that is gone are worth another try', async (t) => {
    const root = join(await folder(t), 'gone');
    const outcome = deliver(await copiesTo(t, [root]), 'a.mp4', await copyOf(t));
    await assert.rejects(outcome, (error) => error instanceof JobsError && error.kind === 'unavailable');
  });
});

describe('copies on S3', { concurrency: 4 }, () => {
  let server: S3Server;
  before(async () => {
    server = await startS3();
  });
  after(() => server[Symbol.asyncDispose]());

  async function place(t: TestContext, mayWrite?: (bucket: string, key: string) => boolean) {
    const way = await startProxy(server.connection.endpoint);
    const bucket = await server.makeBucket();
    const to = openS3Outputs({
      connection: { ...server.connection, endpoint: way.endpoint },
      buckets: [bucket],
      mayWrite,
      idleMs: 5000,
      partBytes: 5 * 2 ** 20,
    });
    t.after(async () => {
      await to[Symbol.asyncDispose]();
      await way[Symbol.asyncDispose]();
    });
    return { to, bucket, way };
  }

  it('are whole, with their type and name, whatever their size', async (t) => {
    const { to, bucket } = await place(t);
    const copy = await copyOf(t);
    const large = await copyOf(t, randomBytes(11 * 2 ** 20), 'job_2');
    assert.deepEqual(await deliver(to, `s3://${bucket}/x/a.mp4`, copy), { uri: `s3://${bucket}/x/a.mp4` });
    assert.deepEqual(await deliver(to, `s3://${bucket}/x/`, copy), { uri: `s3://${bucket}/x/${copy.filename}` });
    assert.deepEqual(await deliver(to, `s3://${bucket}`, large), { uri: `s3://${bucket}/${large.filename}` });
    const found = await server.client.send(new HeadObjectCommand({ Bucket: bucket, Key: large.filename }));
    assert.deepEqual([found.ContentLength, found.ContentType, found.Metadata?.sha256], [large.bytes, 'video/mp4', large.sha256]);
    assert.match(found.ContentDisposition!, /^inline; filename="job_2\.mp4"/);
    assert.equal((await server.keys(bucket)).length, 3);
  });

  it('go to listed buckets and where the rule of the caller allows, and nowhere else', async (t) => {
    const { to, bucket } = await place(t, (_, key) => key.startsWith('tenant-a/'));
    const other = await server.makeBucket();
    const copy = await copyOf(t);
    for (const uri of [
      `s3://${other}/tenant-a/a.mp4`,
      `s3://${bucket}/a.mp4`,
      `s3://${bucket}/`,
      `s3://${bucket}/tenant-a/../a.mp4`,
      `s3://${bucket}//a.mp4`,
      's3://Not a bucket/a.mp4',
      's3://user:secret@bucket/a.mp4',
      's3://',
    ]) {
      assert.ok(to.check(uri), uri);
      assert.ok(reasonOf(await deliver(to, uri, copy)), uri);
    }
    assert.deepEqual([await server.keys(bucket), await server.keys(other)], [[], []]);
    assert.equal(to.check(`s3://${bucket}/tenant-a/`), undefined);
  });

  it('leave what is there as it is, but for the same bytes and a lost try of the same job', async (t) => {
    const { to, bucket } = await place(t);
    await server.client.send(new PutObjectCommand({ Bucket: bucket, Key: 'a.mp4', Body: 'another' }));
    const copy = await copyOf(t);
    const uri = (key: string) => `s3://${bucket}/${key}`;
    assert.equal(reasonOf(await deliver(to, uri('a.mp4'), copy)), 'OUTPUT_EXISTS');
    await deliver(to, uri('b.mp4'), copy);
    assert.ok('uri' in (await deliver(to, uri('b.mp4'), copy)));
    assert.equal(reasonOf(await deliver(to, uri('b.mp4'), await copyOf(t, randomBytes(10), 'job_2'))), 'OUTPUT_EXISTS');
    const again = await copyOf(t, randomBytes(10), copy.jobId);
    assert.ok('uri' in (await deliver(to, uri('b.mp4'), again)));
    const found = await server.client.send(new HeadObjectCommand({ Bucket: bucket, Key: 'b.mp4' }));
    assert.equal(found.ContentLength, 10);
  });

  it('of a bucket that is closed or gone fail; of a store that is away they wait', async (t) => {
    const { to, bucket, way } = await place(t);
    const copy = await copyOf(t);
    for (const [answer, reason] of [
      [errorAnswer(403, 'AccessDenied'), 'OUTPUT_NOT_WRITABLE'],
      [errorAnswer(404, 'NoSuchBucket'), 'OUTPUT_NOT_WRITABLE'],
    ] as const) {
      way.fault = () => answer;
      const outcome = await deliver(to, `s3://${bucket}/a.mp4`, copy);
      assert.deepEqual([reasonOf(outcome), 'retryable' in outcome && outcome.retryable], [reason, false]);
    }
    way.fault = () => errorAnswer(500, 'InternalError');
    await assert.rejects(deliver(to, `s3://${bucket}/a.mp4`, copy), (error) => error instanceof JobsError && error.kind === 'unavailable');
    way.fault = undefined;
    assert.deepEqual([await server.keys(bucket), await server.uploads(bucket)], [[], []]);
  });

  it('and in folders come with the job, before it succeeds', async (t) => {
    const root = await folder(t);
    const bucket = await server.makeBucket();
    const { accessKeyId, secretAccessKey } = server.connection.credentials;
    await using service = await startService(
      { OUTPUT_ROOTS: root, OUTPUT_BUCKETS: bucket, S3_ENDPOINT: server.connection.endpoint },
      { env: { ...process.env, AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } },
    );
    const client = restClient(service.baseUrl);
    const run = async (output_uri: string, output = 'copied') => {
      const { job_id } = await client.submit({
        source_images: ['face.jpg'],
        target_image: 'target.png',
        output_uri,
        parameters: { output },
      });
      await untilTerminal(client, job_id as string);
      return await client.get(job_id as string);
    };
    const first = await run('shared/a.png');
    assert.equal((first.result as Json).output_uri, 'shared/a.png');
    assert.equal(await readFile(join(root, 'shared', 'a.png'), 'utf8'), 'copied');
    const second = await run(`s3://${bucket}/`);
    assert.equal((second.result as Json).output_uri, `s3://${bucket}/${second.job_id as string}.png`);
    assert.deepEqual(await server.keys(bucket), [`${second.job_id as string}.png`]);
    const third = await run('shared/a.png', 'something else');
    assert.deepEqual([third.status, (third.error as Json).reason, third.attempt], ['failed', 'OUTPUT_EXISTS', 1]);
    assert.equal(await readFile(join(root, 'shared', 'a.png'), 'utf8'), 'copied');

    for (const uri of ['../a.png', '/etc/a.png', 's3://others/a.png', 'https://example.com/a.png', 'ftp://x/y']) {
      const { violations } = (await client.validate({ source_images: ['face.jpg'], target_image: 'target.png', output_uri: uri })) as {
        violations: { field: string; description: string }[];
      };
      assert.deepEqual(
        violations.map(({ field }) => field),
        ['output_uri'],
        uri,
      );
    }
  });

  it('are refused in words where no place is configured', () => {
    const none = outputs({ folders: undefined, s3: undefined });
    for (const uri of ['a.png', '/a.png', 's3://bucket/a.png', 'https://x/y', 'javascript:alert(1)']) {
      assert.match(none.check(uri)!.description, /results are not copied anywhere here/);
    }
    const some = outputs({ folders: folderOutputs(['/srv/out'], new CopiesUnderWay('/nowhere')), s3: undefined });
    assert.match(some.check('s3://bucket/a.png')!.description, /copied to a path under an output folder here, and nowhere else/);
  });
});
