// biome-ignore-all lint/suspicious/noTemplateCurlyInString: it is code for another program
// The same request for other callers: what is shown can be run as it stands.
import { create, toJson } from '@bufbuild/protobuf';
import { type JobRequest, JobRequestSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { ROOT } from '../router.ts';
import { plain } from '../service/job-watch.ts';
import { key } from '../service/key.ts';
import type { RequestJson } from './draft.ts';

export type SnippetName = 'curl' | 'typescript' | 'python';

/** `wrong`: paths of fields that the service does not take as they are, such as `parameters.fps`. */
export function snippet(name: SnippetName, request: RequestJson): string {
  const server = ROOT.replace(/\/$/, '');
  const secret = key.value !== '';
  if (name === 'curl') return curl(server, secret, request);
  return name === 'typescript' ? typescript(server, secret, request) : python(server, secret, request);
}

export function curlOf(request: JobRequest): string {
  const { idempotency_key: _, ...json } = toJson(JobRequestSchema, create(JobRequestSchema, request), {
    useProtoFieldName: true,
  }) as Record<string, unknown>;
  return curl(ROOT.replace(/\/$/, ''), key.value !== '', json as unknown as RequestJson);
}

function curl(server: string, secret: boolean, { cache, webhook, ...rest }: RequestJson): string {
  // Enum values as REST writes them.
  const request = { ...rest, ...(cache === undefined ? {} : { cache: plain(cache) }), ...(webhook && { webhook: plain(webhook) }) };
  return [
    `curl ${server}/api/v1/jobs \\`,
    ...(secret ? ['  -H "authorization: Bearer $FFJOBS_TOKEN" \\'] : []),
    "  -H 'content-type: application/json' \\",
    // A quote in a shell's quotes ends them.
    `  -d '${JSON.stringify(request, null, 2).replaceAll("'", "'\\''")}'`,
  ].join('\n');
}

/** Durations are JSON's alone: elsewhere they are messages. */
const DURATIONS = ['run_timeout', 'start_timeout', 'retention'] as const;

function typescript(server: string, secret: boolean, { target_video, target_image, cache, webhook, ...rest }: RequestJson): string {
  const value = target_video ?? target_image;
  const target = { case: target_video === undefined ? 'targetImage' : 'targetVideo', value };
  const fields = [
    ...Object.entries(rest).map(([name, one]) => [
      camelCase(name),
      secondsIn(name, one, (seconds) => `{ seconds: ${seconds}n }`) ?? source(one),
    ]),
    ...(value === undefined ? [] : [['target', source(target)]]),
    ...(cache === undefined ? [] : [['cache', `CachePolicy.${String(cache).replace(/^CACHE_POLICY_/, '')}`]]),
    ...(webhook === undefined ? [] : [['webhook', webhookSource(webhook)]]),
  ] as const;
  const imported = ['connectJobs', ...(cache === undefined ? [] : ['CachePolicy']), ...(webhook?.statuses ? ['JobStatus'] : [])];
  return [
    `import { ${imported.sort((a, b) => a.localeCompare(b)).join(', ')} } from 'facefusion-jobs/client';`,
    '',
    `using client = connectJobs('${server}'${secret ? ', { token: process.env.FFJOBS_TOKEN }' : ''});`,
    'const job = await client.submitAndWait({',
    ...fields.map(([name, one]) => `  ${name}: ${indented(one!, '  ')},`),
    '});',
    'console.log(job.resultUrl);',
  ].join('\n');
}

function webhookSource({ url, statuses }: NonNullable<RequestJson['webhook']>): string {
  const chosen = statuses?.map((one) => `    JobStatus.${one.replace(/^JOB_STATUS_/, '')},\n`).join('');
  return `{\n  url: ${JSON.stringify(url)},\n${chosen ? `  statuses: [\n${chosen}  ],\n` : ''}}`;
}

function secondsIn(name: string, value: unknown, written: (seconds: number) => string): string | undefined {
  return (DURATIONS as readonly string[]).includes(name) ? written(Number.parseInt(String(value), 10)) : undefined;
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** JSON as TypeScript writes it: names without quotes, where they are names. */
function source(value: unknown): string {
  return JSON.stringify(value, null, 2).replaceAll(/^( *)"([A-Za-z_]\w*)":/gm, '$1$2:');
}

function python(server: string, secret: boolean, request: RequestJson): string {
  const fields = Object.entries(request).map(([name, value]) => [
    name,
    secondsIn(name, value, (seconds) => `{"seconds": ${seconds}}`) ?? literal(value, '        '),
  ]);
  return [
    ...(secret ? ['import os', ''] : []),
    'from facefusion_jobs import JobsClient',
    '',
    `with JobsClient(${JSON.stringify(server)}${secret ? ', token=os.environ["FFJOBS_TOKEN"]' : ''}) as client:`,
    '    job = client.submit_and_wait(',
    ...fields.map(([name, value]) => `        ${name}=${value},`),
    '    )',
    '    print(job.result_url)',
  ].join('\n');
}

/** JSON as Python writes it. */
function literal(value: unknown, indent: string): string {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  const deeper = `${indent}    `;
  if (Array.isArray(value))
    return value.length === 0 ? '[]' : `[\n${value.map((one) => `${deeper}${literal(one, deeper)},\n`).join('')}${indent}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value as object);
    return entries.length === 0
      ? '{}'
      : `{\n${entries.map(([name, one]) => `${deeper}${JSON.stringify(name)}: ${literal(one, deeper)},\n`).join('')}${indent}}`;
  }
  return JSON.stringify(value);
}

function indented(text: string, by: string): string {
  return text.replaceAll('\n', `\n${by}`);
}
