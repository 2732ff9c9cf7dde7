// What the OpenAPI document says that descriptors cannot: ways in that are no rpc, headers that calls heed, credentials, media to begin with.
import type { DescMethod } from '@bufbuild/protobuf';
import { JobRequestSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import type { Config } from '../config.ts';
import type { ServerOptions } from '../rpc/server.ts';
import { uploadsOpenApi } from '../rpc/upload-openapi.ts';

type Documentation = Pick<ServerOptions, 'examples' | 'openApiHeaders' | 'openApiExtra' | 'openApiSecurity'>;

const SUBMITS: readonly DescMethod[] = [
  JobService.method.submit,
  JobService.method.submitBatch,
  ProcessService.method.swap,
  ProcessService.method.enhance,
];

const IDEMPOTENCY_HEADER = {
  name: 'Idempotency-Key',
  description: 'The same key with the same request gives the same job for 24 h; as idempotency_key in the request',
  example: 'order-17',
};

/** The media that `npm run demo` leaves. */
const EXAMPLE_JOB = {
  source_images: ['demo/eileen_collins.jpg'],
  target_image: 'demo/grace_hopper.jpg',
  parameters: { processors: ['face_swapper'] },
};

/** `uploads`: where the ways to upload that are no rpc are mounted; undefined: they are not. */
export function apiDocumentation(config: Config, uploads: { readonly form: string; readonly tus: string } | undefined): Documentation {
  return {
    examples: { [JobRequestSchema.typeName]: EXAMPLE_JOB },
    openApiHeaders: Object.fromEntries(SUBMITS.map(({ parent, name }) => [`${parent.typeName}.${name}`, [IDEMPOTENCY_HEADER]])),
    openApiExtra: uploads && uploadsOpenApi(uploads.form, uploads.tus),
    openApiSecurity: securityOf(config),
  };
}

/** How callers prove who they are; undefined: nobody has to. */
function securityOf({ apiKeys, jwt, tlsClientCa, identities, anonymousScopes }: Config): Documentation['openApiSecurity'] {
  if (!identities) return undefined;
  const format = [apiKeys && 'an API key (ffj_...)', jwt && 'a token (JWT) of the identity provider'].filter(Boolean).join(' or ');
  const schemes: Record<string, { readonly [key: string]: unknown }> = {
    ...(format !== '' && { bearer: { type: 'http', scheme: 'bearer', description: `${format}, in the header Authorization` } }),
    ...(format !== '' && { apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'The same, in a header of its own' } }),
    ...(tlsClientCa !== undefined && {
      mutualTLS: { type: 'mutualTLS', description: 'A client certificate that the operator has listed' },
    }),
  };
  return { schemes, optional: anonymousScopes !== undefined };
}
