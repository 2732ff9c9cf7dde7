// The service with client certificates, end to end: whoever holds one that is listed is its tenant over every protocol, and no other certificate, nor
// none, opens anything. The certificates are real and so are the connections.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { create, type DescMethod, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import grpc from '@grpc/grpc-js';
import { AccessService, type GetIdentityResponse } from '../gen/facefusion/jobs/v1/access_service_pb.js';
import { type GetResponse, JobService, type SubmitResponse } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { Certificates } from './access/certificates.ts';
import { CallError } from './api/clients.ts';
import { type Service, startService } from './api/service.ts';

const JOB = { source_images: ['face.jpg'], target_image: 'target.png' };

/** What is asked of the service over each protocol, on one connection with one certificate. */
interface Caller {
  tenant(): Promise<string>;
  /** The new job's id. */
  submit(): Promise<string>;
  get(jobId: string): Promise<string>;
  close(): void;
}

interface Connection {
  readonly baseUrl: string;
  /** `ca`, and the certificate where there is one. */
  readonly tls: { readonly ca: Buffer; readonly key?: Buffer; readonly cert?: Buffer };
}

/** REST over HTTP/1.1 or HTTP/2, with nothing but Node. */
function rest(send: (method: string, path: string, body?: object) => Promise<{ status: number; text: string }>, close: () => void): Caller {
  const call = async (method: string, path: string, body?: object) => {
    const answer = await send(method, path, body);
    const json = JSON.parse(answer.text) as Record<string, unknown>;
    if (answer.status < 300) return json;
    const details = (json.details ?? []) as { reason?: string }[];
    const reason = details.find((one) => one.reason !== undefined)?.reason;
    throw new CallError(String(json.message), { code: String(json.code), reason, violations: [], retryAfterSeconds: undefined });
  };
  return {
    tenant: async () => String((await call('GET', '/api/v1/identity')).tenant),
    submit: async () => String((await call('POST', '/api/v1/jobs', JOB)).job_id),
    get: async (jobId) => String((await call('GET', `/api/v1/jobs/${jobId}`)).job_id),
    close,
  };
}

function restOverHttp1({ baseUrl, tls }: Connection): Caller {
  const agent = new https.Agent({ ...tls, keepAlive: true });
  return rest(
    async (method, path, body) => {
      const request = https.request(new URL(path, baseUrl), { method, agent, headers: { 'content-type': 'application/json' } });
      request.end(body && JSON.stringify(body));
      const [response] = (await once(request, 'response')) as [import('node:http').IncomingMessage];
      return { status: response.statusCode!, text: await text(response) };
    },
    () => agent.destroy(),
  );
}

function restOverHttp2({ baseUrl, tls }: Connection): Caller {
  const session = http2.connect(baseUrl, tls);
  session.on('error', () => {});
  return rest(
    async (method, path, body) => {
      const stream = session.request({ ':method': method, ':path': path, 'content-type': 'application/json' });
      stream.end(body && JSON.stringify(body));
      const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader];
      return { status: headers[':status']!, text: await text(stream) };
    },
    () => session.destroy(),
  );
}

function overConnect(transport: Transport): Caller {
  const jobs = createClient(JobService, transport);
  const access = createClient(AccessService, transport);
  const told = async <T>(answer: Promise<T>): Promise<T> => {
    try {
      return await answer;
    } catch (thrown) {
      const { code, rawMessage } = ConnectError.from(thrown);
      throw new CallError(rawMessage, { code: upper(Code[code]!), reason: undefined, violations: [], retryAfterSeconds: undefined });
    }
  };
  const job = { sourceImages: JOB.source_images, target: { case: 'targetImage', value: JOB.target_image } } as const;
  return {
    tenant: async () => (await told(access.getIdentity({}))).tenant,
    submit: async () => (await told(jobs.submit({ job }))).job!.jobId,
    get: async (jobId) => (await told(jobs.get({ jobId }))).job!.jobId,
    close() {},
  };
}

const upper = (name: string) => name.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

/** Google's own client, on the bytes of the messages. */
function overGrpcJs({ baseUrl, tls }: Connection): Caller {
  const credentials = grpc.credentials.createSsl(tls.ca, tls.key ?? null, tls.cert ?? null);
  const client = new grpc.Client(new URL(baseUrl).host, credentials);
  const call = <T extends Message>(method: DescMethod, request: Record<string, unknown>): Promise<T> =>
    new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (message: Message) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes) as unknown as T,
        create(method.input, request) as Message,
        (error, answer) => {
          if (!error) resolve(answer!);
          else
            reject(
              new CallError(error.details, {
                code: grpc.status[error.code]!,
                reason: undefined,
                violations: [],
                retryAfterSeconds: undefined,
              }),
            );
        },
      );
    });
  const job = { sourceImages: JOB.source_images, target: { case: 'targetImage', value: JOB.target_image } };
  return {
    tenant: async () => (await call<GetIdentityResponse>(AccessService.method.getIdentity, {})).tenant,
    submit: async () => (await call<SubmitResponse>(JobService.method.submit, { job })).job!.jobId,
    get: async (jobId) => (await call<GetResponse>(JobService.method.get, { jobId })).job!.jobId,
    close: () => client.close(),
  };
}

const WAYS: readonly [name: string, open: (connection: Connection) => Caller][] = [
  ['REST over HTTP/1.1', restOverHttp1],
  ['REST over HTTP/2', restOverHttp2],
  ['Connect over HTTP/1.1', ({ baseUrl, tls }) => overConnect(createConnectTransport({ baseUrl, httpVersion: '1.1', nodeOptions: tls }))],
  ['Connect over HTTP/2', ({ baseUrl, tls }) => overConnect(createConnectTransport({ baseUrl, httpVersion: '2', nodeOptions: tls }))],
  ['gRPC-Web', ({ baseUrl, tls }) => overConnect(createGrpcWebTransport({ baseUrl, httpVersion: '1.1', nodeOptions: tls }))],
  ['gRPC, by Connect', ({ baseUrl, tls }) => overConnect(createGrpcTransport({ baseUrl, nodeOptions: tls }))],
  ['gRPC, by grpc-js', overGrpcJs],
];

/** Certificates that open nothing, with what their holder is told. */
const REFUSED: readonly [what: string, certificate: string | undefined, says: RegExp][] = [
  ['no certificate', undefined, /API key|token|certificate/],
  ['one that is not listed', 'stranger', /CN=stranger stands for no tenant here/],
  ['one of another authority', 'forged', /the client certificate is not taken/],
  ['one that its holder signed', 'selfmade', /the client certificate is not taken/],
  ['one that has run out', 'expired', /the client certificate has expired/],
];

for (const served of ['own', 'connect'] as const) {
  describe(`client certificates, gRPC served by ${served}`, { timeout: 120_000 }, () => {
    const certificates = new Certificates();
    let service: Service;
    let baseUrl: string;
    const connection = (name: string | undefined): Connection => ({
      baseUrl,
      tls: { ca: certificates.read('ca.pem'), ...certificates.pair(name) },
    });

    before(async () => {
      for (const name of ['ca', 'other']) certificates.addAuthority(name);
      certificates.addAuthority('selfmade');
      certificates.sign('server', 'ca', { subject: '/CN=localhost' });
      certificates.sign('render', 'ca', { subject: '/O=Studio/CN=render-01' });
      certificates.sign('rival', 'ca', { subject: '/O=Rival/CN=render-01', names: 'URI:spiffe://rival.example/render' });
      certificates.sign('stranger', 'ca', { subject: '/CN=stranger' });
      certificates.sign('forged', 'other', { subject: '/O=Studio/CN=render-01' });
      certificates.sign('expired', 'ca', { subject: '/O=Studio/CN=render-01', seconds: -60 });
      const tenants = {
        certificates: [
          { subject: 'CN=render-01,O=Studio', tenant: 'studio', scopes: ['read', 'submit'] },
          { subject: 'URI:spiffe://rival.example/render', tenant: 'rival', scopes: ['read', 'submit'] },
        ],
      };
      writeFileSync(certificates.path('tenants.json'), JSON.stringify(tenants));
      service = await startService({
        TLS_CERT: certificates.path('server.pem'),
        TLS_KEY: certificates.path('server.key'),
        TLS_CLIENT_CA: certificates.path('ca.pem'),
        TENANTS: certificates.path('tenants.json'),
        API_KEYS: 'on',
        GRPC: served,
      });
      baseUrl = service.baseUrl;
      for (const tenant of ['studio', 'rival']) {
        mkdirSync(join(service.inputDir, tenant));
        for (const name of [...JOB.source_images, JOB.target_image])
          writeFileSync(
            join(service.inputDir, tenant, name),
            Buffer.from('89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de', 'hex'),
          );
      }
    });
    after(async () => {
      await service?.[Symbol.asyncDispose]();
      certificates[Symbol.dispose]();
    });

    for (const [way, open] of WAYS) {
      describe(`over ${way}`, () => {
        const using = async <T>(certificate: string | undefined, run: (caller: Caller) => Promise<T>): Promise<T> => {
          const caller = open(connection(certificate));
          try {
            return await run(caller);
          } finally {
            caller.close();
          }
        };

        test('one that is listed is its tenant, and sees no other’s jobs', async () => {
          const jobId = await using('render', async (caller) => {
            assert.equal(await caller.tenant(), 'studio');
            const id = await caller.submit();
            assert.equal(await caller.get(id), id);
            return id;
          });
          await using('rival', async (caller) => {
            assert.equal(await caller.tenant(), 'rival');
            await assert.rejects(caller.get(jobId), (error: CallError) => error.code === 'NOT_FOUND');
          });
          assert.equal(await using('render', (caller) => caller.get(jobId)), jobId, 'on a connection of its own, too');
        });

        for (const [what, certificate, says] of REFUSED) {
          test(`${what} opens nothing`, async () => {
            await using(certificate, async (caller) => {
              for (const call of [() => caller.tenant(), () => caller.submit(), () => caller.get('job_20250405_aaaaaaaaaaaa')]) {
                await assert.rejects(call(), (error: CallError) => {
                  assert.equal(error.code, 'UNAUTHENTICATED', error.message);
                  assert.match(error.message, says);
                  return true;
                });
              }
            });
          });
        }
      });
    }

    test('a TLS session that is taken up again is the same tenant', async () => {
      const options = { ...connection('render').tls, host: '127.0.0.1', port: Number(new URL(baseUrl).port), ALPNProtocols: ['http/1.1'] };
      const ask = 'GET /api/v1/identity HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n';
      const first = tls.connect(options);
      const sessions: Buffer[] = [];
      first.on('session', (session: Buffer) => sessions.push(session));
      first.write(ask);
      assert.match(await text(first), /"tenant":"studio"/);
      const again = tls.connect({ ...options, session: sessions.at(-1) });
      again.write(ask);
      const reused = once(again, 'secureConnect').then(() => again.isSessionReused());
      assert.match(await text(again), /"tenant":"studio"/);
      assert.equal(await reused, true);
    });

    test('a stream ends with the certificate that opened it', async () => {
      certificates.sign('brief', 'ca', { subject: '/O=Studio/CN=render-01', seconds: 4 });
      const { ca, key, cert } = connection('brief').tls;
      const jobs = createClient(JobService, createGrpcTransport({ baseUrl, nodeOptions: { ca, key, cert } }));
      let seen = 0;
      const watching = (async () => {
        for await (const _ of jobs.watchJobs({})) seen++;
      })();
      await assert.rejects(watching, (error: ConnectError) => {
        assert.equal(error.code, Code.Unauthenticated, error.message);
        return true;
      });
      // The same connection opens nothing more.
      await assert.rejects(jobs.list({}), (error: ConnectError) => error.code === Code.Unauthenticated);
      assert.ok(seen >= 0);
    });

    test('the OpenAPI document says so', async () => {
      const session = http2.connect(baseUrl, connection(undefined).tls);
      const stream = session.request({ ':path': '/api/v1/openapi.json' });
      const document = JSON.parse(await text(stream)) as {
        security: object[];
        components: { securitySchemes: Record<string, { type: string }> };
      };
      session.destroy();
      assert.deepEqual(document.security, [{ bearer: [] }, { apiKey: [] }, { mutualTLS: [] }]);
      assert.equal(document.components.securitySchemes.mutualTLS!.type, 'mutualTLS');
    });

    test('a certificate and a credential together: the credential says who calls, and a wrong one is refused', async () => {
      const agent = new https.Agent(connection('render').tls);
      const request = https.request(new URL('/api/v1/identity', baseUrl), { agent, headers: { 'x-api-key': 'ffj_wrong' } });
      request.end();
      const [response] = (await once(request, 'response')) as [import('node:http').IncomingMessage];
      assert.equal(response.statusCode, 401);
      agent.destroy();
    });
  });
}
