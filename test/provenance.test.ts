// Marks of results in the whole service: the plain engine with real media, the real C2PA library, and an independent look at what callers fetch.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmod, copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startSecured } from './api/secured.ts';
import { python, ROOT, type Service, startService } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { copyPortraits, makeClip } from './fixtures/media/portraits.ts';
import { makeTrial } from './fixtures/provenance/trial.ts';

const CODES = 'http://cv.iptc.org/newscodes/digitalsourcetype/';

/** With a short clip beside the certificate. */
const trial = await makeTrial();
after(() => trial[Symbol.asyncDispose]());
await makeClip(trial.dir, 0.4);

/** Pictures with faces, and a short clip, where the service finds its inputs. */
async function furnish(dir: string): Promise<void> {
  await copyPortraits(dir);
  await copyFile(join(trial.dir, 'clip.mp4'), join(dir, 'clip.mp4'));
}

async function run(service: Service, job: Json, credential?: string): Promise<Json> {
  const client = restClient(service.baseUrl, credential);
  const { job_id } = await client.submit({ source_images: ['face.jpg'], ...job });
  await untilTerminal(client, job_id as string);
  return await client.get(job_id as string);
}

async function provenanceOf(service: Service, jobId: unknown, credential?: string): Promise<{ status: number; json: Json }> {
  const headers = credential === undefined ? {} : { authorization: `Bearer ${credential}` };
  const response = await fetch(new URL(`/api/v1/jobs/${jobId}/provenance`, service.baseUrl), { headers });
  return { status: response.status, json: (await response.json()) as Json };
}

describe('every format that the service writes', () => {
  let service: Service;
  before(async () => {
    service = await startService({ ENGINE: 'classical', PROVENANCE: 'c2pa', PROVENANCE_LABEL: 'AI-generated', ...trial.settings });
    await furnish(service.inputDir);
  });
  after(() => service[Symbol.asyncDispose]());
  const CLIP = { target_video: 'clip.mp4', parameters: { trim_frame_end: 5 } };

  for (const [format, mediaType] of Object.entries({
    jpg: 'image/jpeg',
    png: 'image/png',
    webp: 'image/webp',
    mp4: 'video/mp4',
    mov: 'video/quicktime',
    webm: 'video/webm',
  })) {
    test(`${format} is marked, and a change of it is found out`, async () => {
      const { job_id, status, result, result_url, provenance, error_message } = await run(service, {
        ...(mediaType.startsWith('video') ? CLIP : { target_image: 'target.jpg' }),
        output_format: format,
      });
      assert.equal(status, 'succeeded', String(error_message));
      const told = await provenanceOf(service, job_id);
      assert.equal(told.status, 200);
      const mark = told.json.provenance as Json;
      assert.equal(mark.mark, format === 'webm' ? 'sidecar' : 'embedded');
      assert.equal(mark.digital_source_type, `${CODES}compositeCapture`);
      assert.equal(mark.validation_state, 'Trusted');
      assert.equal(mark.label, 'AI-generated');
      assert.equal(mark.xmp, format !== 'webm');
      assert.deepEqual(
        (mark.ingredients as Json[]).map((one) => [one.title, one.relationship]),
        [
          ['target', 'parentOf'],
          ['source 1', 'inputTo'],
        ],
      );
      const face = createHash('sha256').update(await readFile(join(service.inputDir, 'face.jpg')));
      assert.equal((mark.ingredients as Json[])[1]!.sha256, face.digest('hex'));
      // A job is shown without the manifest that lies beside its result.
      assert.equal((provenance as Json).manifest, mark.manifest);
      assert.equal((provenance as Json).sidecar, '');

      const bytes = Buffer.from(await (await fetch(result_url as string)).arrayBuffer());
      assert.equal(createHash('sha256').update(bytes).digest('hex'), told.json.result_sha256);
      assert.equal((result as Json).sha256, told.json.result_sha256);
      assert.equal((result as Json).provenance, null);
      const path = join(trial.dir, `result.${format}`);
      await writeFile(path, bytes);
      const found = await trial.verify(path, mediaType, mark.sidecar as string);
      assert.equal(found.validation_state, 'Trusted');
      assert.ok(Object.hasOwn(found.manifests, mark.manifest as string));
      assert.doesNotMatch(JSON.stringify(found), new RegExp(`face\\.jpg|${job_id}|thumbnail`));
      const at = bytes.length >> 1;
      bytes[at] = bytes[at]! ^ 1;
      await writeFile(path, bytes);
      assert.equal((await trial.verify(path, mediaType, mark.sidecar as string)).validation_state, 'Invalid');
    });
  }

  test('what is not there is told as with results', async () => {
    const missing = await provenanceOf(service, 'job_20250405_aaaaaaaaaaaa');
    assert.deepEqual([missing.status, missing.json.code], [404, 'NOT_FOUND']);
    const { job_id } = await run(service, { target_image: 'face.jpg', output_format: 'png' });
    await restClient(service.baseUrl).purge(job_id as string);
    const purged = await provenanceOf(service, job_id);
    assert.equal(purged.status, 404);
    assert.match(JSON.stringify(purged.json), /RESULT_PURGED/);
  });

  test('neither key nor path of it is in any log line, in the worker or in its folder', async () => {
    const key = await readFile(trial.settings.PROVENANCE_KEY, 'utf8');
    const text = JSON.stringify(service.logs);
    assert.ok(!text.includes(key.split('\n')[1]!));
    assert.ok(!text.includes(trial.settings.PROVENANCE_KEY));
  });
});

test('marked and unmarked results are never one, nor those of two tenants', async () => {
  await using service = await startSecured(
    { ENGINE: 'classical', CACHE_TTL: '24h', CACHE_SCOPE: 'all', ...trial.settings },
    { tenants: { tenants: { a: { provenance: 'c2pa' }, b: { provenance: 'c2pa' }, c: {}, d: {} } } },
  );
  const credentials: Record<string, string> = {};
  for (const tenant of ['a', 'b', 'c', 'd']) {
    credentials[tenant] = await service.token({ tenant, scopes: ['read', 'submit'] });
    await service.furnish(tenant);
    await furnish(join(service.inputDir, tenant));
  }
  const facts: Record<string, unknown[]> = {};
  const jobs: Record<string, Json> = {};
  for (const [name, tenant] of Object.entries({ a: 'a', again: 'a', b: 'b', c: 'c', d: 'd' })) {
    const job = await run(service, { target_image: 'target.jpg', output_format: 'png' }, credentials[tenant]);
    assert.equal(job.status, 'succeeded', String(job.error_message));
    jobs[name] = job;
    facts[name] = [job.cached, job.provenance !== null];
  }
  assert.deepEqual(facts, { a: [false, true], again: [true, true], b: [false, true], c: [false, false], d: [true, false] });
  assert.equal((jobs.again!.provenance as Json).manifest, (jobs.a!.provenance as Json).manifest);
  assert.notEqual((jobs.b!.provenance as Json).manifest, (jobs.a!.provenance as Json).manifest);
  assert.equal((await provenanceOf(service, jobs.a!.job_id, credentials.b)).status, 404);
  const plain = await provenanceOf(service, jobs.c!.job_id, credentials.c);
  assert.deepEqual([plain.status, (plain.json.provenance as Json).mark], [200, null]);
});

test('a result that cannot be signed is a failure of its own, tried once', async () => {
  await using service = await startService({ PROVENANCE: 'c2pa', ...trial.settings });
  const job = await run(service, { target_image: 'target.png' });
  assert.deepEqual([job.status, job.attempt, (job.error as Json).reason], ['failed', 1, 'PROVENANCE_NOT_SIGNED']);
  assert.match(String(job.error_message), /not as image\/png should be/);
  assert.equal(job.result, null);
});

test('a process that is killed while it signs is worth another try, and one that died before is nobody’s affair', async () => {
  const fragile = join(trial.dir, 'fragile-python');
  // Dies at the first two results; `check` is not told apart by anything but its name.
  const count = join(trial.dir, 'count');
  await writeFile(
    fragile,
    `#!/bin/sh\nif [ "$3" = sign ]; then echo x >> "${count}"; if [ "$(wc -l < "${count}")" -le 1 ]; then exec sh -c 'kill -9 $$'; fi; fi\nexec "${python()}" "$@"\n`,
  );
  await chmod(fragile, 0o755);
  await using service = await startService({ ENGINE: 'classical', PROVENANCE: 'c2pa', ...trial.settings, PROVENANCE_PYTHON: fragile });
  await furnish(service.inputDir);
  const job = await run(service, { target_image: 'target.jpg' });
  assert.deepEqual([job.status, job.attempt], ['succeeded', 1], String(job.error_message));

  const dying = join(trial.dir, 'dying-python');
  await writeFile(
    dying,
    `#!/bin/sh\nif [ "$3" = sign ]; then read -r line; echo '{"ready": true}'; read -r line; kill -9 $$; fi\nexec "${python()}" "$@"\n`,
  );
  await chmod(dying, 0o755);
  await using other = await startService({ ENGINE: 'classical', PROVENANCE: 'c2pa', ...trial.settings, PROVENANCE_PYTHON: dying });
  await furnish(other.inputDir);
  const failed = await run(other, { target_image: 'target.jpg', max_attempts: 1 });
  assert.deepEqual([(failed.error as Json).reason, (failed.error as Json).retryable], ['PROVENANCE_NOT_SIGNED', true]);
});

describe('the service does not start', () => {
  const startsNot = (settings: Record<string, string>, expected: RegExp) =>
    assert.rejects(async () => {
      const service = await startService({ PROVENANCE: 'c2pa', ...trial.settings, ...settings });
      await service[Symbol.asyncDispose]();
    }, expected);

  test('without the library, and says how to install it', async () => {
    const bare = join(trial.dir, 'bare-python');
    await writeFile(bare, `#!/bin/sh\nexec "${python()}" -S "$@"\n`);
    await chmod(bare, 0o755);
    await startsNot({ PROVENANCE_PYTHON: bare }, /has no c2pa.*pip install -r \/.*\/worker\/requirements-provenance\.txt/);
    await startsNot({ PROVENANCE_PYTHON: join(trial.dir, 'nowhere') }, /could not be started/);
  });
  test('with a certificate that does not do', async () => {
    await startsNot({ PROVENANCE_KEY: trial.settings.PROVENANCE_CERT }, /holds no private key in PEM/);
    await startsNot({ PROVENANCE_CERT: trial.settings.PROVENANCE_TRUST }, /signed by itself.*ffjobs provenance certificate/);
    await startsNot({ PROVENANCE_CERT: join(trial.dir, 'missing') }, /FFJOBS_PROVENANCE_CERT is .*missing, which cannot be read/);
  });
  test('with nothing to sign with', async () => {
    await startsNot({ PROVENANCE_CERT: '', PROVENANCE_KEY: '' }, /needs FFJOBS_PROVENANCE_CERT and FFJOBS_PROVENANCE_KEY/);
    await startsNot({ PROVENANCE_KEY: '' }, /go together/);
    await startsNot({ PROVENANCE_TSA: 'ftp://x' }, /FFJOBS_PROVENANCE_TSA/);
    const tenants = join(trial.dir, 'tenants.json');
    await writeFile(tenants, JSON.stringify({ tenants: { studio: { provenance: 'c2pa' } } }));
    const only = { PROVENANCE: 'off', PROVENANCE_CERT: '', PROVENANCE_KEY: '', TENANTS: tenants };
    await startsNot(only, /the tenant studio are to be marked.*set FFJOBS_PROVENANCE_CERT/);
  });
});

test('a certificate for trials is made, and doctor tells what it is and what is wrong with another', async () => {
  const out = join(trial.dir, 'made');
  const cli = async (args: string[], env: Record<string, string> = {}) => {
    const terminal = new FakeTerminal();
    const more = { FFJOBS_PROVENANCE_PYTHON: python(), FFJOBS_PORT: '0', FFJOBS_METRICS_PORT: 'off' };
    const code = await ffjobs([...args, '--json'], terminal, { env: { ...process.env, ...more, ...env }, cwd: trial.dir, root: ROOT });
    return { code, json: terminal.json as Record<string, string>[], said: terminal.stderr };
  };
  const { code, json } = await cli(['provenance', 'certificate', '--out', out]);
  assert.equal(code, 0);
  const settings = json[0]!;
  const finding = async (env: Record<string, string>) =>
    (await cli(['doctor'], env)).json.find(({ check, state }) => check === 'provenance' && state !== 'warn')!;
  const well = await finding(settings);
  assert.equal(well.state, 'ok');
  assert.match(well.detail!, /^results are signed as Trial signer/);
  const { state, detail, fix } = await finding({ ...settings, FFJOBS_PROVENANCE_KEY: settings.FFJOBS_PROVENANCE_CERT! });
  assert.equal(state, 'fail');
  assert.match(detail!, /holds no private key in PEM/);
  assert.equal(fix, 'correct FFJOBS_PROVENANCE_KEY');
  const again = await cli(['provenance', 'certificate', '--out', out]);
  assert.equal(again.code, 1);
  assert.match(JSON.stringify(again), /is there already, and is not overwritten/);
});
