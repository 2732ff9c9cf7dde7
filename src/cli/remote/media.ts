// Files in and out, streamed, never whole in memory. What arrives is compared with what was sent by its SHA-256; a download appears under
// its name only when it is whole.
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { access, constants, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Code, ConnectError } from '@connectrpc/connect';
import type { UploadResponse } from '../../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { BadRequestSchema } from '../../../gen/google/rpc/error_details_pb.js';
import type { UploadOptions } from '../../client/client.ts';
import { backoffMs, LOSSES, pause } from '../../client/retry.ts';
import type { Service } from './client.ts';
import { CliError, Exit } from './errors.ts';
import { type Line, size } from './progress.ts';

/** Shows on `line` how much of a file has been sent. */
export const uploadOn = (line: Line) => (sent: number, total?: number) =>
  line.update(total ? (100 * sent) / total : 100, `${size(sent)} of ${size(total ?? 0)} sent`, 'upload');

export async function upload(service: Service, path: string, options: UploadOptions): Promise<UploadResponse> {
  try {
    return await service.upload(path, options);
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    if (error.code === Code.DataLoss) throw new CliError(Exit.failed, `'${path}': ${error.rawMessage}`, { cause: error });
    if (error.code !== Code.InvalidArgument) throw error;
    // The service was sent one file and names none; the person at the keyboard sent several.
    const [violation] = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
    throw new CliError(Exit.invalid, `'${path}' was not taken: ${violation?.description ?? error.rawMessage}`, { cause: error });
  }
}

/** Before a job is made or waited for: a place that cannot be written would only be found when all the work is done. */
export async function checkOutput(path: string | undefined): Promise<void> {
  if (path === undefined) return;
  const folder = dirname(path);
  await access(folder, constants.W_OK).catch((error: NodeJS.ErrnoException) => {
    throw new CliError(
      Exit.invalid,
      `--output is '${path}', and the folder '${folder}' cannot be written (${error.code}): make it, or name another`,
    );
  });
  const facts = await stat(path).catch(() => undefined);
  if (facts?.isDirectory()) throw new CliError(Exit.invalid, `--output is '${path}', which is a folder; it takes the name of a file`);
}

/** Downloads a finished job's result to `path` and answers its size. It is begun anew where the connection breaks in the middle of it. */
export async function download(service: Service, jobId: string, path: string, line: Line, signal: AbortSignal): Promise<number> {
  const part = `${path}.part`;
  const again = `run \`ffjobs watch ${jobId} --output ${path}\` again`;
  try {
    for (let tried = 0; ; tried++) {
      const { facts: result, response } = await service.result(jobId, { signal });
      const total = Number(result?.bytes ?? 0);
      const show = (received: number) =>
        line.update(total === 0 ? 100 : (100 * received) / total, `${size(received)} of ${size(total)} received`, 'download');
      try {
        const { bytes, sha256 } = await receive(response, part, show, signal);
        if (result !== undefined && sha256 !== result.sha256) {
          throw new CliError(Exit.failed, `the result of ${jobId} did not arrive whole; ${again}`);
        }
        await rename(part, path);
        return bytes;
      } catch (error) {
        if (!(error instanceof Broken) || signal.aborted) throw error;
        if (tried === LOSSES)
          throw new CliError(Exit.unreachable, `the connection broke again and again while the result of ${jobId} came; ${again}`, {
            cause: error,
          });
      }
      await pause(backoffMs(tried), signal);
    }
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

/** The connection has ended in the middle of a body. */
class Broken extends Error {}

async function receive(response: Response, path: string, show: (bytes: number) => void, signal: AbortSignal) {
  const digest = createHash('sha256');
  let bytes = 0;
  await pipeline(
    async function* () {
      try {
        for await (const chunk of response.body!) {
          digest.update(chunk);
          bytes += chunk.length;
          show(bytes);
          yield chunk;
        }
      } catch (error) {
        throw new Broken('the connection broke', { cause: error });
      }
    },
    createWriteStream(path),
    { signal },
  );
  return { bytes, sha256: digest.digest('hex') };
}
