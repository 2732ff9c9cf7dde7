// `npm test [-- WORD ...]`: everything that can be checked on this machine, with nothing installed by hand. The last line is always
// `N passed, N failed, N skipped`. `test/suites.json` lists what must have run: one of them missing, or a suite that is not listed, is a failure,
// so that nothing falls out silently. Words choose the suites whose names contain one of them. `--list` writes the list anew.
// `npm run test:engine` is `--engine`: the suites with the real FaceFusion alone, and all of them, on one checkout or two.
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run as runNodeTests } from 'node:test';
import { inspect } from 'node:util';
import { showPhases } from '../src/cli/local/phases.ts';
import { SetupProblem, workerPython } from '../src/cli/local/python.ts';
import { readSettings } from '../src/cli/local/settings.ts';
import { ConfigError } from '../src/config.ts';
import { breaksOfReleased, lint } from './contract.ts';
import { MANIFEST, manifest } from './generate.ts';

const ROOT = join(import.meta.dirname, '..');
const LIST = join(ROOT, 'test', 'suites.json');
const CI = process.env.CI === 'true' || process.env.CI === '1';
/** Begins the reason of a skip for want of something that the project cannot install: a GPU, a program of the system. */
const MACHINE = 'machine: ';
const SUITE_TIMEOUT_MS = 12 * 60_000;
/** All of pytest is one process; with a FaceFusion checkout it has more to do, and with all of its suites much more. */
const PYTEST_TIMEOUT_MS = 20 * 60_000;
const ENGINE_TIMEOUT_MS = 2 * 3_600_000;
/** Suites with the real FaceFusion. */
const ENGINE_SUITES = /engine[-_]facefusion/;

/** Names of all that must run, by who runs them. */
interface Suites {
  readonly checks: readonly string[];
  readonly node: readonly string[];
  readonly pytest: readonly string[];
}

/** What happened so far. */
class Tally {
  passed = 0;
  readonly failures: string[] = [];
  /** How many tests of a suite were skipped for one reason. */
  readonly skips = new Map<string, number>();
  readonly ran = new Set<string>();

  fail(what: string): void {
    this.failures.push(what);
    console.log(`FAILED  ${what}`);
  }

  /** `needed`: the project can install what was lacking, so that CI takes no excuse. */
  skip(what: string, why: string, needed: boolean): void {
    if (CI && needed) this.fail(`${what}: skipped (${why}), which CI does not take`);
    else {
      const line = `${what.split(/::|: /)[0]}: ${why.replace(/^Skipped: /, '')}`;
      this.skips.set(line, (this.skips.get(line) ?? 0) + 1);
    }
  }

  get skipped(): number {
    return [...this.skips.values()].reduce((sum, count) => sum + count, 0);
  }
}

interface Check {
  readonly name: string;
  /** Undefined: passed; else the words of the failure, or why this machine cannot tell, which begins with `MACHINE`. */
  run(): Promise<string | undefined>;
}

function present(): Suites {
  const find = (pattern: string) =>
    globSync(pattern, { cwd: ROOT, exclude: (path) => String(path).includes('.venv') })
      .map((path) => path.replaceAll('\\', '/'))
      .sort();
  return { checks: CHECKS.map(({ name }) => name), node: find('test/**/*.test.ts'), pytest: find('worker/tests/**/test_*.py') };
}

interface Finished {
  readonly code: number | null;
  readonly output: string;
}

function command(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd ?? ROOT,
      env: { ...process.env, ...options.env },
      timeout: options.timeoutMs ?? SUITE_TIMEOUT_MS,
    });
    let output = '';
    const take = (chunk: Buffer) => {
      output += chunk;
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('error', (error) => resolve({ code: null, output: error.message }));
    child.on('close', (code, signal) => resolve({ code, output: signal === null ? output : `${output}\nended by ${signal}` }));
  });
}

/** A check that is a program's exit code. */
function byProgram(name: string, program: () => string, args: readonly string[], cwd = ROOT): Check {
  return {
    name,
    async run() {
      const { code, output } = await command(program(), args, { cwd });
      return code === 0 ? undefined : output.trim() || `${program()} ended with ${code}`;
    },
  };
}

const bin = (name: string) => () => join(ROOT, 'node_modules', '.bin', process.platform === 'win32' ? `${name}.cmd` : name);
let python = '';

const CHECKS: readonly Check[] = [
  byProgram('typescript', bin('tsc'), ['--noEmit']),
  byProgram('typescript-web', bin('tsc'), ['-p', 'web']),
  byProgram('biome', bin('biome'), ['check', '--colors=off', '--error-on-warnings']),
  {
    name: 'generated-code',
    async run() {
      const recorded = JSON.parse(readFileSync(MANIFEST, 'utf8')) as Record<string, string>;
      const now = manifest();
      const changed = [...new Set([...Object.keys(recorded), ...Object.keys(now)])].filter((file) => recorded[file] !== now[file]);
      return changed.length === 0 ? undefined : `proto/ and gen/ do not belong together; run \`npm run generate\`:\n${changed.join('\n')}`;
    },
  },
  { name: 'buf-lint', run: lint },
  { name: 'buf-breaking', run: breaksOfReleased },
  byProgram('ruff', () => python, ['-m', 'ruff', 'check']),
  byProgram('ruff-format', () => python, ['-m', 'ruff', 'format', '--check']),
  { name: 'gofmt', run: gofmt },
];

/** It names the files that it would write otherwise, and ends well in any case; what is no Go it tells with an exit code. */
async function gofmt(): Promise<string | undefined> {
  const { code, output } = await command('gofmt', ['-l', 'examples/go']);
  if (code === null) return `${MACHINE}no gofmt on the PATH`;
  return code === 0 && output.trim() === '' ? undefined : `gofmt would change, or cannot read:\n${output.trim()}`;
}

async function runCheck(check: Check, tally: Tally): Promise<void> {
  tally.ran.add(check.name);
  const began = performance.now();
  const problem = await check.run();
  if (problem === undefined) {
    tally.passed++;
    console.log(`ok      ${check.name} (${seconds(began)})`);
  } else if (problem.startsWith(MACHINE)) {
    tally.skip(check.name, problem, false);
  } else {
    console.log(problem);
    tally.fail(check.name);
  }
}

/** Suites of more than half a minute on two cores. */
const LONG =
  /\/(api|bench|chaos|demo(-cluster)?|drill|provenance(-faults)?|service|snippets|store-redis-together|web-[a-z]+|webhooks)\.test/;

async function runNode(files: readonly string[], tally: Tally, timeoutMs = SUITE_TIMEOUT_MS): Promise<void> {
  if (files.length === 0) return;
  // First, so that none is left to run alone at the end.
  const inOrder = [...files.filter((file) => LONG.test(file)), ...files.filter((file) => !LONG.test(file))];
  interface Suite {
    passed: number;
    failed: number;
    skipped: number;
    output: string;
  }
  const suites = new Map<string, Suite>();
  const suiteOf = (file: string | undefined): Suite => {
    const name = file === undefined ? 'test' : relative(ROOT, file).replaceAll('\\', '/');
    const known = suites.get(name) ?? { passed: 0, failed: 0, skipped: 0, output: '' };
    suites.set(name, known);
    return known;
  };
  const events = runNodeTests({
    files: inOrder.map((file) => join(ROOT, file)),
    // Suites wait more than they compute: for processes to start, for a lease to end. Three at a time leave a quarter of two processors idle.
    concurrency: Math.max(4, Math.min(8, availableParallelism())),
    timeout: timeoutMs,
  });
  const paths = new Map<string, string[]>();
  for await (const { type, data } of events) {
    const entry = entryFile(data);
    if (type === 'test:stderr' || type === 'test:stdout') {
      suiteOf(entry).output += data.message;
    } else if (type === 'test:start') {
      const path = paths.get(entry ?? '') ?? [];
      path.length = data.nesting;
      path.push(data.name);
      paths.set(entry ?? '', path);
    } else if (type === 'test:pass' || type === 'test:fail') {
      if (data.details.type === 'suite') continue;
      const suite = suiteOf(entry);
      const file = relative(ROOT, entry ?? 'test').replaceAll('\\', '/');
      const title = [...(paths.get(entry ?? '')?.slice(0, data.nesting) ?? []), data.name].join(' > ');
      if (data.name === entry) {
        // The file itself, told only where it has no tests of its own.
        if (type === 'test:pass') tally.fail(`${file}: it has no tests`);
        else tally.fail(`${file}: it did not run to its end`);
        suite.failed++;
      } else if (type === 'test:fail') {
        // A parent fails with its children; the child's failure is the news.
        if (data.details.error.failureType === 'subtestsFailed') continue;
        suite.failed++;
        tally.ran.add(file);
        tally.fail(`${file}: ${title}`);
        console.log(indented(inspect(data.details.error.cause ?? data.details.error, { colors: false })));
      } else if (data.skip !== undefined || data.todo !== undefined) {
        suite.skipped++;
        tally.ran.add(file);
        const why = [data.skip, data.todo].find((reason) => typeof reason === 'string' && reason !== '');
        tally.skip(`${file}: ${title}`, String(why ?? 'no reason given'), !String(why).startsWith(MACHINE));
      } else {
        suite.passed++;
        tally.passed++;
        tally.ran.add(file);
      }
    } else if (type === 'test:summary' && entry !== undefined) {
      tellSuite(relative(ROOT, entry), suiteOf(entry), data.duration_ms);
    }
  }
  for (const [name, suite] of suites)
    if (suite.failed > 0 && suite.output !== '') console.log(`--- output of ${name}\n${indented(suite.output)}`);
}

/** The file that was run, which is not always the one that a test is written in: contract suites are functions. The types do not know it yet. */
function entryFile(data: object): string | undefined {
  const { file, entryFile } = data as { file?: string; entryFile?: string };
  return entryFile ?? file;
}

function tellSuite(name: string, suite: { passed: number; failed: number; skipped: number }, ms: number): void {
  const counts = [
    `${suite.passed} passed`,
    suite.failed > 0 && `${suite.failed} failed`,
    suite.skipped > 0 && `${suite.skipped} skipped`,
  ].filter(Boolean);
  console.log(`${suite.failed > 0 ? 'FAILED' : 'ok    '}  ${name}: ${counts.join(', ')} (${(ms / 1000).toFixed(1)} s)`);
}

async function runPytest(files: readonly string[], tally: Tally, timeoutMs = PYTEST_TIMEOUT_MS): Promise<void> {
  if (files.length === 0) return;
  const folder = mkdtempSync(join(tmpdir(), 'pytest-'));
  const log = join(folder, 'events.jsonl');
  try {
    const { code, output } = await command(
      python,
      ['-m', 'pytest', '-p', 'pytest_events', '--events', log, '--tb=short', '-q', ...files.map((file) => relative('worker', file))],
      { cwd: join(ROOT, 'worker'), env: { PYTHONPATH: join(ROOT, 'scripts'), PYTHONDONTWRITEBYTECODE: '1' }, timeoutMs },
    );
    console.log(output.trimEnd());
    const before = tally.failures.length;
    for (const line of existsSync(log) ? readFileSync(log, 'utf8').split('\n').filter(Boolean) : []) {
      const { test, outcome, reason } = JSON.parse(line) as { test: string; outcome: string; reason: string | null };
      tally.ran.add(`worker/${test.split('::')[0]}`);
      if (outcome === 'passed') tally.passed++;
      else if (outcome === 'skipped') tally.skip(`worker/${test}`, reason ?? 'no reason given', !reason?.includes(MACHINE));
      else tally.fail(`worker/${test}${reason === null ? '' : `: ${reason}`}`);
    }
    if (code !== 0 && tally.failures.length === before) tally.fail(`pytest ended with ${code ?? 'a signal'}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function preparePython(tally: Tally): Promise<boolean> {
  using phases = showPhases({ err: process.stderr });
  try {
    python = await workerPython({
      root: ROOT,
      given: process.env.FFJOBS_PYTHON || undefined,
      env: process.env,
      dev: true,
      report: (phase) => phases.report(phase),
    });
    return true;
  } catch (error) {
    if (!(error instanceof SetupProblem)) throw error;
    tally.fail(`Python for the worker: ${error.message}`);
    return false;
  }
}

/**
 * A folder of this run's own for all that suites keep in a temporary one; it goes with the run, because a suite that is killed tidies nothing up. The
 * folders of runs that were killed themselves go now.
 */
function ownTemporaryFolder(): Disposable {
  const parent = tmpdir();
  for (const name of readdirSync(parent)) {
    const pid = /^ffjobs-tests-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    try {
      rmSync(join(parent, name), { recursive: true, force: true });
    } catch {
      // Another user's, who has it swept.
    }
  }
  const folder = mkdtempSync(join(parent, `ffjobs-tests-${process.pid}-`));
  // As open as the one that it stands for: some suites have workers of another user.
  chmodSync(folder, 0o1777);
  process.env.TMPDIR = folder;
  return { [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }) };
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

const seconds = (began: number) => `${((performance.now() - began) / 1000).toFixed(1)} s`;
const indented = (text: string) => text.trimEnd().replace(/^/gm, '    ');

/** Where no checkout is named, the one that is installed and in use here is what the suites with the real FaceFusion run on. */
function provideCheckout(): void {
  if (process.env.FACEFUSION_HOME) return;
  const { FFJOBS_ENGINE: _, ...env } = process.env;
  try {
    const { facefusion } = readSettings(env, ROOT);
    if (facefusion) Object.assign(process.env, { FACEFUSION_HOME: facefusion.home, FACEFUSION_PYTHON: facefusion.python });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
  }
}

async function testEngine(found: Suites, words: readonly string[]): Promise<number> {
  if (!process.env.FACEFUSION_HOME || !process.env.FACEFUSION_PYTHON) {
    console.log(
      'There is no FaceFusion to test with: `npm run ffjobs -- engine install facefusion` gets one (it needs git, ffmpeg, curl and a network), or name\n' +
        'a checkout in FACEFUSION_HOME and the Python of its environment in FACEFUSION_PYTHON; a second one, of another release, in FACEFUSION_HOME_2\n' +
        'and FACEFUSION_PYTHON_2. No models are needed: the suites make their own.',
    );
    console.log('0 passed, 1 failed, 0 skipped');
    return 1;
  }
  process.env.FACEFUSION_TESTS = 'full';
  const tally = new Tally();
  const began = performance.now();
  const chosen = (names: readonly string[]) =>
    names.filter((name) => ENGINE_SUITES.test(name) && (words.length === 0 || words.some((word) => name.includes(word))));
  const prepared = await preparePython(tally);
  await runNode(chosen(found.node), tally, ENGINE_TIMEOUT_MS);
  if (prepared) await runPytest(chosen(found.pytest), tally, ENGINE_TIMEOUT_MS);
  return conclude(tally, began);
}

function conclude(tally: Tally, began: number): number {
  console.log(`\nDone in ${seconds(began)}.`);
  for (const [skip, count] of tally.skips) console.log(`skipped  ${count > 1 ? `${count} of ` : ''}${skip}`);
  for (const failure of tally.failures) console.log(`failed   ${failure}`);
  console.log(`${tally.passed} passed, ${tally.failures.length} failed, ${tally.skipped} skipped`);
  return tally.failures.length === 0 ? 0 : 1;
}

async function main(words: readonly string[]): Promise<number> {
  const found = present();
  if (words.includes('--list')) {
    writeFileSync(LIST, `${JSON.stringify(found, null, 2)}\n`);
    return 0;
  }
  provideCheckout();
  using _ = ownTemporaryFolder();
  if (words.includes('--engine')) {
    return await testEngine(
      found,
      words.filter((word) => word !== '--engine'),
    );
  }
  const tally = new Tally();
  const chosen = (names: readonly string[]) => names.filter((name) => words.length === 0 || words.some((word) => name.includes(word)));
  const checks = CHECKS.filter(({ name }) => chosen([name]).length > 0);
  const needsPython = (check: Check) => check.name.startsWith('ruff');
  const began = performance.now();

  // The environment is fetched while the checks that do not need it run. They and pytest take one processor each, so the suites go beside them.
  const preparing = preparePython(tally);
  const checked = (async () => {
    for (const check of checks) if (!needsPython(check)) await runCheck(check, tally);
    if (!(await preparing)) return;
    for (const check of checks) if (needsPython(check)) await runCheck(check, tally);
    await runPytest(chosen(found.pytest), tally);
  })();
  await preparing;
  await Promise.all([checked, runNode(chosen(found.node), tally)]);

  const list = JSON.parse(readFileSync(LIST, 'utf8')) as Suites;
  const listed = [...list.checks, ...list.node, ...list.pytest];
  for (const name of chosen(listed)) if (!tally.ran.has(name)) tally.fail(`${name}: listed in test/suites.json and did not run`);
  for (const name of [...found.node, ...found.pytest, ...found.checks]) {
    if (!listed.includes(name)) tally.fail(`${name}: not listed in test/suites.json; add it with \`npm test -- --list\``);
  }
  if (words.length > 0 && chosen(listed).length === 0) tally.fail(`no suite has a name with ${words.join(' or ')}`);

  return conclude(tally, began);
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.log(inspect(error));
  console.log('0 passed, 1 failed, 0 skipped');
  return 1;
});
