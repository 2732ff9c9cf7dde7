// What an engine can see of the service's environment: the service has credentials of stores and callers, and the code of an engine, which opens what strangers
// send, has none of them.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';

const ENGINE = `
import json, os
from facefusion_worker.engine import Capabilities, Processor, Result

class Telling:
    name = "telling"
    version = "1"

    def capabilities(self):
        return Capabilities(processors=[Processor("face_swapper", "tells")], image_formats=["png"], video_formats=["mp4"])

    def warm(self):
        return ()

    def run(self, job, report):
        with open("/proc/self/environ", "rb") as file:
            first = file.read().decode(errors="replace")
        with open(os.environ["HOME"] + "/seen.json", "w") as file:
            json.dump({"now": dict(os.environ), "first": first}, file)
        with open(job.output_path, "wb") as output:
            output.write(b"ok")
        return Result(media_type="image/png", width=1, height=1, frames=1)

    def cancel(self):
        pass
`;

/** Named so that whoever adds a variable to what is passed on has to think of them. */
const SECRETS: Readonly<Record<string, string>> = {
  AWS_ACCESS_KEY_ID: 'hush-aws-id',
  AWS_SECRET_ACCESS_KEY: 'hush-aws-secret',
  AWS_SESSION_TOKEN: 'hush-aws-session',
  AWS_WEB_IDENTITY_TOKEN_FILE: '/hush-aws-file',
  FFJOBS_STORE: 'redis://ann:hush-redis@redis:6379',
  FFJOBS_TOKEN: 'hush-token',
  FFJOBS_JWT_SECRET_FILE: '/hush-jwt',
  FFJOBS_TLS_KEY: '/hush-tls',
  FFJOBS_WEBHOOK_SECRETS_FILE: '/hush-webhooks',
  HF_TOKEN: 'hush-hf',
  GITHUB_TOKEN: 'hush-github',
  DATABASE_URL: 'postgres://hush',
  HTTPS_PROXY: 'http://hush:hush@proxy',
  OTEL_EXPORTER_OTLP_HEADERS: 'authorization=hush',
  SSH_AUTH_SOCK: '/hush-agent',
};

test('an engine sees named variables alone, and none of the service’s secrets', {
  skip: process.platform !== 'linux' && 'machine: no /proc',
}, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-telling-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'telling.py'), ENGINE);
  const env = { PATH: process.env.PATH, HOME: folder, LANG: 'C.UTF-8', ...SECRETS };
  await using service = await startService({ ENGINE: 'telling:Telling', ENGINE_PATH: folder, PROBE: 'off' }, { env });
  const client = restClient(service.baseUrl);
  const { job_id } = await client.submit({ source_images: ['face.jpg'], target_image: 'target.png' });
  await untilTerminal(client, job_id as string);
  const seen = JSON.parse(await readFile(join(folder, 'seen.json'), 'utf8')) as { now: Record<string, string>; first: string };
  assert.equal(seen.now.HOME, folder);
  for (const name of Object.keys(SECRETS)) assert.equal(seen.now[name], undefined, name);
  assert.doesNotMatch(JSON.stringify(seen), /hush/);
});
