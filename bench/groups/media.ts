// Media in and out by each way, beside a bare Node pipeline that streams and hashes the same bytes. What a way does is in files below bench/media.
import type { Bench, Group } from '../bench.ts';
import type { Row } from '../figures.ts';
import { fetchedByHttp, fetchedFromS3 } from '../media/fetched.ts';
import { CREDENTIALS, run, startOrigin, type Way } from '../media/kit.ts';
import { signedUrl, storedLocally, storedOnS3 } from '../media/results.ts';
import { uploaded } from '../media/uploads.ts';
import { CLIP, Service } from '../service.ts';

const WAYS: readonly Way[] = [fetchedByHttp, fetchedFromS3, storedLocally, storedOnS3, signedUrl];
const BYTES = 2 * 2 ** 30;
const QUICK_BYTES = 9 * 2 ** 20;

export const media: Group = {
  name: 'media',
  about: 'large files in and out, by each way: throughput beside a bare Node pipeline, memory of the service',

  async *run(bench: Bench): AsyncIterable<Row> {
    yield* uploaded(bench);
    const bytes = bench.pick(BYTES, QUICK_BYTES);
    const { url: origin, process } = await startOrigin(bytes);
    await using _ = process;
    const settings = { HTTP_ALLOW: new URL(origin).host, HTTP_CACHE_BYTES: 'off', S3_BUCKETS: 'bucket', S3_ENDPOINT: origin };
    await using service = await Service.start({ dataDir: bench.folder(), settings, env: CREDENTIALS });
    await run(service, CLIP);
    for (const way of WAYS) yield* way.run({ bench, bytes, origin, service, folder: bench.folder() });
  },
};
