// Out: a result on its way into the store, local and S3, and out of the local one by its signed URL, whole and in ranges.
import { join } from 'node:path';
import type { Row } from '../figures.ts';
import { CLIP, Service } from '../service.ts';
import { bare, bareServer, CREDENTIALS, growth, type Kit, ROUNDS, rows, run, type Way } from './kit.ts';

const RANGES = 16;

function stored(name: string, where: { readonly s3: boolean }, peer: string): Way {
  return {
    name,
    async *run(kit: Kit): AsyncIterable<Row> {
      const { bench, bytes, origin, folder } = kit;
      await using own = where.s3 ? await onS3(kit) : undefined;
      const service = own ?? kit.service;
      const file = join(folder, 'peer');
      const ours: number[] = [];
      const peers: number[] = [];
      let grown = 0;
      for (let round = 0; round < bench.pick(ROUNDS, 1); round++) {
        bench.say(`${name}, round ${round + 1}`);
        // Others bytes each time: what is there already is not stored again.
        const parameters = { output_bytes: bytes, output_seed: round + 1 };
        const measured = await growth(service.pid, () => run(service, CLIP, parameters));
        ours.push(measured.value.timings!.storeSeconds);
        grown = Math.max(grown, measured.bytes);
        if (round === 0) await run(service, CLIP, { ...parameters, copy_to: file });
        peers.push(where.s3 ? await bare('out', file, `${origin}/bucket/peer`) : await bare('hash', file));
      }
      yield* rows(name, kit, ours, peers, grown, peer);
    },
  };
}

async function onS3({ bench, origin }: Kit): Promise<Service> {
  const settings = { BLOBS: 's3://bucket/results', S3_ENDPOINT: origin };
  const service = await Service.start({ dataDir: bench.folder(), settings, env: CREDENTIALS });
  await run(service, CLIP);
  return service;
}

export const storedLocally = stored('out to the local store', { s3: false }, 'Node: file, hash');
export const storedOnS3 = stored('out to s3', { s3: true }, 'Node: file, hash, http PUT');

export const signedUrl: Way = {
  name: 'out by a signed URL',
  async *run(kit: Kit): AsyncIterable<Row> {
    const { bench, bytes, service, folder } = kit;
    const file = join(folder, 'peer');
    const job = await run(service, CLIP, { output_bytes: bytes, output_seed: 100, copy_to: file });
    const url = job.resultUrl!;
    const server = await bareServer(file);
    await using _ = server.process;
    const size = Math.ceil(bytes / RANGES);
    const ranges = (of: string) => Array.from({ length: RANGES }, (__, i) => `${of}#${i * size}-${Math.min(bytes, (i + 1) * size) - 1}`);
    for (const [name, urls] of [
      ['out by a signed URL', (of: string) => [of]],
      [`out by a signed URL in ${RANGES} ranges`, ranges],
    ] as const) {
      const ours: number[] = [];
      const peers: number[] = [];
      let grown = 0;
      for (let round = 0; round < bench.pick(ROUNDS, 1); round++) {
        bench.say(`${name}, round ${round + 1}`);
        const measured = await growth(service.pid, () => bare('get', ...urls(url)));
        ours.push(measured.value);
        grown = Math.max(grown, measured.bytes);
        peers.push(await bare('get', ...urls(server.url)));
      }
      yield* rows(name, kit, ours, peers, grown, 'Node: file, http');
    }
  },
};
