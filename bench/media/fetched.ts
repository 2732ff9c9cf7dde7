// In: an input that is fetched, by http and by s3. Timed by the service itself: from the first request to the whole file with its digest.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Row } from '../figures.ts';
import { bare, growth, type Kit, ROUNDS, rows, run, type Way } from './kit.ts';

function fetched(name: string, reference: (origin: string) => string): Way {
  return {
    name,
    async *run(kit: Kit): AsyncIterable<Row> {
      const { bench, origin, service, folder } = kit;
      const ours: number[] = [];
      const peers: number[] = [];
      let grown = 0;
      for (let round = 0; round < bench.pick(ROUNDS, 1); round++) {
        bench.say(`${name}, round ${round + 1}`);
        const { value: job, bytes } = await growth(service.pid, () => run(service, reference(origin)));
        ours.push(job.timings!.prepareSeconds);
        grown = Math.max(grown, bytes);
        const file = join(folder, 'peer');
        peers.push(await bare('in', `${origin}/media.mp4`, file));
        rmSync(file);
      }
      yield* rows(name, kit, ours, peers, grown, 'Node: http, hash, file');
    },
  };
}

export const fetchedByHttp = fetched('in by http', (origin) => `${origin}/media.mp4`);
export const fetchedFromS3 = fetched('in from s3', () => 's3://bucket/media.mp4');
