import { after, before, describe, test } from 'node:test';
import { type Client, connectClient, grpcClient, restClient } from './api/clients.ts';
import { SCENARIOS } from './api/scenarios.ts';
import { type Service, startService } from './api/service.ts';

const PROTOCOLS: readonly [name: string, open: (baseUrl: string) => Client | Promise<Client>, settings?: Record<string, string>][] = [
  ['REST', restClient],
  ['Connect', (baseUrl) => connectClient('connect', baseUrl)],
  ['gRPC-Web', (baseUrl) => connectClient('grpc-web', baseUrl)],
  ['gRPC', grpcClient],
  ['gRPC, served by Connect', grpcClient, { GRPC: 'connect' }],
];

for (const [name, open, settings] of PROTOCOLS) {
  describe(`over ${name}`, () => {
    let service: Service;
    let client: Client;
    before(async () => {
      service = await startService(settings);
      client = await open(service.baseUrl);
    });
    after(async () => {
      client?.close();
      await service?.[Symbol.asyncDispose]();
    });
    for (const [scenario, run] of SCENARIOS) test(scenario, async () => await run({ client, baseUrl: service.baseUrl, dir: service.dir }));
  });
}
