// The service, over Connect. One transport for all calls; each carries the key, and a refusal of the key is noticed here.
import { Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-web';
import { AccessService } from '../../../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import { SystemService } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { ROOT } from '../router.ts';
import { authorization, key, keyRefused } from './key.ts';

const withKey: Interceptor = (next) => async (request) => {
  const sent = key.value;
  for (const [name, value] of Object.entries(authorization())) request.header.set(name, value);
  try {
    return await next(request);
  } catch (error) {
    if (ConnectError.from(error).code === Code.Unauthenticated) keyRefused(sent);
    throw error;
  }
};

const transport = createConnectTransport({ baseUrl: ROOT.replace(/\/$/, ''), useBinaryFormat: true, interceptors: [withKey] });

export const jobService = createClient(JobService, transport);
export const systemService = createClient(SystemService, transport);
export const accessService = createClient(AccessService, transport);
