// Stands for grpcurl where that is not installed, with the flags that the documentation uses: calls go over gRPC to the service, messages are read and
// printed as the contract's JSON. grpcurl asks the service's reflection for descriptors; here they come from `gen/` (reflection.test.ts has the other way).
import { text } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import {
  create,
  createRegistry,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromJson,
  type JsonValue,
  type Message,
  toJson,
} from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { file_facefusion_jobs_v1_access_service } from '../../gen/facefusion/jobs/v1/access_service_pb.js';
import { file_facefusion_jobs_v1_job_service } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { file_facefusion_jobs_v1_process_service } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import { file_facefusion_jobs_v1_system_service } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { file_facefusion_jobs_v1_upload_service } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { file_facefusion_jobs_v1_webhook_service } from '../../gen/facefusion/jobs/v1/webhook_service_pb.js';

const CONTRACT = createRegistry(
  file_facefusion_jobs_v1_access_service,
  file_facefusion_jobs_v1_job_service,
  file_facefusion_jobs_v1_process_service,
  file_facefusion_jobs_v1_system_service,
  file_facefusion_jobs_v1_upload_service,
  file_facefusion_jobs_v1_webhook_service,
);

// grpcurl's flags have one dash, as Go's do.
const args = process.argv.slice(2).map((arg) => arg.replace(/^-(plaintext|max-time)$/, '--$1'));
const { values, positionals } = parseArgs({
  args,
  allowPositionals: true,
  options: {
    plaintext: { type: 'boolean' },
    'max-time': { type: 'string' },
    d: { type: 'string', short: 'd' },
    H: { type: 'string', short: 'H', multiple: true },
  },
});
const [address, symbol] = positionals;
const [serviceName, methodName] = symbol!.split('/');
const method = CONTRACT.getService(serviceName!)?.methods.find(({ name }) => name === methodName);
if (!method) throw new Error(`the contract has no ${symbol}`);

const given = values.d === '@' ? await text(process.stdin) : (values.d ?? '');
// One message a line, or one message in all.
const lines = method.methodKind === 'client_streaming' ? given.trim().split('\n') : given === '' ? [] : [given];
const messages = lines.map((line) => fromJson(method.input, JSON.parse(line) as JsonValue));

process.stdout.on('error', () => process.exit(0));
process.exitCode = await call(method, messages).then(
  () => 0,
  (error: unknown) => {
    const { code, message } = ConnectError.from(error);
    process.stderr.write(`ERROR:\n  Code: ${Code[code]}\n  Message: ${message}\n`);
    return 64 + code;
  },
);

async function call(desc: DescMethod, input: readonly Message[]): Promise<void> {
  const transport = createGrpcTransport({ baseUrl: `http://${address}` });
  const headers = (values.H ?? []).map((header) => header.split(/: */, 2) as [string, string]);
  const timeoutMs = values['max-time'] === undefined ? undefined : Number(values['max-time']) * 1000;
  const show = (message: Message) =>
    process.stdout.write(`${JSON.stringify(toJson(desc.output, message, { registry: CONTRACT }), undefined, 2)}\n`);
  if (desc.methodKind === 'unary') {
    const unary = desc as DescMethodUnary;
    show((await transport.unary(unary, undefined, timeoutMs, headers, input[0] ?? create(desc.input))).message);
    return;
  }
  async function* all() {
    yield* input;
  }
  const { message } = await transport.stream(desc as DescMethodStreaming, undefined, timeoutMs, headers, all());
  for await (const one of message) show(one);
}
