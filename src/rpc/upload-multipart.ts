// Files from HTML forms and `curl -F`: POST multipart/form-data (RFC 7578), each file streamed to the upload store as it comes. Always true here:
// one answer for the whole form, and where a file of it is refused those before it are taken back.

import { create, type JsonObject, toJson } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { Busboy, type BusboyFileStream, type BusboyHeaders } from '@fastify/busboy';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { UploadResponseSchema } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { JobsError } from '../jobs/errors.ts';
import type { ReceiveUpload, Upload } from '../jobs/ports.ts';
import { displayName, uploadIdOf } from '../jobs/uploads.ts';
import { HttpError } from '../rest/errors.ts';
import { type Report, toHttpError } from './errors.ts';
import { leaveRest } from './unread-body.ts';

export interface MultipartOptions {
  readonly uploads: {
    readonly receive: ReceiveUpload;
    /** Undefined: there is none of this tenant. */
    get(id: string, tenant: string): Promise<Upload | undefined>;
    remove(id: string, tenant: string): Promise<void>;
  };
  readonly path: string;
  readonly tenantOf: (request: FastifyRequest) => string;
  readonly report: Report;
}

/** A job has at most 16 sources, a target and sound. */
const LIMITS = { files: 20, fields: 20, parts: 40, fieldSize: 64 * 1024, headerPairs: 32, headerSize: 16 * 1024 };
const STATUSES = { UNSUPPORTED_MEDIA_TYPE: 415 };

/** Adds the route, and one that says what an upload is. */
export function registerMultipartUploads(app: FastifyInstance, { uploads, path, tenantOf, report }: MultipartOptions): void {
  void app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    // Read by the handler, as it comes.
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null));
    scope.post(path, async (request, reply) => {
      leaveRest(request, reply);
      const tenant = tenantOf(request);
      try {
        const taken = await takeForm(request, uploads, tenant);
        return await reply.code(201).send({ uploads: taken });
      } catch (error) {
        throw toHttpError(error, STATUSES, report);
      }
    });
  });
  app.get<{ Params: { id: string } }>(`${path}/:id`, async (request, reply) => await tell(request, reply));

  async function tell(request: FastifyRequest<{ Params: { id: string } }>, reply: FastifyReply): Promise<FastifyReply> {
    const { id } = request.params;
    const upload = await uploads.get(id, tenantOf(request));
    if (upload) return reply.header('cache-control', 'no-store').send(jsonOf(upload));
    const message = 'there is no such upload, or it is not finished, or it has expired';
    throw toHttpError(new JobsError('not_found', 'UPLOAD_NOT_FOUND', message), STATUSES, report);
  }
}

async function takeForm(request: FastifyRequest, uploads: MultipartOptions['uploads'], tenant: string): Promise<JsonObject[]> {
  const form = parserOf(request);
  const leaving = new AbortController();
  const taken: Promise<JsonObject>[] = [];
  const { promise: read, resolve, reject } = Promise.withResolvers<void>();
  /** The first thing that went wrong; what follows from it is not told. */
  let failure: { readonly error: unknown } | undefined;
  let open: BusboyFileStream | undefined;
  const fail = (error: unknown) => {
    if (failure) return;
    failure = { error };
    request.raw.unpipe(form);
    leaving.abort(error);
    open?.destroy(error as Error);
    reject(error);
  };
  form.on('file', (field, file, name) => {
    open = file;
    // The parser tells a file of an error and then ends it, as if it were whole.
    file.on('error', (error) => file.destroy(error));
    const receiving = takeFile(uploads, { tenant, field, name, nth: taken.length }, file, leaving.signal);
    taken.push(receiving);
    receiving.catch(fail);
  });
  form.on('field', (field, _value, _fieldTruncated, truncated) => {
    if (truncated) fail(malformed(`the field ${JSON.stringify(displayName(field ?? ''))} is longer than ${LIMITS.fieldSize} bytes`));
  });
  form.on('filesLimit', () => fail(malformed(`a form has at most ${LIMITS.files} files: send the others in another one`)));
  form.on('fieldsLimit', () => fail(malformed(`a form has at most ${LIMITS.fields} fields`)));
  form.on('partsLimit', () => fail(malformed(`a form has at most ${LIMITS.parts} parts`)));
  form.on('error', (error) => fail(malformed(`this form cannot be read (${(error as Error).message}): send it again`)));
  form.on('finish', () => resolve());
  request.raw.once('close', () => {
    if (!request.raw.readableEnded) fail(malformed('the connection broke before the end of the form'));
  });
  request.raw.pipe(form);
  try {
    await read;
    const all = await Promise.all(taken);
    if (all.length === 0) {
      throw malformed('the form has no file: send at least one part with a filename, such as with `curl -F file=@face.jpg`');
    }
    return all;
  } catch (error) {
    fail(error);
    const settled = await Promise.allSettled(taken);
    const ids = settled.flatMap((one) => (one.status === 'fulfilled' ? [uploadIdOf(one.value.uri as string)!] : []));
    await Promise.all(ids.map((id) => uploads.remove(id, tenant)));
    throw failure!.error;
  }
}

interface Part {
  readonly tenant: string;
  readonly field: string | undefined;
  readonly name: string | undefined;
  /** From 0. */
  readonly nth: number;
}

async function takeFile(
  uploads: MultipartOptions['uploads'],
  { tenant, field, name, nth }: Part,
  file: BusboyFileStream,
  signal: AbortSignal,
): Promise<JsonObject> {
  const filename = displayName(name ?? '');
  try {
    const upload = await uploads.receive({ tenant, filename }, file, signal);
    return { field: displayName(field ?? ''), filename, ...jsonOf(upload) };
  } catch (error) {
    if (!(error instanceof JobsError) || nth === 0) throw error;
    const { kind, reason, violations, retryAfterSeconds, metadata, cause } = error;
    throw new JobsError(kind, reason, `file ${nth + 1}, ${JSON.stringify(filename)}: ${error.message}`, {
      violations,
      retryAfterSeconds,
      metadata,
      cause,
    });
  }
}

function parserOf(request: FastifyRequest) {
  const type = request.headers['content-type'] ?? '';
  if (!/^multipart\/form-data\s*(;|$)/i.test(type)) {
    throw new HttpError(415, Code.InvalidArgument, 'send the files as multipart/form-data, such as with `curl -F file=@face.jpg`', {
      accept: 'multipart/form-data',
    });
  }
  try {
    return new Busboy({ headers: request.headers as BusboyHeaders, limits: LIMITS });
  } catch {
    throw malformed('the Content-Type has no usable boundary: let your HTTP library write this header');
  }
}

function malformed(description: string): JobsError {
  return JobsError.invalid([{ field: 'body', reason: 'MALFORMED_FORM', description }]);
}

/** As the REST form of UploadService would print it. */
function jsonOf({ uri, sha256, bytes, mediaType, expiresMs }: Upload): JsonObject {
  const message = create(UploadResponseSchema, { uri, sha256, bytes: BigInt(bytes), mediaType, expireTime: timestampFromMs(expiresMs) });
  return toJson(UploadResponseSchema, message, { useProtoFieldName: true, alwaysEmitImplicit: true }) as JsonObject;
}
