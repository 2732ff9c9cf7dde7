// What the pages name in passing, in words and tables, is there: settings, commands, paths of the API, files, reasons. What they show in blocks is run
// by snippets.test.ts.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { getOption, hasOption } from '@bufbuild/protobuf';
import { AccessService } from '../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../gen/facefusion/jobs/v1/webhook_service_pb.js';
import { http } from '../gen/google/api/annotations_pb.js';
import { OTHERS, SETTINGS } from '../src/config.ts';
import { ROOT } from './api/service.ts';
import { checkOptions, commandOf, everyHelp } from './cli/help.ts';

const SERVICES = [AccessService, JobService, ProcessService, SystemService, UploadService, WebhookService];
const PAGES = globSync(['*.md', 'docs/**/*.md', 'bench/*.md', 'clients/python/*.md', 'examples/*.md', 'worker/*.md'], { cwd: ROOT });

interface Span {
  readonly text: string;
  readonly where: string;
}

/** What stands between backquotes, but for blocks. */
function spansOf(page: string, text: string): Span[] {
  let within = false;
  return text.split('\n').flatMap((line, at) => {
    if (/^ *```/.test(line)) within = !within;
    const where = `${page}:${at + 1}`;
    return within ? [] : [...line.matchAll(/`([^`]+)`/g)].map(([, found]) => ({ text: found!, where: `${where}: ${found}` }));
  });
}

const spans = PAGES.flatMap((page) => spansOf(page, readFileSync(join(ROOT, page), 'utf8')));
/** Every match of the pattern, whole or its first group, and where it stands. */
const found = (pattern: RegExp) =>
  spans.flatMap(({ text, where }) => [...text.matchAll(pattern)].map((one) => ({ name: one[1] ?? one[0], where })));

test('spans are found between blocks', () => {
  assert.deepEqual(
    spansOf('p.md', 'a `b` and `c d`\n```sh\n`no`\n```\n| `e` |').map(({ where }) => where),
    ['p.md:1: b', 'p.md:1: c d', 'p.md:5: e'],
  );
});

test('settings', () => {
  const known = new Set([...Object.keys(SETTINGS).map((name) => `FFJOBS_${name}`), ...OTHERS]);
  const named = found(/\bFFJOBS_[A-Z\d_]*[A-Z\d]\b/g);
  assert.ok(named.length > 100, `${named.length}`);
  for (const { name, where } of named) assert.ok(known.has(name), where);
});

test('commands and their options', async () => {
  const helps = await everyHelp();
  const named = found(/\bffjobs ([a-z-].*)$/g);
  assert.ok(named.length > 25, `${named.length}`);
  for (const { name, where } of named) {
    const words = name.split(/[\s,()|]+/).filter(Boolean);
    const command = commandOf(helps, words);
    assert.ok(command !== '' || words[0]!.startsWith('-'), where);
    checkOptions(helps, command, words, where);
  }
});

test('scripts of npm', () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  const named = found(/\bnpm run ([\w:]+)/g);
  assert.ok(named.length > 10, `${named.length}`);
  for (const { name, where } of named) assert.ok(name in scripts, where);
});

/** Ways in that are no rpc. */
const OTHER_WAYS = [
  'GET /api/v1/openapi.json',
  'POST /api/v1/uploads',
  'GET /api/v1/uploads/{id}',
  'POST /api/v1/tus',
  ...['HEAD', 'PATCH', 'DELETE'].map((verb) => `${verb} /api/v1/tus/{id}`),
];

test('the README lists every rpc', () => {
  const listed = readFileSync(join(ROOT, 'README.md'), 'utf8').matchAll(/^\| `(\w+Service)` \| (.*) \|$/gm);
  const methodsOf = ({ name, methods }: (typeof SERVICES)[number]) => [name, methods.map((one) => one.name).sort()];
  assert.deepEqual(
    Object.fromEntries([...listed].map(([, name, methods]) => [name, [...methods!.matchAll(/`(\w+)`/g)].map(([, one]) => one).sort()])),
    Object.fromEntries(SERVICES.map(methodsOf)),
  );
});

test('paths of the API, and what is done with them', () => {
  const rules = SERVICES.flatMap(({ methods }) =>
    methods.flatMap((method) => (hasOption(method, http) ? [getOption(method, http).pattern] : [])),
  );
  const ways = [...rules.map((rule) => `${rule.case?.toUpperCase()} ${rule.value}`), ...OTHER_WAYS].map((way) => {
    const [verb, path] = way.split(' ');
    return { verb, path: new RegExp(`^${path!.replaceAll(/\{\w+\}/g, '[^/:]+')}$`) };
  });
  assert.ok(ways.length > 30, `${ways.length}`);
  const named = found(/((?:[A-Z]+ )?\/api\/v1\/[^\s?]+)/g);
  assert.ok(named.length > 60, `${named.length}`);
  for (const { name, where } of named) {
    const [path, verb] = name.split(' ').reverse();
    assert.ok(
      ways.some((way) => way.path.test(path!) && (verb === undefined || way.verb === verb)),
      where,
    );
  }
});

test('files', () => {
  const named = found(/(?<![\w./$~<-])(?:src|test|worker|scripts|deploy|web|proto|gen|docs|bench|clients|examples|samples)\/[\w./*{},-]+/g);
  assert.ok(named.length > 80, `${named.length}`);
  for (const { name, where } of named)
    assert.ok(globSync(name, { cwd: ROOT }).length > 0, `${where}: there is no such file (for any name write *)`);
});

test('reasons, statuses and whatever else is written in capitals', () => {
  const sources = globSync(['{src,scripts,bench,web/src}/**/*.{ts,tsx,lua}', 'proto/**/*.proto', '{worker,clients}/**/*.py'], { cwd: ROOT })
    .map((path) => readFileSync(join(ROOT, path), 'utf8'))
    .join('\n');
  const words = new Set(sources.match(/[A-Z][A-Z\d_]+/g));
  const named = found(/(?<![\w$])[A-Z][A-Z\d]+(?:_[A-Z\d]+)+\b/g);
  assert.ok(named.length > 100, `${named.length}`);
  for (const { name, where } of named) if (!name.startsWith('FFJOBS_')) assert.ok(words.has(name), where);
});
