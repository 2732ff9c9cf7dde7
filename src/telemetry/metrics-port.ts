// The port that shows the metrics. Always true: where there is a token, who has not got it is told nothing, and how long a wrong one took to be refused says
// nothing of the right one.
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Metrics } from './metrics.ts';

export interface MetricsPort {
  readonly host: string;
  readonly port: number;
  /** Whoever asks has to have it; undefined: whoever reaches the port may ask. */
  readonly token: string | undefined;
}

/** Rejects when the port cannot be had. */
export function serveMetrics(metrics: Metrics, { host, port, token }: MetricsPort): Promise<Server> {
  const right = token === undefined ? undefined : digestOf(`Bearer ${token}`);
  const mayAsk = ({ headers }: IncomingMessage) => right === undefined || timingSafeEqual(digestOf(headers.authorization ?? ''), right);
  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    request.resume();
    if (!mayAsk(request)) {
      answer(response, 401, 'send the token of the metrics as Authorization: Bearer ...\n', { 'www-authenticate': 'Bearer' });
    } else if (request.url?.replace(/\?.*$/s, '') !== '/metrics') answer(response, 404, 'metrics are at /metrics\n');
    else if (request.method !== 'GET' && request.method !== 'HEAD') {
      answer(response, 405, 'metrics are read with GET\n', { allow: 'GET, HEAD' });
    } else {
      metrics.scrape().then(
        ({ text, contentType }) => answer(response, 200, text, { 'content-type': contentType }),
        () => answer(response, 503, 'the metrics cannot be read now\n'),
      );
    }
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve(server);
    });
  });
}

function answer(response: ServerResponse, status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
  const standard = { 'content-type': 'text/plain', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' };
  response.writeHead(status, { ...standard, ...headers, 'content-length': Buffer.byteLength(text) }).end(text);
}

/** Of one length, whatever was sent. */
function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
