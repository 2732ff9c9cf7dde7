// UploadService: a client stream of bytes becomes `upload://ID`. Bytes go straight to the upload store; nothing is held here.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { type UploadRequest, UploadResponseSchema, type UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { JobsError } from '../jobs/errors.ts';
import type { ReceiveUpload } from '../jobs/ports.ts';
import { callerOf } from './authorize.ts';

export function createUploadService(receive: ReceiveUpload): ServiceImpl<typeof UploadService> {
  return {
    async upload(requests, context) {
      const { signal } = context;
      const { tenant } = callerOf(context).identity;
      const parts = requests[Symbol.asyncIterator]();
      try {
        const first = await parts.next();
        if (first.done || first.value.part.case !== 'metadata') throw outOfOrder('the first message must be `metadata`');
        const { filename, bytes, sha256 } = first.value.part.value;
        const upload = await receive(
          { tenant, filename, bytes: bytes === undefined ? undefined : Number(bytes), sha256 },
          chunks(parts),
          signal,
        );
        return create(UploadResponseSchema, {
          uri: upload.uri,
          sha256: upload.sha256,
          bytes: BigInt(upload.bytes),
          mediaType: upload.mediaType,
          expireTime: timestampFromMs(upload.expiresMs),
        });
      } finally {
        await parts.return?.();
      }
    },
  };
}

async function* chunks(parts: AsyncIterator<UploadRequest>): AsyncGenerator<Uint8Array> {
  for (let part = await parts.next(); !part.done; part = await parts.next()) {
    if (part.value.part.case !== 'chunk') throw outOfOrder('after `metadata` only `chunk` may follow');
    yield part.value.part.value;
  }
}

function outOfOrder(description: string): JobsError {
  return JobsError.invalid([{ field: 'part', reason: 'OUT_OF_ORDER', description }]);
}
