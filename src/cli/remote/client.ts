// The service as the command line sees it: the generated clients over one HTTP/2 connection, which is closed when the command ends.
import { setTimeout as pause } from 'node:timers/promises';
import { type Client, Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { JobService } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import { SystemService } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { RetryInfoSchema } from '../../../gen/google/rpc/error_details_pb.js';
import { CliError, Exit } from './errors.ts';

export type JobsClient = Client<typeof JobService>;

export interface Service extends Disposable {
  readonly url: string;
  readonly jobs: JobsClient;
  readonly uploads: Client<typeof UploadService>;
  readonly system: Client<typeof SystemService>;
}

export interface ConnectOptions {
  /** How long a service that asks for patience (its first worker is still loading, for example) is asked again. */
  readonly patienceMs?: number;
  /** Told once, with the service's words. */
  onWait?(message: string): void;
}

/** Opens nothing yet; the first call does. */
export function connect(server: string, options: ConnectOptions = {}): Service {
  if (!URL.canParse(server) || !/^https?:$/.test(new URL(server).protocol)) {
    throw new CliError(Exit.invalid, `--server is '${server}'; it takes a URL such as http://127.0.0.1:8000`);
  }
  // A Watch may be silent for long: pings tell a quiet service from one that is gone.
  const sessionManager = new Http2SessionManager(server, { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 });
  const transport = createGrpcTransport({ baseUrl: server, sessionManager, interceptors: [patience(options)] });
  return {
    url: server,
    jobs: createClient(JobService, transport),
    uploads: createClient(UploadService, transport),
    system: createClient(SystemService, transport),
    [Symbol.dispose]: () => sessionManager.abort(),
  };
}

/** Repeats a call that the service itself asks to repeat, which it does before it has changed anything. */
function patience({ patienceMs = 60_000, onWait }: ConnectOptions): Interceptor {
  let told = false;
  return (next) => async (request) => {
    const until = performance.now() + patienceMs;
    while (true) {
      try {
        return await next(request);
      } catch (error) {
        const delay = request.stream ? undefined : retryDelayMs(ConnectError.from(error));
        if (delay === undefined || performance.now() + delay > until) throw error;
        if (!told) onWait?.(ConnectError.from(error).rawMessage);
        told = true;
        await pause(delay, undefined, { signal: request.signal });
      }
    }
  };
}

function retryDelayMs(error: ConnectError): number | undefined {
  if (error.code !== Code.Unavailable) return undefined;
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay === undefined ? undefined : Number(delay.seconds) * 1000 + delay.nanos / 1e6;
}
