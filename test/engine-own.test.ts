// The engine that page 20 shows, saved as its reader would, in a service of its own.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { python, ROOT, type Service, startService } from './api/service.ts';
import { blocksOf } from './docs/blocks.ts';

const PAGE = 'docs/20-engines.md';

/** Mean distance of one picture from the other's opposite, mixed with the other at a strength: 0 where it is that. */
const DISTANCE = `
import sys, cv2, numpy
before, after, strength = cv2.imread(sys.argv[1]).astype(float), cv2.imread(sys.argv[2]).astype(float), float(sys.argv[3])
print(numpy.abs(after - ((1 - strength) * before + strength * (255 - before))).mean())
`;

describe('an engine of one’s own, as the page has it', { timeout: 120_000 }, () => {
  let folder: string;
  let service: Service;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ffjobs-engine-'));
    const [block] = blocksOf(PAGE, readFileSync(join(ROOT, PAGE), 'utf8')).filter(({ language }) => language === 'python');
    await writeFile(join(folder, 'negative.py'), block!.code);
    service = await startService({ ENGINE: 'negative:Negative', ENGINE_PATH: folder });
    await cp(join(ROOT, 'samples', 'grace_hopper.jpg'), join(service.inputDir, 'grace.jpg'));
  });
  after(async () => {
    await service[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const call = async (path: string, body?: object) => {
    const init = body && { method: 'POST', headers: { 'content-type': 'application/json', prefer: 'wait=60' }, body: JSON.stringify(body) };
    const answer = await fetch(`${service.baseUrl}/api/v1${path}`, init);
    return { status: answer.status, body: (await answer.json()) as Record<string, never> };
  };

  test('says what it can do', async () => {
    const { body } = await call('/capabilities');
    const {
      engine,
      options,
      image_formats: formats,
    } = body as unknown as {
      engine: { name: string };
      options: { name: string }[];
      image_formats: string[];
    };
    assert.deepEqual([engine.name, options.map(({ name }) => name), formats], ['negative', ['processors', 'strength'], ['jpg', 'png']]);
  });

  test('makes what it says, in the format that is asked for', async () => {
    for (const [strength, format, type] of [
      [1, undefined, 'image/jpeg'],
      [0.8, 'png', 'image/png'],
    ] as const) {
      const { body } = await call('/jobs', { target_image: 'grace.jpg', output_format: format, parameters: { strength } });
      const job = body as unknown as { status: string; result_url: string; result: { media_type: string; width: number }; error: object };
      assert.equal(job.status, 'succeeded', JSON.stringify(job.error));
      assert.deepEqual([job.result.media_type, job.result.width], [type, 512]);
      const path = join(folder, 'result');
      await writeFile(path, Buffer.from(await (await fetch(job.result_url)).arrayBuffer()));
      const { stdout } = await promisify(execFile)(python(), ['-c', DISTANCE, join(service.inputDir, 'grace.jpg'), path, String(strength)]);
      assert.ok(Number(stdout) < 4, stdout);
    }
  });

  test('is asked for nothing that it cannot do', async () => {
    const { body } = await call('/jobs:validate', { target_image: 'grace.jpg', parameters: { strength: 7 } });
    const { violations } = body as unknown as { violations: { field: string; reason: string }[] };
    assert.deepEqual(
      violations.map(({ field, reason }) => [field, reason]),
      [['parameters.strength', 'OUT_OF_RANGE']],
    );
    const video = await call('/jobs', { target_video: 'target.mp4' });
    assert.equal(video.status, 400, JSON.stringify(video.body));
    assert.match(JSON.stringify(video.body), /"field":"target_video".*makes no videos; give a picture as target_image.*TARGET_NOT_TAKEN/);
  });
});
