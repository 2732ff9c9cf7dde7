// `npm run fuzz [-- CASES] [SEED]`: the hostile callers of test/attack.test.ts, as many cases as are asked for (100,000), against the real service; what
// `npm test` does of it is a few hundred. Ends with the test's own exit code; the seed that it prints repeats the run.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const [cases = '100000', seed] = process.argv.slice(2);
/** Mutated requests that one round of the test sends: 240 over HTTP/1.1 and 160 over HTTP/2. */
const A_ROUND = 400;
const rounds = Math.ceil(Number(cases) / A_ROUND);
if (!(rounds > 0)) {
  process.stderr.write('usage: npm run fuzz [-- CASES [SEED]]\n');
  process.exit(2);
}
const test = join(import.meta.dirname, '..', 'test', 'attack.test.ts');
const env = { ...process.env, FUZZ: String(rounds), ...(seed === undefined ? {} : { FUZZ_SEED: seed }) };
process.stdout.write(`${rounds * A_ROUND} cases\n`);
const child = spawn(process.execPath, ['--test', '--test-reporter=spec', test], { env, stdio: 'inherit' });
const [code] = (await once(child, 'exit')) as [number | null];
process.exit(code ?? 1);
