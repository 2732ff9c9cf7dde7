import { after, before, describe, test } from 'node:test';
import { type Client, connectClient, grpcClient, restClient } from './api/clients.ts';
import { SCENARIOS } from './api/scenarios.ts';
import { startSecured } from './api/secured.ts';
import { type Service, startService } from './api/service.ts';

type Open = (baseUrl: string, credential?: string) => Client | Promise<Client>;

const PROTOCOLS: readonly [name: string, open: Open, settings?: Record<string, string>][] = [
  ['REST', restClient],
  ['Connect', (baseUrl, credential) => connectClient('connect', baseUrl, credential)],
  ['gRPC-Web', (baseUrl, credential) => connectClient('grpc-web', baseUrl, credential)],
  ['gRPC', grpcClient],
  ['gRPC, served by Connect', grpcClient, { GRPC: 'connect' }],
];

/** The same of a service for everybody, and of one that wants to know who calls: there with a key, which makes no other difference. */
const ACCESS: readonly [name: string, start: (settings?: Record<string, string>) => Promise<{ service: Service; credential?: string }>][] =
  [
    ['', async (settings) => ({ service: await startService(settings) })],
    [
      ', with a key',
      async (settings) => {
        const service = await startSecured(settings);
        await service.furnish('studio');
        return { service, credential: (await service.key({ tenant: 'studio', scopes: ['read', 'submit', 'admin'] })).secret };
      },
    ],
  ];

for (const [access, start] of ACCESS) {
  for (const [name, open, settings] of PROTOCOLS) {
    describe(`over ${name}${access}`, () => {
      let service: Service;
      let client: Client;
      before(async () => {
        const started = await start(settings);
        service = started.service;
        client = await open(service.baseUrl, started.credential);
      });
      after(async () => {
        client?.close();
        await service?.[Symbol.asyncDispose]();
      });
      for (const [scenario, run] of SCENARIOS)
        test(scenario, async () => await run({ client, baseUrl: service.baseUrl, dir: service.dir }));
    });
  }
}
