// Every command and snippet of README and docs does what it says. Each page is a reader: its blocks of shell run in their order in one shell, those in
// TypeScript and Python as the files that they would be saved to, all against the real service with its plain engine. Nothing of a block is changed but
// the addresses; `npm start` says whether a service would start with the settings before it. What cannot run says so in the page (docs/blocks.ts).
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CreateBucketCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { Webhook } from 'standardwebhooks';
import { OTHERS, SETTINGS } from '../src/config.ts';
import { Certificates } from './access/certificates.ts';
import { python, ROOT, type Service, startService } from './api/service.ts';
import { type Block, blocksOf, documentationBlocks, placeOf } from './docs/blocks.ts';
import { checkData } from './docs/data.ts';
import { missingPrograms, programs, STOPS_AT_OTHERS } from './docs/programs.ts';
import { FACE, makeClip, PORTRAITS } from './fixtures/media/portraits.ts';
import { startS3 } from './fixtures/media/s3-server.ts';

const run = promisify(execFile);
/** Of the pages. */
const BUCKET = 'my-bucket';
const LIMITS = { timeout: 240_000, maxBuffer: 2 ** 26 };
const skip = missingPrograms.length > 0 && `machine: no ${missingPrograms.join(', ')} on the PATH`;

/** Pictures, not commands. */
const DRAWN = new Set(['mermaid', 'text']);
const SHELL = 'sh';
const SCRIPTS: Readonly<Record<string, string>> = { ts: 'mts', js: 'mjs', python: 'py' };
const DATA = new Set(['json', 'yaml']);
/** Blocks that are run, and their calls counted, by a suite of their own. */
const OWN_SUITES: Readonly<Record<string, string>> = { 'docs/13-api-by-example.md': 'sh test' };

const blocks = documentationBlocks(ROOT);
/** In the translation, what the page in English has word for word, but for comments. */
const bare = ({ code }: Block) => code.replaceAll(/\s+# .*$/gm, '').trim();
const translated = (block: Block) =>
  block.page === 'README.zh-CN.md' &&
  blocks.some((one) => one.page === 'README.md' && !one.notRun === !block.notRun && bare(one) === bare(block));
const elsewhere = ({ page, language, info }: Block) => OWN_SUITES[page] === `${language} ${info}`.trim();
const here = blocks.filter((block) => !block.notRun && !DRAWN.has(block.language) && !elsewhere(block) && !translated(block));

test('each block is run, or says in the page why it is not', () => {
  assert.ok(blocks.length > 60);
  for (const block of blocks) {
    const known = block.notRun !== undefined || [...DRAWN, ...DATA, SHELL, ...Object.keys(SCRIPTS)].includes(block.language);
    assert.ok(
      known,
      `${placeOf(block)}: nothing here runs '${block.language}': give it a language that does, or '<!-- not run: REASON -->'`,
    );
  }
  for (const page of Object.keys(OWN_SUITES))
    assert.ok(
      blocks.some((block) => block.page === page && elsewhere(block)),
      page,
    );
});

test('what is not run names what there is all the same', async () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  const settings = new Set([...Object.keys(SETTINGS).map((name) => `FFJOBS_${name}`), ...OTHERS]);
  for (const block of blocks) {
    for (const [path] of (block.notRun ?? '').matchAll(/test\/\S+\.ts/g))
      assert.ok(existsSync(join(ROOT, path)), `${placeOf(block)}: ${path}`);
    for (const [name] of block.code.matchAll(/\bFFJOBS_[A-Z\d_]*[A-Z\d]\b/g)) assert.ok(settings.has(name), `${placeOf(block)}: ${name}`);
    if (block.language !== SHELL) continue;
    for (const [, name] of block.code.matchAll(/\bnpm run ([\w:]+)/g)) assert.ok(name! in scripts, `${placeOf(block)}: npm run ${name}`);
    for (const [path] of block.code.matchAll(/(?<![\w./-])\.?\/?(?:deploy|worker|clients|samples)\/[\w./*-]+/g))
      assert.ok(globSync(path, { cwd: ROOT }).length > 0, `${placeOf(block)}: ${path}`);
    // A synopsis is no command.
    if (!/\[-|\w \| \w/.test(block.code)) await run('bash', ['-n', '-c', block.code], LIMITS);
  }
});

test('what is run has no list in which a failure goes unseen', () => {
  for (const block of here)
    if (block.language === SHELL) assert.doesNotMatch(block.code, /&&|\|\|/, `${placeOf(block)}: a line for each command`);
});

test('a block without a word for it is found', () => {
  const [first, second] = blocksOf('page.md', '1. so\n\n   ```sh\n   a |\n     b\n   ```\n\n<!-- not run: needs a GPU -->\n```go\n```\n');
  assert.deepEqual(first, { page: 'page.md', line: 3, language: 'sh', info: '', code: 'a |\n  b\n', notRun: undefined });
  assert.equal(second?.notRun, 'needs a GPU');
  assert.throws(() => blocksOf('page.md', '<!-- not run: needs a GPU -->\nwords\n```sh\n```\n'), /without a block/);
  assert.throws(() => blocksOf('page.md', '```sh\n'), /no end/);
  assert.throws(() => blocksOf('page.md', '- so\n\n    a paragraph\n\nso:\n\n    curl\n'), /page\.md:7: a block without a fence/);
});

test('JSON and YAML are what they show', () => {
  for (const block of here) {
    if (!DATA.has(block.language)) continue;
    try {
      checkData(block.language, block.code);
    } catch (error) {
      throw new Error(`${placeOf(block)}: ${(error as Error).message}`, { cause: error });
    }
  }
});

describe('run', { skip, timeout: 280_000 }, () => {
  let reader: Reader;
  before(async () => {
    reader = await startReader();
  });
  after(() => reader[Symbol.asyncDispose]());

  const runnable = here.filter(({ language }) => !DATA.has(language));
  describe('each page', { concurrency: 2 }, () => {
    for (const page of new Set(runnable.map((block) => block.page))) {
      const own = runnable.filter((block) => block.page === page);
      test(`${page}: ${own.length} blocks`, async () => {
        const folder = await reader.folderFor(page);
        const shell = own.filter(({ language }) => language === SHELL);
        if (shell.length > 0) await reader.shell(folder, shell);
        for (const block of own.filter(({ language }) => language in SCRIPTS)) await reader.script(folder, block);
      });
    }
  });

  test('all that is TypeScript is of the types of the package', async () => {
    const written = globSync('*/*.mts', { cwd: reader.scripts });
    assert.equal(written.length, runnable.filter(({ language }) => language === 'ts').length);
    const options = { noUnusedLocals: false, noUnusedParameters: false };
    await writeFile(
      join(reader.scripts, 'tsconfig.json'),
      JSON.stringify({ extends: join(ROOT, 'tsconfig.json'), compilerOptions: options, include: ['*/*.mts'] }),
    );
    await execute('tsc', join(ROOT, 'node_modules', '.bin', 'tsc'), ['-p', reader.scripts], {
      cwd: ROOT,
    });
  });

  test('each way in has brought media to a job that succeeded, and the ways out have given results', async () => {
    const schemes = new Set<string>();
    const wanted = ['file', 'http', 's3', 'upload', 'job'];
    const jobs = new URL('/api/v1/jobs?page_size=500&status=succeeded', reader.service.baseUrl);
    // What the pages do not wait for still runs.
    for (const until = performance.now() + 120_000; performance.now() < until && schemes.size < wanted.length; await sleep(200)) {
      const page = (await (await fetch(jobs)).json()) as { jobs: { request: Record<string, string | string[] | null> }[] };
      for (const { request } of page.jobs) {
        const { source_images: sources, target_image: image, target_video: video } = request;
        for (const reference of [sources, image, video].flat()) {
          if (reference) schemes.add(/^(\w+):\/\//.exec(reference)?.[1]?.replace('https', 'http') ?? 'file');
        }
      }
    }
    assert.deepEqual([...schemes].sort(), wanted.sort());
    while (!(await reader.copies()).some((key) => key.startsWith('swapped/job_'))) await sleep(200);
  });

  test('each of the three ways to upload has sent the picture', async () => {
    const uris = [...new Set(reader.said.get('docs/04-media-in.md')!.match(/upload:\/\/[\w-]+/g))];
    const sent = new Set<string>();
    for (const uri of uris) {
      const facts = await fetch(new URL(`/api/v1/uploads/${uri.slice('upload://'.length)}`, reader.service.baseUrl));
      sent.add(`${((await facts.json()) as { sha256: string }).sha256} ${uri}`);
    }
    const digest = createHash('sha256').update(readFileSync(FACE)).digest('hex');
    assert.equal([...sent].filter((line) => line.startsWith(digest)).length, 3, [...sent].join('\n'));
  });
});

interface Reader extends AsyncDisposable {
  readonly service: Service;
  /** Keys of what lies in the bucket that the pages name. */
  copies(): Promise<string[]>;
  /** Below the repository, so that packages are found. */
  readonly scripts: string;
  /** Standard output, by page. */
  readonly said: Map<string, string>;
  folderFor(page: string): Promise<string>;
  shell(folder: string, own: readonly Block[]): Promise<void>;
  script(folder: string, block: Block): Promise<void>;
}

/** A service, and what the pages take for granted: the media of the demo, files of one's own, the key of an administrator, a job that has ended. */
async function startReader(): Promise<Reader> {
  await using opened = new AsyncDisposableStack();
  await mkdir(join(ROOT, '.cache'), { recursive: true });
  const scripts = opened.adopt(await mkdtemp(join(ROOT, '.cache', 'snippets-')), (path) => rm(path, { recursive: true, force: true }));
  const own = join(scripts, 'own');
  await mkdir(own);
  await makeClip(own, 0.2);
  for (const name of ['interview.mp4', 'cut.mp4']) await cp(join(own, 'clip.mp4'), join(own, name));
  for (const name of ['face.jpg', 'eileen_collins.jpg']) await cp(FACE, join(own, name));
  await writeFile(join(own, 'monday.jsonl'), '{"source_images": ["face.jpg"], "target_video": "clip.mp4"}\n');
  await writeFile(
    join(own, 'tenants.json'),
    '{"tenants": {"anonymous": {"input_buckets": ["my-bucket"], "output_buckets": ["my-bucket"]}}}',
  );
  const certificates = opened.use(new Certificates());
  certificates.addAuthority('ca');
  certificates.sign('server', 'ca', { subject: '/CN=jobs.example.com' });
  await cp(certificates.path('server.pem'), join(own, 'cert.pem'));
  await cp(certificates.path('server.key'), join(own, 'key.pem'));

  const cdn = opened.use(await startFileServer(own));
  const s3 = opened.use(await startS3('moto'));
  await s3.client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  await s3.client.send(new PutObjectCommand({ Bucket: BUCKET, Key: 'videos/interview.mp4', Body: await readFile(join(own, 'clip.mp4')) }));
  const { accessKeyId, secretAccessKey } = s3.connection.credentials!;
  const settings = {
    ENGINE: 'classical',
    SLOTS: '2',
    // Nobody waits for what the examples leave running.
    DRAIN_TIMEOUT: '1s',
    API_KEYS: 'on',
    ALLOW_ANONYMOUS: 'yes',
    ANONYMOUS_SCOPES: 'read,submit,admin',
    HTTP_ALLOW: cdn.host,
    HTTP_PORTS: cdn.host.split(':')[1]!,
    TENANTS: join(own, 'tenants.json'),
    S3_ENDPOINT: s3.connection.endpoint!,
  };
  const service = opened.use(
    await startService(settings, { env: { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } }),
  );
  // With keys, each tenant has an input root of its own.
  for (const tenant of ['anonymous', 'studio']) {
    const input = join(service.inputDir, tenant);
    await cp(own, input, { recursive: true });
    await cp(PORTRAITS, join(input, 'demo'), { recursive: true });
    await cp(join(own, 'clip.mp4'), join(input, 'demo', 'clip.mp4'));
  }
  const { host, origin } = new URL(service.baseUrl);
  const addresses: readonly (readonly [string, string])[] = [
    ['http://127.0.0.1:8000', origin],
    ['https://jobs.example.com:8000', origin],
    ['https://cdn.example.com', `http://${cdn.host}`],
    ['127.0.0.1:8000', host],
    ['localhost:8000', host],
  ];
  const addressed = (code: string) => addresses.reduce((text, [from, to]) => text.replaceAll(from, to), code);
  const post = async (path: string, body: object) => {
    const answer = await fetch(`${origin}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', prefer: 'wait=60' },
      body: JSON.stringify(body),
    });
    assert.ok(answer.ok, `${path}: ${await answer.clone().text()}`);
    return (await answer.json()) as Record<string, string>;
  };
  const token = (await post('/api/v1/keys', { tenant: 'studio', scopes: ['read', 'submit', 'admin'] })).secret;
  const { job_id: job } = await post('/api/v1/process/enhance', { target_image: 'demo/grace_hopper.jpg' });
  const shellEnv: NodeJS.ProcessEnv = {
    ...process.env,
    PATH: await programs(join(scripts, 'bin'), { refusals: 'failed' }),
    FFJOBS_SERVER: origin,
    FFJOBS_DATA_DIR: service.dir,
    FFJOBS_PYTHON: python(),
    FFJOBS_TOKEN: token,
    JOB: job,
  };
  const said = new Map<string, string>();
  const say = (page: string, text: string) => said.set(page, `${said.get(page) ?? ''}${text}`);
  const done = opened.move();
  return {
    service,
    copies: () => s3.keys(BUCKET),
    scripts,
    said,
    async folderFor(page) {
      const folder = join(scripts, page.replaceAll('/', '-'));
      await mkdir(folder);
      await cp(own, folder, { recursive: true });
      await cp(PORTRAITS, join(folder, 'samples'), { recursive: true });
      await symlink(join(ROOT, 'gen'), join(folder, 'gen'));
      return folder;
    },
    async shell(folder, own) {
      const [{ page }] = own as [Block];
      // What was run and said up to a failure is in the error.
      const lines = own.map((block) => `: ${placeOf(block)}\n${addressed(block.code)}`).join('\n');
      say(page, await execute(page, 'bash', ['-euxo', 'pipefail', '-c', `${STOPS_AT_OTHERS}${lines}`], { cwd: folder, env: shellEnv }));
    },
    async script(folder, block) {
      const file = join(folder, `line-${block.line}.${SCRIPTS[block.language]}`);
      await writeFile(file, `${preludeOf(block)}${addressed(block.code).replaceAll('whsec_...', SECRET)}`);
      const program = block.language === 'python' ? python() : process.execPath;
      const env = { ...process.env, PYTHONPATH: join(ROOT, 'clients', 'python', 'src'), PYTHONDONTWRITEBYTECODE: '1' };
      say(block.page, await execute(placeOf(block), program, [file], { cwd: folder, env }));
    },
    [Symbol.asyncDispose]: () => done.disposeAsync(),
  };
}

const SECRET = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;

/** A receiver's side of page 12 begins where its web framework has handed it a request: this one is signed. */
function preludeOf({ page, language }: Block): string {
  if (page !== 'docs/12-webhooks.md') return '';
  const body = JSON.stringify({ type: 'job.succeeded', timestamp: new Date().toISOString(), data: { job_id: 'job_1' } });
  const now = new Date();
  const headers = {
    'webhook-id': 'one',
    'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
    'webhook-signature': new Webhook(SECRET).sign('one', now, body),
  };
  return language === 'python'
    ? `from types import SimpleNamespace\nbody, request = ${JSON.stringify(body)}, SimpleNamespace(headers=${JSON.stringify(headers)})\n`
    : `const body: string = ${JSON.stringify(body)};\nconst request = { headers: ${JSON.stringify(headers)} };\n`;
}

interface FileServer extends AsyncDisposable {
  readonly host: string;
}

/** Stands for the other sites that the pages fetch from. */
async function startFileServer(folder: string): Promise<FileServer> {
  const server = createServer(async (request, response) => {
    const path = join(folder, basename(new URL(request.url!, 'http://any').pathname));
    if (!existsSync(path)) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-type': 'video/mp4' }).end(await readFile(path));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Standard output of a program. Throws with all that it said where it does not end with 0. */
async function execute(
  what: string,
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv },
): Promise<string> {
  try {
    return (await run(program, args, { ...LIMITS, ...options })).stdout;
  } catch (error) {
    // Not kept as its cause: it says all of this again.
    const { stdout, stderr, code } = error as { stdout: string; stderr: string; code: unknown };
    throw new Error(`${what} ended with ${String(code)}\n${stderr}\n${stdout}`);
  }
}
