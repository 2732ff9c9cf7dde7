// Which names the service answers to. Where everybody on the machine may call, a web page whose name was made to lead here must not.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { connect } from 'node:http2';
import { describe, test } from 'node:test';
import { readConfig } from '../src/config.ts';
import { ROOT, startService } from './api/service.ts';

const answer = (baseUrl: string, host: string, path = '/api/v1/jobs') =>
  new Promise<{ status: number; body: string }>((resolve, reject) => {
    const call = request(new URL(path, baseUrl), { headers: { host } }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve({ status: response.statusCode!, body }));
    });
    call.on('error', reject).end();
  });

const overHttp2 = (baseUrl: string, authority: string) =>
  new Promise<number>((resolve, reject) => {
    const session = connect(baseUrl).on('error', reject);
    const stream = session.request({ ':path': '/api/v1/jobs', ':authority': authority });
    stream.on('response', (headers) => resolve(headers[':status']!)).on('close', () => session.close());
    stream.resume().end();
  });

describe('a service that asks nobody who he is', () => {
  test('answers to the names of this machine and its public one, and to no other', async () => {
    await using service = await startService({ PUBLIC_URL: 'https://swap.example.com' });
    const { port } = new URL(service.app.address);
    for (const host of ['localhost', `127.0.0.1:${port}`, `[::1]:${port}`, 'LocalHost:1', 'swap.example.com', 'swap.example.com:443']) {
      assert.equal((await answer(service.app.address, host)).status, 200, host);
      assert.equal(await overHttp2(service.app.address, host), 200, host);
    }
    for (const host of ['evil.example', `evil.example:${port}`, 'localhost.evil.example', '192.168.1.7', 'swap.example.com.evil.example']) {
      for (const path of ['/api/v1/jobs', '/', '/facefusion.jobs.v1.JobService/List', '/readyz']) {
        const { status, body } = await answer(service.app.address, host, path);
        assert.equal(status, 421, `${host} ${path}`);
        assert.match(body, /FFJOBS_PUBLIC_URL/);
      }
      assert.equal(await overHttp2(service.app.address, host), 421, host);
    }
  });
});

test('any name will do where callers say who they are, or an operator let everybody in', () => {
  const names = (settings: Record<string, string>) => readConfig({ FFJOBS_ENGINE: 'classical', ...settings }, ROOT).hostNames;
  assert.ok(names({})?.includes('localhost'));
  assert.equal(names({ FFJOBS_API_KEYS: 'on' }), undefined);
  assert.equal(names({ FFJOBS_ALLOW_ANONYMOUS: 'yes' }), undefined);
  assert.equal(names({ FFJOBS_ALLOW_ANONYMOUS: 'yes', FFJOBS_HOST: '0.0.0.0' }), undefined);
  assert.deepEqual(names({ FFJOBS_HOST: '127.0.0.7' })?.at(-1), '127.0.0.7');
});
