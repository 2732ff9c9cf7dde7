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
  const { idempotency_key: _, ...json } = plain(
    toJson(JobRequestSchema, create(JobRequestSchema, request), { useProtoFieldName: true }),
  ) as Record<string, unknown>;
  return curl(ROOT.replace(/\/$/, ''), key.value !== '', json as unknown as RequestJson);
}

function curl(server: string, secret: boolean, request: RequestJson): string {
  return [
    `curl ${server}/api/v1/jobs \\`,
    ...(secret ? ['  -H "authorization: Bearer $FFJOBS_KEY" \\'] : []),
    "  -H 'content-type: application/json' \\",
    // A quote in a shell's quotes ends them.
    `  -d '${JSON.stringify(request, null, 2).replaceAll("'", "'\\''")}'`,
  ].join('\n');
}

function typescript(server: string, secret: boolean, request: RequestJson): string {
  return [
    `const server = '${server}';`,
    'const answer = await fetch(`${server}/api/v1/jobs`, {',
    "  method: 'POST',",
    secret
      ? "  headers: { 'content-type': 'application/json', authorization: `Bearer ${process.env.FFJOBS_KEY}` },"
      : "  headers: { 'content-type': 'application/json' },",
    `  body: JSON.stringify(${indented(JSON.stringify(request, null, 2), '  ')}),`,
    '});',
    'const job = await answer.json();',
    'if (!answer.ok) throw new Error(job.message);',
    'console.log(`${server}/api/v1/jobs/${job.job_id}`);',
  ].join('\n');
}

function python(server: string, secret: boolean, request: RequestJson): string {
  return [
    'import json',
    ...(secret ? ['import os'] : []),
    'from urllib.request import Request, urlopen',
    '',
    `server = ${JSON.stringify(server)}`,
    `job = ${literal(request, '')}`,
    'headers = {"content-type": "application/json"}',
    ...(secret ? ['headers["authorization"] = "Bearer " + os.environ["FFJOBS_KEY"]'] : []),
    'request = Request(f"{server}/api/v1/jobs", json.dumps(job).encode(), headers)',
    'with urlopen(request) as answer:',
    '    print(f\'{server}/api/v1/jobs/{json.load(answer)["job_id"]}\')',
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
