// The peer for gRPC: Connect as its documentation starts it, h2c, no interceptors, nothing behind it. `Get` answers the messages given;
// `Watch` sends one shared event ten times a second to whoever listens. Prints its port.
import http2 from 'node:http2';
import { create } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { type GetResponse, JobService, type WatchResponse, WatchResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { peerMessages, sayPort } from './common.ts';

const jobs = new Map<string, GetResponse>(peerMessages().map((message) => [message.job!.jobId, message]));

let sequence = 1;
let wake = Promise.withResolvers<WatchResponse>();
const event = () => {
  const progress = { percent: 50, framesDone: Date.now() % 2 ** 31, framesTotal: 2 ** 31 - 1, attempt: 1 };
  return create(WatchResponseSchema, {
    event: { sequence: ++sequence, time: timestampNow(), event: { case: 'progress', value: progress } },
  });
};
setInterval(() => {
  const next = wake;
  wake = Promise.withResolvers();
  next.resolve(event());
}, 100);

const routes = (router: ConnectRouter) =>
  router.service(JobService, {
    get({ jobId }) {
      const found = jobs.get(jobId);
      if (!found) throw new ConnectError(`no job ${jobId}`, Code.NotFound);
      return found;
    },
    async *watch(_request, { signal }) {
      while (!signal.aborted) yield await wake.promise;
    },
  });

const server = http2.createServer({ settings: { maxConcurrentStreams: 1000 } }, connectNodeAdapter({ routes }));
server.listen(0, '127.0.0.1', () => sayPort(server));
