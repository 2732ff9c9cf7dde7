// One file on its way to the service over tus 1.0.0 (https://tus.io/protocols/resumable-upload), in Node and in browsers. Always true: what the service
// has got is asked of it before anything is sent again, so a broken connection or a restart costs only what was under way.
import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { type UploadResponse, UploadResponseSchema } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { BadRequestSchema, ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.js';
import { Reconnects, type ResumeOptions } from './reconnects.ts';

export interface TusFile {
  /** For people. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Bytes from `start` to before `end`. */
  slice(start: number, end: number): Blob | Promise<Uint8Array<ArrayBuffer>>;
}

export interface TusPlace {
  /** Of the service's uploads, such as http://127.0.0.1:8000/api/v1/tus */
  readonly url: string;
  /** What each request carries, such as a token. */
  readonly headers: () => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>;
  /** Most bytes of one request. */
  readonly pieceBytes?: number;
  /** For what carries no piece, and for pieces where there is no `send`; default: the global one. */
  readonly fetch?: typeof fetch;
  /** Sends a piece; for browsers, whose `fetch` tells no progress of what it sends. */
  readonly send?: SendPiece;
}

export interface Answer {
  readonly status: number;
  header(name: string): string | null;
  text(): Promise<string>;
}

export type SendPiece = (
  url: string,
  headers: Readonly<Record<string, string>>,
  body: Blob | Uint8Array<ArrayBuffer>,
  signal: AbortSignal,
  /** Told how much of the piece has been sent. */
  onSent: (bytes: number) => void,
) => Promise<Answer>;

export interface AttemptOptions {
  readonly signal: AbortSignal;
  /** Told where the upload is, once it has a place, and again when that is another. */
  onPlace?(uri: string): void;
  /** Told whenever the service has answered. */
  onAnswer?(): void;
  /** Bytes that the service has, and those under way. */
  onProgress?(sent: number): void;
}

/** What went wrong with a try. `passing`: another may go well. `gone`: the upload is not there any more, and begins anew. */
export class TusProblem extends Error {
  override readonly name = 'TusProblem';
  readonly error: ConnectError;
  readonly status: number | undefined;
  constructor(error: ConnectError, status?: number) {
    super(error.rawMessage, { cause: error });
    this.error = error;
    this.status = status;
  }

  get gone(): boolean {
    return this.status === 404 || this.status === 410;
  }

  get passing(): boolean {
    const { status } = this;
    // Of 409 and 423: another request for it is under way, or the offset was not the service's, and asked again it tells.
    return (
      status === undefined || status === 409 || status === 423 || status === 429 || (status >= 500 && status !== 501 && status !== 507)
    );
  }
}

const VERSION = { 'tus-resumable': '1.0.0' };
/** Large enough that asking costs nothing, small enough that a body limit of a proxy lets it through. */
const PIECE_BYTES = 8 * 1024 * 1024;

export class TusUpload {
  readonly file: TusFile;
  readonly #place: TusPlace;
  #uri: string | undefined;

  /** `uri`: where an earlier try has got to. */
  constructor(file: TusFile, place: TusPlace, uri?: string) {
    this.file = file;
    this.#place = place;
    this.#uri = uri;
  }

  /** `upload://ID`, known as soon as the service has a place for it. */
  get uri(): string | undefined {
    return this.#uri;
  }

  /** Sends what the service has not got. Throws `TusProblem`, or the signal's reason. */
  async attempt({ signal, onPlace, onAnswer, onProgress }: AttemptOptions): Promise<UploadResponse> {
    try {
      let answer = this.#uri === undefined ? await this.#create(signal) : await this.#ask(this.#uri, signal);
      onPlace?.(this.#uri!);
      onAnswer?.();
      let at = Number(answer.header('upload-offset') ?? 0);
      onProgress?.(at);
      // An empty file has one piece too.
      while (at < this.file.size) {
        answer = await this.#send(this.#uri!, at, signal, (bytes) => onProgress?.(at + bytes));
        const next = Number(answer.header('upload-offset'));
        if (!(next > at)) throw new TusProblem(new ConnectError('the service took nothing of what it was sent', Code.Internal), 500);
        at = next;
        onAnswer?.();
        onProgress?.(at);
      }
      const uri = answer.header('upload-uri') ?? this.#uri!;
      if (uri !== this.#uri) onPlace?.(uri);
      this.#uri = uri;
      const expires = answer.header('upload-expires');
      return create(UploadResponseSchema, {
        uri,
        sha256: answer.header('upload-sha256') ?? '',
        bytes: BigInt(this.file.size),
        mediaType: answer.header('upload-media-type') ?? '',
        expireTime: expires === null ? undefined : timestampFromDate(new Date(expires)),
      });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof TusProblem) {
        if (error.gone) this.#uri = undefined;
        throw error;
      }
      // What fetch throws where there is no answer.
      if (error instanceof TypeError)
        throw new TusProblem(new ConnectError('the connection was lost', Code.Unavailable, undefined, undefined, error));
      throw error;
    }
  }

  /** The service may forget it. Never rejects: it expires by itself. */
  async remove(): Promise<void> {
    if (this.#uri === undefined) return;
    await this.#request('DELETE', this.#urlOf(this.#uri), {}).catch(() => {});
  }

  async #create(signal: AbortSignal): Promise<Answer> {
    const headers = { 'upload-length': String(this.file.size), 'upload-metadata': `filename ${base64(this.file.name)}` };
    const answer = await this.#request('POST', this.#place.url, headers, signal);
    const id = answer.header('location')?.split('/').at(-1);
    if (!id) throw new TusProblem(new ConnectError('the service named no place for the upload', Code.Internal), 501);
    this.#uri = `upload://${id}`;
    return answer;
  }

  async #ask(uri: string, signal: AbortSignal): Promise<Answer> {
    const answer = await this.#request('HEAD', this.#urlOf(uri), {}, signal);
    const length = answer.header('upload-length');
    // Another file's.
    if (length !== null && Number(length) !== this.file.size)
      throw new TusProblem(new ConnectError('another upload is there', Code.NotFound), 404);
    return answer;
  }

  async #send(uri: string, offset: number, signal: AbortSignal, onSent: (bytes: number) => void): Promise<Answer> {
    const { pieceBytes = PIECE_BYTES, headers, send = this.#sendByFetch } = this.#place;
    const body = await this.file.slice(offset, Math.min(this.file.size, offset + pieceBytes));
    const all = { ...VERSION, 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream', ...(await headers()) };
    return await good(await send(this.#urlOf(uri), all, body, signal, onSent));
  }

  async #request(method: string, url: string, headers: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<Answer> {
    const all = { ...VERSION, ...headers, ...(await this.#place.headers()) };
    return await good(answerOf(await this.#fetch(url, { method, headers: all, ...(signal && { signal }) })));
  }

  #sendByFetch: SendPiece = async (url, headers, body, signal) =>
    answerOf(await this.#fetch(url, { method: 'PATCH', headers, body, signal }));

  #fetch(url: string, init: RequestInit): Promise<Response> {
    return (this.#place.fetch ?? fetch)(url, init);
  }

  #urlOf(uri: string): string {
    return `${this.#place.url}/${uri.slice('upload://'.length)}`;
  }
}

/** To the end, over lost connections. Throws `ConnectError` for what no repetition mends. */
export async function sendResuming(
  upload: TusUpload,
  { onProgress, ...options }: ResumeOptions & { onProgress?(sent: number, total: number): void },
): Promise<UploadResponse> {
  const reconnects = new Reconnects(options);
  let most = -1;
  while (true) {
    try {
      return await upload.attempt({
        signal: reconnects.signal,
        onProgress(sent) {
          if (sent > most) reconnects.told();
          most = Math.max(most, sent);
          onProgress?.(sent, upload.file.size);
        },
      });
    } catch (problem) {
      if (!(problem instanceof TusProblem)) throw problem;
      if (problem.gone && upload.uri === undefined && most >= 0) most = -1;
      else if (!problem.passing) throw problem.error;
      await reconnects.pause(problem.error);
    }
  }
}

function answerOf(response: Response): Answer {
  return { status: response.status, header: (name) => response.headers.get(name), text: () => response.text() };
}

async function good(answer: Answer): Promise<Answer> {
  if (answer.status >= 200 && answer.status < 300) return answer;
  throw new TusProblem(errorIn(answer.status, await answer.text()), answer.status);
}

interface ErrorBody {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly Detail[];
}
/** A message of google.rpc, whichever it is. */
interface Detail {
  readonly field_violations?: readonly Violation[];
  readonly fieldViolations?: readonly Violation[];
  readonly reason?: string;
  readonly domain?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}
interface Violation {
  readonly field: string;
  readonly description: string;
  readonly reason?: string;
}

/** The answer as a call over gRPC has it. */
function errorIn(status: number, body: string): ConnectError {
  const { code = '', message = `the service answered ${status}`, details = [] } = parsed(body);
  const name = code.toLowerCase().replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const known = (Code as unknown as Record<string, Code | undefined>)[name];
  const byStatus =
    status === 401 ? Code.Unauthenticated : status === 404 ? Code.NotFound : status >= 500 ? Code.Unavailable : Code.InvalidArgument;
  const fieldViolations = details.flatMap((one) => [...(one.field_violations ?? one.fieldViolations ?? [])]);
  const value = { fieldViolations: fieldViolations.map(({ field, description, reason = '' }) => ({ field, description, reason })) };
  const infos = details.flatMap(({ reason, domain = '', metadata = {} }) => (reason === undefined ? [] : [{ reason, domain, metadata }]));
  return new ConnectError(message, known ?? byStatus, undefined, [
    ...infos.map((info) => ({ desc: ErrorInfoSchema, value: info })),
    ...(fieldViolations.length === 0 ? [] : [{ desc: BadRequestSchema, value }]),
  ]);
}

function parsed(body: string): ErrorBody {
  try {
    return (JSON.parse(body) ?? {}) as ErrorBody;
  } catch {
    return {};
  }
}

function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
