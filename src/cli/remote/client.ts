// The service as the command line sees it: the generated clients over one HTTP/2 connection, which is closed when the command ends.
import { type Client, createClient } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { JobService } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import { SystemService } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { CliError, Exit } from './errors.ts';

export type JobsClient = Client<typeof JobService>;

export interface Service extends Disposable {
  readonly url: string;
  readonly jobs: JobsClient;
  readonly uploads: Client<typeof UploadService>;
  readonly system: Client<typeof SystemService>;
}

/** Opens nothing yet; the first call does. */
export function connect(server: string): Service {
  if (!URL.canParse(server) || !/^https?:$/.test(new URL(server).protocol)) {
    throw new CliError(Exit.invalid, `--server is '${server}'; it takes a URL such as http://127.0.0.1:8000`);
  }
  // A Watch may be silent for long: pings tell a quiet service from one that is gone.
  const sessionManager = new Http2SessionManager(server, { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 });
  const transport = createGrpcTransport({ baseUrl: server, sessionManager });
  return {
    url: server,
    jobs: createClient(JobService, transport),
    uploads: createClient(UploadService, transport),
    system: createClient(SystemService, transport),
    [Symbol.dispose]: () => sessionManager.abort(),
  };
}
