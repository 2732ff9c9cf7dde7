// tus 1.0.0 (https://tus.io/protocols/resumable-upload) at one path: uploads from browsers that go on after a broken connection or a restart.
// The protocol is @tus/server's; what is kept is the upload store's, the same as for the other ways in. Always true here: an upload is seen by the
// tenant that made it alone, and its id in the URL is that of `upload://ID`.
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Readable } from 'node:stream';
import { Code } from '@connectrpc/connect';
import { DataStore, Metadata, Server, Upload as TusUpload } from '@tus/server';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { JobsError } from '../jobs/errors.ts';
import type { ResumableUploads } from '../jobs/ports.ts';
import { uploadIdOf, uploadUri } from '../jobs/uploads.ts';
import { HttpError } from '../rest/errors.ts';
import { type Report, toHttpError } from './errors.ts';
import { leaveRest, webBody } from './unread-body.ts';
import { type LocksOptions, UploadLocks } from './upload-locks.ts';

export interface TusOptions {
  readonly uploads: ResumableUploads;
  /** Where it is mounted, without a slash at the end. */
  readonly path: string;
  readonly tenantOf: (request: FastifyRequest) => string;
  readonly report: Report;
  readonly locks?: LocksOptions;
}

/** Headers of the protocol, which pages of other origins have to be allowed to send; and with what a finished upload is, to read. */
export const TUS_REQUEST_HEADERS = ['Tus-Resumable', 'Upload-Length', 'Upload-Defer-Length', 'Upload-Metadata', 'Upload-Offset'] as const;
export const TUS_RESPONSE_HEADERS = [
  ...TUS_REQUEST_HEADERS,
  'Tus-Version',
  'Tus-Extension',
  'Tus-Max-Size',
  'Upload-Expires',
  'Upload-Uri',
  'Upload-Sha256',
  'Upload-Media-Type',
] as const;

/** Statuses that differ from those of the REST API: tus has its own for some, and its clients try a 5xx again by themselves. */
const STATUSES: Readonly<Record<string, number>> = {
  QUOTA_EXCEEDED: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  STORAGE_FULL: 507,
  UPLOAD_CONFLICT: 409,
};
const CODES: Readonly<Record<number, Code>> = {
  404: Code.NotFound,
  409: Code.Aborted,
  410: Code.NotFound,
  412: Code.FailedPrecondition,
  413: Code.ResourceExhausted,
  423: Code.Aborted,
  501: Code.Unimplemented,
};
/** A write that is told to give way may finish what has arrived. */
const DRAIN_MS = 50;
const SHA256 = /^[0-9a-f]{64}$/;

/** One request, for what the protocol's hooks do not carry. */
interface Caller {
  readonly tenant: string;
  /** What the answer is about to hide. */
  error?: unknown;
}

/** Adds the routes. */
export function registerTus(app: FastifyInstance, options: TusOptions): void {
  const { uploads, path, tenantOf, report } = options;
  const caller = new AsyncLocalStorage<Caller>();
  const locker = new UploadLocks(options.locks);
  const server = new Server({
    path,
    datastore: new TusStore(uploads, locker, () => caller.getStore()!.tenant),
    locker,
    lockDrainTimeout: DRAIN_MS,
    maxSize: uploads.maxBytes,
    relativeLocation: true,
    namingFunction: () => uploads.newId(),
    onResponseError: (_request, error) => {
      caller.getStore()!.error = error;
      return undefined;
    },
  });

  const handle = async (request: FastifyRequest, reply: FastifyReply) => {
    const tenant = tenantOf(request);
    const asked: Caller = { tenant };
    leaveRest(request, reply);
    const response = await caller.run(asked, () => server.handleWeb(webRequest(request)));
    for (const [name, value] of response.headers) {
      // Who may read what is decided in one place for all routes; a connection may go on after an error; and there is no body.
      if (!/^(access-control-.*|connection|content-.*)$/.test(name)) reply.header(name, value);
    }
    if (response.status >= 400) {
      throw await failure(response, asked.error, report);
    }
    const id = uploadIdOf(uploadUri((request.params as { id?: string }).id ?? response.headers.get('location')?.split('/').at(-1) ?? ''));
    // Whoever made the last bytes come, or asks after the upload, is told what became of it.
    if (id !== undefined && request.method !== 'DELETE') await tellFacts(reply, uploads, id, tenant);
    return await reply.code(response.status).send();
  };

  void app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    // Read by the handler, as it comes.
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null));
    scope.route({ method: ['POST', 'OPTIONS'], url: path, handler: handle });
    scope.route({ method: ['HEAD', 'PATCH', 'DELETE', 'OPTIONS'], url: `${path}/:id`, handler: handle });
  });
}

async function tellFacts(reply: FastifyReply, uploads: ResumableUploads, id: string, tenant: string): Promise<void> {
  const { upload, expiresMs } = await uploads.find(id, tenant);
  reply.header('upload-expires', new Date(expiresMs).toUTCString());
  if (!upload) return;
  reply.headers({ 'upload-uri': upload.uri, 'upload-sha256': upload.sha256, 'upload-media-type': upload.mediaType });
}

/** The library's plain words in the form of every other error. */
async function failure(response: Response, error: unknown, report: Report): Promise<unknown> {
  if (error instanceof JobsError) return toHttpError(error, STATUSES, report);
  // Its own errors are objects with a status; anything else is a defect of ours, or of the disk.
  if (error !== undefined && !(typeof error === 'object' && error !== null && 'status_code' in error)) return error;
  const { status } = response;
  return new HttpError(status, CODES[status] ?? (status < 500 ? Code.InvalidArgument : Code.Internal), (await response.text()).trim());
}

function webRequest({ method, raw, headers: given, url }: FastifyRequest): Request {
  const headers = new Headers();
  for (const [name, value] of Object.entries(given)) {
    if (!name.startsWith(':') && value !== undefined) headers.set(name, String(value));
  }
  const body = method === 'POST' || method === 'PATCH' ? webBody(raw) : undefined;
  // The host is of no use here: locations are relative.
  return new Request(new URL(url, 'http://service'), { method, headers, body, duplex: 'half' } as RequestInit);
}

/** The upload store as @tus/server wants it. */
class TusStore extends DataStore {
  override extensions = ['creation', 'creation-with-upload', 'creation-defer-length', 'termination', 'expiration'];
  readonly #uploads: ResumableUploads;
  readonly #locks: UploadLocks;
  readonly #tenant: () => string;

  constructor(uploads: ResumableUploads, locks: UploadLocks, tenant: () => string) {
    super();
    this.#uploads = uploads;
    this.#locks = locks;
    this.#tenant = tenant;
  }

  override async create(upload: TusUpload): Promise<TusUpload> {
    const { filename, name, sha256 } = upload.metadata ?? {};
    const digest = sha256?.toLowerCase();
    if (digest !== undefined && !SHA256.test(digest)) {
      const description = 'in Upload-Metadata is a SHA-256 in hexadecimal, 64 digits, or left out';
      throw JobsError.invalid([{ field: 'sha256', reason: 'MALFORMED', description }]);
    }
    const note = upload.metadata === undefined ? '' : Metadata.stringify(upload.metadata);
    const facts = { tenant: this.#tenant(), filename: filename ?? name ?? '', bytes: upload.size, sha256: digest };
    await this.#uploads.create(upload.id, facts, note);
    return upload;
  }

  override async write(stream: Readable, id: string, offset: number): Promise<number> {
    const locks = this.#locks;
    const watched = async function* () {
      for await (const chunk of stream as AsyncIterable<Uint8Array>) {
        locks.seen(id);
        yield chunk;
      }
    };
    return await this.#uploads.append(id, this.#tenant(), offset, watched());
  }

  override async getUpload(id: string): Promise<TusUpload> {
    const { offset, length, note, expiresMs } = await this.#uploads.find(id, this.#tenant());
    return new TusUpload({
      id,
      offset,
      size: length,
      metadata: note === '' ? undefined : Metadata.parse(note),
      // The library reckons from here when it expires.
      creation_date: new Date(expiresMs - this.getExpiration()).toISOString(),
    });
  }

  override async declareUploadLength(id: string, length: number): Promise<void> {
    await this.#uploads.announce(id, this.#tenant(), length);
  }

  override async remove(id: string): Promise<void> {
    await this.#uploads.remove(id, this.#tenant());
  }

  override getExpiration(): number {
    return this.#uploads.ttlMs;
  }
}
