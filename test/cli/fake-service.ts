// A service that keeps its jobs in a list and says what a test tells it to: the contract from the other side, over a real HTTP/2 connection.
import { createHash, randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { createServer as createHttp1Server } from 'node:http';
import { createServer, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { type JobEvent, JobEventSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, type JobRequest, JobSchema, JobStateSchema, JobStatus, JobStep } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { type GetCapabilitiesResponseSchema, SystemService } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.js';

const T0 = Date.UTC(2025, 3, 5, 14, 15);
const TERMINAL: readonly JobStatus[] = [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.REFUSED];

export class FakeService implements AsyncDisposable {
  readonly jobs = new Map<string, Job>();
  readonly uploads: { filename: string; bytes: Buffer }[] = [];
  readonly submitted: JobRequest[] = [];
  readonly validated: JobRequest[] = [];
  /** What Validate finds. */
  violations: { field: string; description: string; reason: string }[] = [];
  /** `after_sequence` of each Watch call. */
  readonly resumes: (number | undefined)[] = [];
  /** Told of each call by the name of its method. */
  readonly calls = new EventEmitter();
  /** Thrown by the next calls of a method, by its name. */
  readonly failures = new Map<string, () => ConnectError>();
  /** What the result's URL gives. */
  result = Buffer.from('a picture');
  /** So many answers of it end in the middle. */
  cuts = 0;
  capabilities: MessageInitShape<typeof GetCapabilitiesResponseSchema> = { serviceVersion: '1.2.3' };
  /** Events in order, of all jobs; a test may end a stream between two of them. */
  readonly #events = new Map<string, JobEvent[]>();
  readonly #changed = new EventEmitter().setMaxListeners(0);
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #server = createServer(connectNodeAdapter({ routes: (router) => this.#routes(router) }));
  readonly #files = createHttp1Server((_request, response) => {
    if (this.cuts === 0) return void response.end(this.result);
    this.cuts--;
    response.writeHead(200, { 'content-length': this.result.length });
    response.write(this.result.subarray(0, 3), () => response.destroy());
  });
  #next = 0;
  #endStreams = new AbortController();

  static async start(): Promise<FakeService> {
    const service = new FakeService();
    service.#server.on('session', (session) => {
      service.#sessions.add(session);
      session.on('close', () => service.#sessions.delete(session));
    });
    service.#server.listen(0, '127.0.0.1');
    service.#files.listen(0, '127.0.0.1');
    await Promise.all([once(service.#server, 'listening'), once(service.#files, 'listening')]);
    return service;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get #resultUrl(): string {
    return `http://127.0.0.1:${(this.#files.address() as AddressInfo).port}/result`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.breakConnections();
    this.#endStreams.abort();
    this.#files.closeAllConnections();
    this.#server.close();
    this.#files.close();
    await Promise.all([once(this.#server, 'close'), once(this.#files, 'close')]);
  }

  /** Every connection is gone at once, as when a machine dies. */
  breakConnections(): void {
    for (const session of this.#sessions) session.destroy();
  }

  /** Every stream ends in good order, as when a service drains. */
  endStreams(): void {
    this.#endStreams.abort();
    this.#endStreams = new AbortController();
  }

  addJob(job: MessageInitShape<typeof JobSchema> = {}): string {
    const jobId = `job_20250405_${String(this.#next++).padStart(12, 'a')}`;
    this.jobs.set(
      jobId,
      create(JobSchema, { status: JobStatus.QUEUED, step: JobStep.QUEUED, createdAt: timestampFromMs(T0), ...job, jobId }),
    );
    this.#events.set(jobId, []);
    return jobId;
  }

  /** The job changes: a state event follows. */
  change(jobId: string, change: MessageInitShape<typeof JobSchema>): void {
    const before = this.jobs.get(jobId)!;
    const made = create(JobSchema, change);
    const changed = Object.fromEntries(Object.keys(change).map((key) => [key, made[key as keyof Job]]));
    const job: Job = { ...before, ...changed, sequence: before.sequence + 1 };
    this.jobs.set(jobId, job);
    const { status, step, progress, attempt, error, result, sequence, queuePosition, waitReason } = job;
    const state = create(JobStateSchema, { jobId, status, step, progress, attempt, error, result, sequence, queuePosition, waitReason });
    this.#push(jobId, { case: 'state', value: state });
  }

  emit(jobId: string, event: MessageInitShape<typeof JobEventSchema>['event']): void {
    const job = this.jobs.get(jobId)!;
    job.sequence++;
    this.#push(jobId, event);
  }

  succeed(jobId: string): void {
    const sha256 = createHash('sha256').update(this.result).digest('hex');
    const result = { mediaType: 'image/png', bytes: BigInt(this.result.length), sha256, width: 64, height: 48, frames: 1 };
    this.change(jobId, { status: JobStatus.SUCCEEDED, step: JobStep.DONE, progress: 100, result, resultUrl: this.#resultUrl });
  }

  #push(jobId: string, event: MessageInitShape<typeof JobEventSchema>['event']): void {
    const { sequence } = this.jobs.get(jobId)!;
    this.#events.get(jobId)!.push(create(JobEventSchema, { sequence, time: timestampFromMs(T0 + sequence * 1000), event }));
    this.#changed.emit('change');
  }

  #job(jobId: string): Job {
    const job = this.jobs.get(jobId);
    if (job !== undefined) return job;
    const detail = { desc: ErrorInfoSchema, value: { reason: 'JOB_NOT_FOUND', domain: 'facefusion-jobs' } };
    throw new ConnectError(`there is no job '${jobId}'`, Code.NotFound, undefined, [detail]);
  }

  #called(method: string): void {
    this.calls.emit(method);
    const failure = this.failures.get(method);
    if (failure !== undefined) throw failure();
  }

  #routes(router: Parameters<Parameters<typeof connectNodeAdapter>[0]['routes']>[0]): void {
    const self = this;
    router.service(JobService, {
      submit: ({ job }) => {
        self.#called('submit');
        self.submitted.push(job!);
        return { job: self.#job(self.addJob({ request: job })), created: true };
      },
      validate: ({ job }) => {
        self.#called('validate');
        self.validated.push(job!);
        return { valid: self.violations.length === 0, violations: self.violations };
      },
      get: ({ jobId }) => {
        self.#called('get');
        return { job: self.#job(jobId) };
      },
      getResult: ({ jobId }) => ({ url: self.#resultUrl, result: self.#job(jobId).result }),
      async *watch({ jobId, afterSequence }, { signal }) {
        const job = self.#job(jobId);
        const streams = AbortSignal.any([signal, self.#endStreams.signal]);
        self.resumes.push(afterSequence);
        self.#called('watch');
        let at = afterSequence ?? job.sequence;
        if (afterSequence === undefined) {
          yield {
            event: create(JobEventSchema, {
              sequence: at,
              time: timestampFromMs(T0),
              event: { case: 'snapshot', value: { job } },
            }),
          };
          if (TERMINAL.includes(job.status)) return;
        }
        while (true) {
          for (const event of self.#events.get(jobId)!.filter(({ sequence }) => sequence > at)) {
            yield { event };
            at = event.sequence;
            if (event.event.case === 'state' && TERMINAL.includes(event.event.value.status)) return;
          }
          if (TERMINAL.includes(self.jobs.get(jobId)!.status)) return;
          if (streams.aborted) return;
          const ended = await once(self.#changed, 'change', { signal: streams }).catch(() => 'ended');
          if (ended === 'ended') return;
        }
      },
      list: ({ pageSize, pageToken, status }) => {
        self.#called('list');
        const all = [...self.jobs.values()].filter((job) => status.length === 0 || status.includes(job.status));
        const start = Number(pageToken || 0);
        // Small pages, so that a test of paging needs few jobs.
        const size = Math.min(pageSize, 2);
        return { jobs: all.slice(start, start + size), nextPageToken: start + size < all.length ? String(start + size) : '' };
      },
      cancel: ({ jobId }) => {
        self.#called('cancel');
        const job = self.#job(jobId);
        if (!TERMINAL.includes(job.status)) self.change(jobId, { status: JobStatus.CANCELED, step: JobStep.DONE });
        return { job: self.#job(jobId) };
      },
      purge: ({ jobId }) => {
        self.#called('purge');
        return { job: self.#job(jobId) };
      },
    });
    router.service(SystemService, { getCapabilities: () => self.capabilities });
    router.service(UploadService, {
      async upload(parts) {
        let filename = '';
        const chunks: Uint8Array[] = [];
        for await (const { part } of parts) {
          if (part.case === 'metadata') filename = part.value.filename;
          else if (part.case === 'chunk') chunks.push(part.value);
        }
        const bytes = Buffer.concat(chunks);
        self.#called('upload');
        self.uploads.push({ filename, bytes });
        const mediaType = filename.endsWith('.bin') ? 'video/mp4' : 'image/jpeg';
        return {
          uri: `upload://${randomUUID()}`,
          sha256: createHash('sha256').update(bytes).digest('hex'),
          bytes: BigInt(bytes.length),
          mediaType,
        };
      },
    });
  }
}
