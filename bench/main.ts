// `npm run bench [-- GROUP...] [--json FILE] [--quick]`: the only reader of arguments here. Rows go to standard output, what is going on to
// standard error. A figure short of its target is a result; only a bench that broke makes the exit code 1.
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Benches, type Group } from './bench.ts';
import { notRun, type Row } from './figures.ts';
import { cache } from './groups/cache.ts';
import { cluster } from './groups/cluster.ts';
import { engine } from './groups/engine.ts';
import { fleet } from './groups/fleet.ts';
import { get } from './groups/get.ts';
import { guard } from './groups/guard.ts';
import { jobs } from './groups/jobs.ts';
import { media } from './groups/media.ts';
import { queue } from './groups/queue.ts';
import { submit } from './groups/submit.ts';
import { watch } from './groups/watch.ts';
import { CannotRun, ownProcesses } from './processes.ts';
import { machine, table, writeJson } from './report.ts';

const ROOT = join(import.meta.dirname, '..');
const GROUPS: readonly Group[] = [submit, jobs, get, guard, watch, queue, cluster, fleet, media, cache, engine];

const usage = () =>
  [
    'usage: npm run bench [-- [GROUP...] [--json FILE] [--quick]]',
    '',
    'groups (all when none is named):',
    ...GROUPS.map(({ name, about }) => `  ${name.padEnd(8)}${about}`),
    '',
    '--json FILE  the same rows as JSON, with the facts of the machine',
    '--quick      a smoke run: shows that the benches work; its figures mean nothing',
  ].join('\n');

async function main(): Promise<number> {
  let names: string[];
  let options: { json?: string; quick?: boolean; help?: boolean };
  try {
    const parsed = parseArgs({
      allowPositionals: true,
      options: { json: { type: 'string' }, quick: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    });
    names = parsed.positionals;
    options = parsed.values;
    const unknown = names.filter((name) => !GROUPS.some((group) => group.name === name));
    if (unknown.length > 0) throw new Error(`there is no group ${unknown.join(', ')}`);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage()}\n`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(`${usage()}\n`);
    return 0;
  }

  ownProcesses();
  const loadBefore = loadavg()[0]!;
  const quick = options.quick ?? false;
  await using benches = new Benches(quick);
  const rows: Row[] = [];
  let broken = false;
  for (const group of GROUPS.filter(({ name }) => names.length === 0 || names.includes(name))) {
    using bench = benches.for(group, (text) => process.stderr.write(`${group.name}: ${text}\n`));
    try {
      for await (const row of group.run(bench)) rows.push(row);
    } catch (error) {
      const cannot = error instanceof CannotRun;
      broken ||= !cannot;
      if (!cannot) process.stderr.write(`${group.name}: ${(error as Error).stack}\n`);
      rows.push(notRun(group.name, group.about, `${cannot ? '' : 'broken: '}${(error as Error).message}`));
    }
  }
  const facts = machine(ROOT, loadBefore);
  process.stdout.write(
    `${table(rows)}\n\n${facts.cores} cores (${facts.cpu}), Node ${facts.node}, load average ${loadBefore.toFixed(2)} before, `,
  );
  process.stdout.write(`${facts.load_average_after.toFixed(2)} after${quick ? '; a quick run, its figures mean nothing' : ''}\n`);
  if (options.json) writeJson(resolve(options.json), facts, quick, rows);
  return broken ? 1 : 0;
}

// Clients that keep a connection would keep this process too.
process.exit(await main());
