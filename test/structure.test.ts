// The shape of the repository: who may import whom, as docs/01-overview.md draws it. The rules are one table; each broken one is named with
// the file that breaks it.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { describe, test } from 'node:test';

const ROOT = join(import.meta.dirname, '..');

type Sources = ReadonlyMap<string, string>;

/** Folder (or file) below `src/` and what of `src/` it may import besides itself. Everything may import `gen` and packages. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'main.ts': ['app.ts', 'cli', 'cli/remote'],
  // The composition root: what is opened and closed, in which order.
  'app.ts': ['app', 'config.ts', 'gpu', 'media', 'store', 'access', 'telemetry'],
  // Its parts: the one place that knows the settings and all adapters.
  app: ['config.ts', 'config', 'rpc', 'rest', 'gpu', 'store', 'media', 's3', 'access', 'notify', 'provenance', 'telemetry', 'jobs'],
  'config.ts': ['config', 'jobs', 'redis-place.ts', 's3'],
  config: ['jobs', 'redis-place.ts', 's3'],
  // What others import to call a service: the contract and nothing else.
  client: [],
  'cli/remote': ['client'],
  'cli/local': ['cli/remote', 'client', 'config.ts', 'config', 'gpu', 'jobs', 'provenance', 's3'],
  cli: ['cli/remote', 'cli/local', 'client', 'config.ts'],
  rpc: ['rest', 'jobs', 'random-bytes.ts', 'recent.ts'],
  rest: ['iso-time.ts', 'recent.ts'],
  gpu: ['jobs'],
  store: ['jobs', 's3', 'recent.ts', 'redis-place.ts', 'rerun.ts'],
  media: ['jobs', 's3', 'young-garbage.ts'],
  access: ['jobs', 'recent.ts'],
  notify: ['jobs', 'rerun.ts'],
  provenance: ['jobs'],
  // For ids; knows nothing.
  'random-bytes.ts': [],
  // For texts that are full of times; knows nothing.
  'iso-time.ts': [],
  // The values used last, whoever keeps some; knows nothing.
  'recent.ts': [],
  // How operators write where a Redis is, for the settings and for who connects; knows nothing.
  'redis-place.ts': [],
  // One pass at a time over what there may be to do; knows nothing.
  'rerun.ts': [],
  // Objects of S3, whoever wants them; knows no jobs.
  s3: ['young-garbage.ts'],
  // Collects what bodies leave behind; knows nothing.
  'young-garbage.ts': [],
  // Loggers and metrics know no domain; the composition root hands them to who uses them.
  telemetry: ['iso-time.ts'],
  jobs: [],
};

/** Packages that one place alone may use, and why. */
const ONE_USER: Readonly<Record<string, string>> = {
  // Two schedulers would mean two jobs on one slot.
  'p-queue': 'gpu/scheduler.ts',
  // Loaded there when traces are on, and only then.
  '@opentelemetry/api': 'telemetry/traces.ts',
  '@opentelemetry/core': 'telemetry/traces.ts',
  '@opentelemetry/exporter-trace-otlp-http': 'telemetry/traces.ts',
  '@opentelemetry/resources': 'telemetry/traces.ts',
  '@opentelemetry/sdk-trace-base': 'telemetry/traces.ts',
};

const FORBIDDEN_FOLDERS = ['utils', 'util', 'helpers', 'common', 'types', 'interfaces'];

/** Part of `src/` that a file belongs to: the longest entry of the table that holds it. */
function partOf(file: string): string | undefined {
  const parts = Object.keys(MAY_IMPORT).filter((part) => file === part || file.startsWith(`${part}/`));
  return parts.sort((a, b) => b.length - a.length)[0];
}

/** What a file imports: paths below `src/`, `gen`, or the names of packages. */
function importsOf(file: string, text: string): string[] {
  const code = text.replace(/^\s*(\/\/|\*|\/\*).*$/gm, '');
  const specifiers = [...code.matchAll(/\bfrom\s+'([^']+)'|\bimport\s*\(\s*'([^']+)'|^\s*import\s+'([^']+)'/gm)].map(
    (match) => match[1] ?? match[2] ?? match[3]!,
  );
  return specifiers.map((specifier) => {
    if (!specifier.startsWith('.')) return specifier;
    const path = posix.normalize(posix.join('src', dirname(file), specifier));
    return path.startsWith('gen/') ? 'gen' : path.startsWith('src/') ? path.slice(4) : `outside of src: ${path}`;
  });
}

/** Every broken rule, one sentence each. Keys of `sources` are paths below `src/`. */
function brokenRules(sources: Sources): string[] {
  const broken: string[] = [];
  const graph = new Map<string, string[]>();
  for (const [file, text] of sources) {
    const part = partOf(file);
    if (part === undefined) {
      broken.push(`src/${file} is in no part that the table in test/structure.test.ts knows; add its folder there with what it may import`);
      continue;
    }
    const folder = dirname(file)
      .split('/')
      .find((name) => FORBIDDEN_FOLDERS.includes(name));
    if (folder !== undefined) broken.push(`src/${file}: a folder '${folder}' says nothing about what is in it; name it for that`);
    const statements = text.replace(/^\s*(\/\/|\*|\/\*).*$/gm, '').trim();
    if (
      statements !== '' &&
      statements.replace(/^export\s+(type\s+)?(\*|\{[^}]*\})(\s+as\s+\w+)?\s+from\s+'[^']+';?\s*/gm, '').trim() === ''
    ) {
      broken.push(`src/${file} only hands on what others export (a barrel); import from where things are`);
    }
    if (file !== 'main.ts' && /\bprocess\s*\.\s*(env|argv|on|once)\b/.test(statements)) {
      broken.push(`src/${file} reads process.env, process.argv or signals; only src/main.ts does, and hands them on`);
    }
    const imports = importsOf(file, text);
    graph.set(file, imports);
    for (const target of imports) {
      const user = ONE_USER[target];
      if (user !== undefined && file !== user) broken.push(`src/${file} imports '${target}', which only src/${user} may`);
      if (target.startsWith('outside of src: ')) broken.push(`src/${file} imports from ${target}`);
      const other = partOf(target);
      if (!target.endsWith('.ts') || other === undefined || other === part) continue;
      if (!MAY_IMPORT[part]!.includes(other)) {
        broken.push(`src/${file} imports src/${target}: ${part} may import ${[...MAY_IMPORT[part]!, 'gen'].join(', ')} and not ${other}`);
      }
    }
  }
  return [...broken, ...cycles(graph)];
}

/** `root`: what paths begin with where people are told of them. */
function cycles(graph: ReadonlyMap<string, readonly string[]>, root = 'src/'): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      found.push(`an import cycle: ${[...path.slice(at), file].map((name) => `${root}${name}`).join(' -> ')}`);
      return;
    }
    if (done.has(file)) return;
    for (const next of graph.get(file) ?? []) if (graph.has(next)) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}

function repository(): Sources {
  const files = globSync('**/*.ts', { cwd: join(ROOT, 'src') }).map((file) => file.replaceAll('\\', '/'));
  return new Map(files.sort().map((file) => [file, readFileSync(join(ROOT, 'src', file), 'utf8')]));
}

test('the repository keeps its own rules', () => {
  assert.deepEqual(brokenRules(repository()), []);
});

test('what is built around it has no import cycles either', () => {
  const graph = new Map<string, string[]>();
  for (const file of globSync('{bench,examples,scripts,test,web/src}/**/*.{ts,tsx,mjs}', { cwd: ROOT })) {
    if (file.includes('node_modules')) continue;
    const code = readFileSync(join(ROOT, file), 'utf8').replace(/^\s*(\/\/|\*|\/\*).*$/gm, '');
    const targets = [...code.matchAll(/\bfrom\s+'(\.[^']+)'/g)].map(([, target]) => posix.join(posix.dirname(file), target!));
    graph.set(file, targets);
  }
  assert.ok(graph.size > 250);
  assert.deepEqual(cycles(graph, ''), []);
});

describe('each rule can be broken', () => {
  const BAD: readonly [name: string, file: string, text: string, expected: RegExp][] = [
    [
      'the domain imports an adapter',
      'jobs/job.ts',
      "import { open } from '../store/jobs-sqlite.ts';",
      /jobs may import gen and not store/,
    ],
    ['braces import each other', 'gpu/scheduler.ts', "import { put } from '../media/fetch.ts';", /gpu may import jobs, gen and not media/],
    [
      'an adapter takes the Config',
      'store/jobs-sqlite.ts',
      "import type { Config } from '../config.ts';",
      /store may import jobs, s3, recent.ts, redis-place.ts, rerun.ts, gen and not config.ts/,
    ],
    [
      'the bridge knows the domain',
      'rest/bridge.ts',
      "export { a } from '../jobs/job.ts';\nconst x = 1;",
      /rest may import iso-time.ts, recent.ts, gen and not jobs/,
    ],
    [
      'a far command knows the domain',
      'cli/remote/watch.ts',
      "await import('../../jobs/job.ts');",
      /cli\/remote may import client, gen and not jobs/,
    ],
    ['a second user of p-queue', 'rpc/service.ts', "import PQueue from 'p-queue';", /only src\/gpu\/scheduler.ts may/],
    ['the environment is read below', 'gpu/worker.ts', 'const home = process.env.HOME;', /only src\/main.ts does/],
    ['a folder without a meaning', 'jobs/utils/text.ts', 'export const a = 1;', /'utils' says nothing/],
    ['a barrel', 'jobs/index.ts', "export * from './job.ts';\nexport { a } from './errors.ts';\n", /a barrel/],
    ['a folder that nobody decided on', 'billing/pay.ts', 'export const a = 1;', /in no part/],
    ['an import of a script', 'app.ts', "import '../scripts/test.ts';", /outside of src/],
  ];
  for (const [name, file, text, expected] of BAD) {
    test(name, () => {
      const [first, ...others] = brokenRules(new Map([[file, text]]));
      assert.match(first ?? 'nothing', expected);
      assert.deepEqual(others, []);
    });
  }

  test('a cycle', () => {
    const rules = brokenRules(
      new Map([
        ['jobs/a.ts', "import './b.ts';"],
        ['jobs/b.ts', "import type { A } from './a.ts';"],
      ]),
    );
    assert.deepEqual(rules, ['an import cycle: src/jobs/a.ts -> src/jobs/b.ts -> src/jobs/a.ts']);
  });

  test('comments are not imports', () => {
    assert.deepEqual(brokenRules(new Map([['rest/bridge.ts', "// as in import '../jobs/job.ts';\nexport const a = 1;"]])), []);
  });
});

test('the lock file holds the packages of every platform, without which `npm ci` stops', () => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !(`${path}/node_modules/${name}` in packages) && !(`node_modules/${name}` in packages),
    ),
  );
  assert.deepEqual(missing, []);
});

test('the console and what browsers bundle know the contract and the client alone, and nothing of Node', () => {
  const web = globSync('web/src/**/*.{ts,tsx}', { cwd: ROOT });
  assert.ok(web.length > 20);
  for (const file of web) {
    for (const [, target] of readFileSync(join(ROOT, file), 'utf8').matchAll(/\bfrom\s+'([^']+)'/g)) {
      const path = posix.join(posix.dirname(file), target!);
      if (target!.startsWith('.')) assert.match(path, /^(web|gen|src\/client)\//, `${file} imports ${target}`);
      else assert.doesNotMatch(target!, /^node:/, file);
    }
  }
  const seen = new Set<string>();
  const visit = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const target of importsOf(file, readFileSync(join(ROOT, 'src', file), 'utf8'))) {
      if (target.endsWith('.ts')) visit(target);
      else assert.doesNotMatch(target, /^node:|^@connectrpc\/connect-node$|^standardwebhooks$/, `src/${file}, which browsers bundle`);
    }
  };
  visit('client/browser.ts');
  visit('client/tus.ts');
});
