// Large files on their way in, by each way, beside a bare Node pipeline that streams and hashes the same bytes over the same protocol. The service's
// memory is read all the while: what counts is the most that it grew.
import { setInterval as every } from 'node:timers';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { UploadRequestSchema, UploadResponseSchema } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import type { Bench } from '../bench.ts';
import { interleaved, median, type Row, rowOf } from '../figures.ts';
import { type Body, bodyOf, PIECE_BYTES, sendHttp1, sendHttp2 } from '../load/bodies.ts';
import { startMediaPeer } from '../peers/start.ts';
import { cpuSeconds, residentBytes } from '../processes.ts';
import type { Service } from '../service.ts';

const MIB = 1 << 20;
const GROWTH_MIB = 64;
const TUS = '/api/v1/tus';
const VERSION = { 'tus-resumable': '1.0.0' };

interface Sample {
  readonly mibPerSecond: number;
  /** Of the server, for each GiB. */
  readonly cpuSeconds: number;
  readonly grownMib: number;
}

/** A way in: sends the body and answers the digest that the other end tells, and what to tidy away. */
type Way = () => Promise<{ readonly sha256: string; readonly id?: string }>;

export async function* uploaded(bench: Bench): AsyncIterable<Row> {
  const body = bodyOf(bench.pick(2048, 8));
  await using lent = await bench.service();
  const { service } = lent;
  await using peer = await startMediaPeer(bench.folder());

  const measure = async (server: { readonly pid: number }, way: Way): Promise<Sample> => {
    const before = { cpu: cpuSeconds(server.pid) ?? Number.NaN, resident: residentBytes(server.pid) ?? Number.NaN };
    let most = before.resident;
    const watch = every(() => {
      most = Math.max(most, residentBytes(server.pid) ?? 0);
    }, 20);
    const began = performance.now();
    const { sha256, id } = await way().finally(() => clearInterval(watch));
    const seconds = (performance.now() - began) / 1000;
    const cpu = (cpuSeconds(server.pid) ?? Number.NaN) - before.cpu;
    if (sha256 !== body.sha256) throw new Error(`another digest came back: ${sha256}`);
    if (id !== undefined) await fetch(`${service.base}${TUS}/${id}`, { method: 'DELETE', headers: VERSION });
    const mib = (body.pieces * PIECE_BYTES) / MIB;
    return { mibPerSecond: mib / seconds, cpuSeconds: (cpu * 1024) / mib, grownMib: (most - before.resident) / MIB };
  };
  const ways = {
    http1: () => measure(peer, async () => ({ sha256: (await sendHttp1(peer.port, POST, body)).text })),
    multipart: () => measure(service, () => byForm(service, body)),
    tus: () => measure(service, () => byTus(service, body)),
    http2: () => measure(peer, async () => ({ sha256: (await sendHttp2(peer.h2, { ':path': '/' }, body)).bytes.toString() })),
    grpc: () => measure(service, () => byGrpc(service, body)),
  };
  const warm = bodyOf(bench.pick(64, 1));
  for (const way of [byForm, byTus, byGrpc]) await way(service, warm);
  bench.say('each way in turns');
  const samples = await interleaved(bench.pick(3, 1), ways);
  const size = bench.quick ? '8 MiB' : '2 GiB';
  for (const [name, way, peerName, beside] of [
    [`${size} in by multipart`, samples.multipart, 'bare Node, HTTP/1.1', samples.http1],
    [`${size} in by tus, one PATCH`, samples.tus, 'bare Node, HTTP/1.1', samples.http1],
    [`${size} in by UploadService.Upload`, samples.grpc, 'bare Node, h2c', samples.http2],
  ] as const) {
    const of = (all: readonly Sample[], what: keyof Sample) => median(all.map((one) => one[what]));
    yield rowOf('media', {
      name,
      figure: of(way, 'mibPerSecond'),
      unit: 'MiB/s',
      peer: { name: peerName, figure: of(beside, 'mibPerSecond') },
      target: { kind: 'at least times peer', value: 0.8 },
      note: `CPU ${of(way, 'cpuSeconds').toFixed(2)} s a GiB, peer ${of(beside, 'cpuSeconds').toFixed(2)}`,
    });
    yield rowOf('media', {
      name: `${name}: growth of the service`,
      figure: Math.max(...way.map((one) => one.grownMib)),
      unit: 'MiB',
      target: { kind: 'at most', value: GROWTH_MIB },
      note: `peer ${Math.max(...beside.map((one) => one.grownMib)).toFixed(0)} MiB`,
    });
  }
}

const POST = { method: 'POST', path: '/', headers: {} };

async function byForm(service: Service, body: Body) {
  const head = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n';
  const request = { method: 'POST', path: '/api/v1/uploads', headers: { 'content-type': 'multipart/form-data; boundary=b' } };
  const answer = await sendHttp1(service.port, request, body, { before: head, after: '\r\n--b--\r\n' });
  const [upload] = (JSON.parse(answer.text) as { uploads: { sha256: string; uri: string }[] }).uploads;
  return { sha256: upload!.sha256, id: upload!.uri.slice('upload://'.length) };
}

async function byTus(service: Service, body: Body) {
  const created = await fetch(service.base + TUS, {
    method: 'POST',
    headers: { ...VERSION, 'upload-length': String(body.pieces * PIECE_BYTES) },
  });
  const path = created.headers.get('location')!;
  const headers = { ...VERSION, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
  const answer = await sendHttp1(service.port, { method: 'PATCH', path, headers }, body);
  return { sha256: String(answer.headers['upload-sha256']), id: path.split('/').at(-1)! };
}

async function byGrpc(service: Service, body: Body) {
  // Field 2 of UploadRequest, length-delimited, within a gRPC message: the bytes follow as they are.
  const framed = (bytes: number) => {
    const length = [0x12];
    for (let left = bytes; ; left >>>= 7) {
      length.push(left > 0x7f ? (left & 0x7f) | 0x80 : left);
      if (left <= 0x7f) break;
    }
    return enveloped(Buffer.from(length), bytes);
  };
  const metadata = toBinary(UploadRequestSchema, {
    $typeName: 'facefusion.jobs.v1.UploadRequest',
    part: { case: 'metadata', value: { $typeName: 'facefusion.jobs.v1.UploadMetadata', filename: 'a.jpg' } },
  });
  const headers = { ':path': '/facefusion.jobs.v1.UploadService/Upload', 'content-type': 'application/grpc', te: 'trailers' };
  const answer = await sendHttp2(service.port, headers, body, { before: enveloped(Buffer.from(metadata)), framed });
  if (answer.trailers['grpc-status'] !== '0') throw new Error(`gRPC: ${JSON.stringify({ ...answer.headers, ...answer.trailers })}`);
  const { sha256, uri } = fromBinary(UploadResponseSchema, answer.bytes.subarray(5));
  return { sha256, id: uri.slice('upload://'.length) };
}

function enveloped(start: Buffer, following = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(start.length + following, 1);
  return Buffer.concat([prefix, start]);
}
