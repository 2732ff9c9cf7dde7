// The page of the API by example: its blocks run in their order against the service with its plain engine, and no rpc of the contract is left out.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { getOption, hasOption } from '@bufbuild/protobuf';
import { AccessService } from '../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../gen/facefusion/jobs/v1/webhook_service_pb.js';
import { http } from '../gen/google/api/annotations_pb.js';
import { ROOT, startService } from './api/service.ts';
import { blocksOf } from './docs/blocks.ts';
import { missingPrograms, programs, STOPS_AT_OTHERS } from './docs/programs.ts';
import { freePort } from './fixtures/free-port.ts';
import { PORTRAITS } from './fixtures/media/portraits.ts';

const SERVICES = [AccessService, JobService, ProcessService, SystemService, UploadService, WebhookService];
/** Those that their caller ends. */
const ENDLESS = `${JobService.typeName}/WatchJobs`;
const PAGE = 'docs/13-api-by-example.md';

test('every rpc is shown on every way in, and every example works', {
  skip: missingPrograms.length > 0 && `machine: no ${missingPrograms.join(', ')} on the PATH`,
  timeout: 240_000,
}, async () => {
  const page = await readFile(join(ROOT, PAGE), 'utf8');
  const [open = '', keyed = ''] = page.split('## Who calls, and keys');
  await using folder = await exampleFolder();
  await using receiver = await goneReceiver(folder.path);
  const calls = [...(await run(open, folder.path, receiver.settings)), ...(await run(keyed, folder.path, { API_KEYS: 'on' }))];

  for (const { typeName, methods } of SERVICES) {
    for (const method of methods) {
      const endpoint = `${typeName}/${method.name}`;
      const ways = hasOption(method, http) && getOption(method, http).pattern.case !== undefined ? 2 : 1;
      const good = calls.filter((call) => call.endpoint === endpoint && (call.code === 'ok' || endpoint === ENDLESS));
      assert.ok(
        good.reduce((sum, { count }) => sum + count, 0) >= ways,
        `${endpoint} is to be shown on ${ways} ways: ${JSON.stringify(calls.filter((call) => call.endpoint === endpoint))}`,
      );
    }
  }
  const bad = calls.filter(({ code, endpoint }) => code !== 'ok' && endpoint !== ENDLESS);
  assert.deepEqual(
    bad,
    [{ endpoint: `${JobService.typeName}/Submit`, code: 'invalid_argument', count: 1 }],
    'the one call that is to be refused',
  );
  assert.deepEqual([...(await readFile(join(folder.path, 'swapped.jpg'))).subarray(0, 2)], [0xff, 0xd8]);
});

/** Runs the blocks of a part of the page, one after another in one shell, and answers which calls the service counted meanwhile. */
async function run(part: string, folder: string, settings: Readonly<Record<string, string>>): Promise<Calls[]> {
  const blocks = blocksOf(PAGE, part).flatMap(({ info, code }) => (info === 'test' ? [code] : []));
  assert.ok(blocks.length > 0);
  const port = await freePort();
  const open: Record<string, string> = settings.API_KEYS === undefined ? {} : { ALLOW_ANONYMOUS: 'yes', ANONYMOUS_SCOPES: 'admin' };
  await using service = await startService({ ENGINE: 'classical', METRICS_PORT: String(port), ...settings, ...open });
  await cp(PORTRAITS, join(service.inputDir, 'demo'), { recursive: true });
  const url = new URL(service.baseUrl);
  const path = await programs(await mkdtemp(join(folder, 'bin-')), { refusals: 'answered' });
  const env: NodeJS.ProcessEnv = { ...process.env, PATH: path, BASE: url.origin, HOST: url.host };
  if (settings.API_KEYS !== undefined) env.FFJOBS_TOKEN = await makeKey(url.origin);
  // What was run and said up to the failure is in the error.
  await promisify(execFile)('bash', ['-eux', '-c', `${STOPS_AT_OTHERS}${blocks.join('\n')}`], { cwd: folder, env, maxBuffer: 2 ** 26 });
  return callsOf(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text());
}

async function makeKey(baseUrl: string): Promise<string> {
  const body = JSON.stringify({ tenant: 'studio', scopes: ['read', 'submit', 'admin'] });
  const answer = await fetch(`${baseUrl}/api/v1/keys`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  return ((await answer.json()) as { secret: string }).secret;
}

/** Where the examples run: the samples, and what stands for programs of a reader. */
async function exampleFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'ffjobs-examples-'));
  await cp(PORTRAITS, join(path, 'samples'), { recursive: true });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

/** A receiver of webhooks that wants nothing any more, so that there are dead deliveries. */
async function goneReceiver(folder: string): Promise<AsyncDisposable & { readonly settings: Record<string, string> }> {
  const server = createHttpServer((_request, response) => void response.writeHead(410).end()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const secrets = join(folder, 'secrets');
  await writeFile(secrets, `whsec_${Buffer.alloc(32, 7).toString('base64')}\n`);
  return {
    settings: { WEBHOOK_URL: `http://${host}/`, WEBHOOK_ALLOW: host, WEBHOOK_SECRETS_FILE: secrets },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}

interface Calls {
  readonly endpoint: string;
  readonly code: string;
  readonly count: number;
}

function callsOf(metrics: string): Calls[] {
  return [...metrics.matchAll(/^api_requests_total\{method="[^"]*",endpoint="([^"]*)",code="([^"]*)"\} (\d+)$/gm)].map(
    ([, endpoint, code, count]) => ({ endpoint: endpoint!, code: code!, count: Number(count) }),
  );
}
