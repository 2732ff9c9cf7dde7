// Blobs over HTTP, for the signed URLs of the local blob store: whoever holds one gets that object, whole or in ranges, and nothing else.
import { open } from 'node:fs/promises';
import type { OutgoingHttpHeaders } from 'node:http';
import send from '@fastify/send';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { BLOB_PATH, type LocalBlobStore, type SignedQuery } from './blobs-local.ts';
import { disposition } from './disposition.ts';
import { sendBody } from './file-body.ts';

export interface BlobRoutesOptions {
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

/** Adds GET and HEAD of signed URLs. */
export function registerBlobRoutes(app: FastifyInstance, blobs: LocalBlobStore, { now = Date.now }: BlobRoutesOptions = {}): void {
  app.route<{ Params: { key: string }; Querystring: SignedQuery }>({
    method: ['GET', 'HEAD'],
    url: `${BLOB_PATH}/:key`,
    exposeHeadRoute: false,
    async handler(request, reply) {
      const { key } = request.params;
      const verdict = blobs.verifySignedUrl(key, request.query, now());
      if (verdict === 'tampered') return refuse(reply, 403, 'permission_denied', 'this URL was not signed by this service');
      if (verdict === 'expired') return refuse(reply, 410, 'not_found', 'this URL has expired; ask for the result again to get a new one');
      return await serve(blobs, key, request, reply, now());
    },
  });
}

type BlobRequest = FastifyRequest<{ Params: { key: string }; Querystring: SignedQuery }>;

async function serve(blobs: LocalBlobStore, key: string, request: BlobRequest, reply: FastifyReply, nowMs: number): Promise<FastifyReply> {
  if (!(await blobs.stat(key))) return refuse(reply, 404, 'not_found', 'this result has been deleted');
  const { expires, filename, type } = request.query as Required<SignedQuery>;
  const etag = `"${key}"`;
  reply.headers({
    etag,
    'cache-control': `private, max-age=${Math.max(0, Math.floor((Number(expires) - nowMs) / 1000))}, immutable`,
    // What a caller uploaded must not become a page of this origin.
    'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'; sandbox",
  });
  const { headers } = request;
  if (headers['if-match'] !== undefined && !names(headers['if-match'], etag)) {
    return refuse(reply, 412, 'failed_precondition', 'this is another object than the one asked for');
  }
  if (headers['if-none-match'] !== undefined && names(headers['if-none-match'], etag)) return reply.code(304).send();
  const path = `/${blobs.pathOf(key).replaceAll('\\', '/')}`;
  const sent = await send(headersOnly(request, etag), path, {
    root: blobs.dir,
    etag: false,
    cacheControl: false,
    contentType: false,
  });
  if (sent.type !== 'file') {
    reply.headers(sent.headers);
    // Content-Length of the library's own page is not that of our answer.
    reply.removeHeader('content-length');
    if (sent.statusCode === 304) return reply.code(304).send();
    if (sent.statusCode === 416) return refuse(reply, 416, 'out_of_range', 'the result is shorter than the range asked for');
    return refuse(reply, sent.statusCode, 'not_found', 'this result has been deleted');
  }
  reply.headers(sent.headers);
  reply.headers({ 'content-type': type, 'content-disposition': disposition(filename, type) });
  if (request.method === 'HEAD') return reply.code(sent.statusCode).send();
  const file = await open(sent.metadata.path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
  if (!file)
    return refuse(reply.removeHeader('content-length').removeHeader('content-range'), 404, 'not_found', 'this result has been deleted');
  reply.hijack();
  const { raw } = reply;
  try {
    raw.writeHead(sent.statusCode, reply.getHeaders() as OutgoingHttpHeaders);
    const [, start] = /^bytes (\d+)-/.exec(sent.headers['Content-Range'] ?? '') ?? [];
    await sendBody(raw, file, Number(start ?? 0), Number(sent.headers['Content-Length']));
  } catch (error) {
    request.log.error({ err: error }, 'a result could not be sent whole');
    raw.destroy();
  } finally {
    await file.close();
  }
  return reply;
}

function refuse(reply: FastifyReply, status: number, code: string, message: string): FastifyReply {
  return reply
    .code(status)
    .header('content-type', 'application/json')
    .send(JSON.stringify({ code, message, details: [] }));
}

/** Whether an If-Match or If-None-Match names the object. Weak or strong is one here: equal keys are equal bytes. */
function names(header: string, etag: string): boolean {
  return header.split(',').some((one) => one.trim() === '*' || one.trim().replace(/^W\//, '') === etag);
}

/**
 * The request as the library is to see it, which says what is to be sent and does not send it. It knows validators made of size and time only, so the ones that name the content are
 * resolved here (RFC 9110, section 13.2.2): a range holds when If-Range names this object, else the whole is sent.
 */
function headersOnly(request: BlobRequest, etag: string): FastifyRequest['raw'] {
  const { 'if-match': _, 'if-none-match': ifNoneMatch, ...headers } = request.headers;
  if (ifNoneMatch !== undefined) delete headers['if-modified-since'];
  const ifRange = headers['if-range'];
  if (typeof ifRange === 'string' && ifRange.includes('"')) {
    delete headers['if-range'];
    if (ifRange !== etag) delete headers.range;
  }
  return Object.create(request.raw, { headers: { value: headers }, method: { value: 'HEAD' } }) as FastifyRequest['raw'];
}
