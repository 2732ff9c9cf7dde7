// Raw BullMQ: adds jobs and processes them with a processor that does nothing. argv: where its packages are, port of the Redis, jobs, at once. Prints
// the seconds from the first add to the last completion, and its CPU.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [, , home, port, jobs, atOnce] = process.argv;
const { Queue, Worker } = createRequire(join(home, 'package.json'))('bullmq');
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const count = Number(jobs);
const queue = new Queue(`bench-${process.pid}`, { connection });
await queue.waitUntilReady();
const data = { source_images: ['face.jpg'], target_image: 'target.jpg', parameters: { processors: ['face_swapper'] } };

async function run(total) {
  const done = Promise.withResolvers();
  let completed = 0;
  const worker = new Worker(queue.name, async () => {}, { connection, concurrency: Number(atOnce) });
  worker.on('completed', () => ++completed === total && done.resolve());
  worker.on('error', done.reject);
  await worker.waitUntilReady();
  const cpu = process.cpuUsage();
  const begin = performance.now();
  let left = total;
  await Promise.all(
    Array.from({ length: Number(atOnce) }, async () => {
      while (left-- > 0) await queue.add('noop', data);
    }),
  );
  await done.promise;
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  await worker.close();
  return { seconds, cpuSeconds: (user + system) / 1e6 };
}

await run(Math.min(200, count));
process.stdout.write(`${JSON.stringify(await run(count))}\n`);
process.exit(0);
