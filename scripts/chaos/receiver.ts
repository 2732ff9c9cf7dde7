// Who is told of the ends of jobs. It answers as receivers do: mostly well, now and then with an error, late, or by hanging up. Always true here: what was
// delivered is what was answered well, and all that arrived is signed.
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Webhook } from 'standardwebhooks';
import type { Random } from '../random.ts';
import { isEnded, type JobWords, Violation } from './calls.ts';

export const SECRET = `whsec_${Buffer.from('of the chaos rounds, and of nothing else').toString('base64')}`;

const SIGNER = new Webhook(SECRET);

interface Delivery {
  readonly id: string;
  readonly status: string;
  delivered: boolean;
}

export class Receiver implements AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** By job, each delivery once, in the order of their first arrivals. */
  readonly #got: Map<string, Delivery[]>;
  readonly #problems: string[];
  readonly #close: () => void;

  private constructor(port: number, got: Map<string, Delivery[]>, problems: string[], close: () => void) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}/told`;
    this.#got = got;
    this.#problems = problems;
    this.#close = close;
  }

  static async start(random: Random): Promise<Receiver> {
    const got = new Map<string, Delivery[]>();
    const problems: string[] = [];
    const server = createServer(async (request, response) => {
      const body = await bodyOf(request).catch(() => undefined);
      if (body === undefined) return;
      const taken = take(got, problems, request, body);
      const how = random.weighted([
        ['well', 80],
        ['error', 8],
        ['late', 8],
        ['hang up', 4],
      ] as const);
      if (how === 'error') return void response.writeHead(503).end();
      if (how === 'hang up') return void response.destroy();
      if (how === 'late') await delay(random.int(200, 2000));
      if (taken) taken.delivered = true;
      response.writeHead(204).end();
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const close = () => {
      server.closeAllConnections();
      server.close();
    };
    return new Receiver((server.address() as AddressInfo).port, got, problems, close);
  }

  /** Throws a `Violation` for what must not arrive. Answers what has not arrived yet. */
  check(ended: ReadonlyMap<string, JobWords>, told: ReadonlySet<string>): string | undefined {
    if (this.#problems.length > 0) throw new Violation(this.#problems.join('; '));
    const waited: string[] = [];
    for (const jobId of told) {
      const deliveries = this.#got.get(jobId) ?? [];
      const end = deliveries.findIndex(({ status }) => isEnded(status));
      const final = ended.get(jobId)!.status;
      if (end === -1 || !deliveries[end]!.delivered) {
        waited.push(jobId);
        continue;
      }
      if (deliveries[end]!.status !== final)
        throw new Violation(`${jobId} is ${final}, and its receiver was told ${deliveries[end]!.status}`);
      if (end !== deliveries.length - 1) {
        const after = deliveries.slice(end + 1).map(({ id, status }) => `${status} (${id})`);
        throw new Violation(`${jobId}: after its end (${deliveries[end]!.id}) its receiver was told ${after.join(', ')}`);
      }
    }
    return waited.length > 0 ? `the receiver was not told of the ends of ${waited.join(', ')}` : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }
}

function take(got: Map<string, Delivery[]>, problems: string[], request: IncomingMessage, body: string): Delivery | undefined {
  const id = String(request.headers['webhook-id']);
  // Clocks jump here, so that the age of a signature says nothing: only the signature is looked at.
  const at = new Date(Number(request.headers['webhook-timestamp']) * 1000);
  if (request.headers['webhook-signature'] !== SIGNER.sign(id, at, body)) {
    problems.push(`webhook ${id} is not signed rightly`);
    return undefined;
  }
  const { data: job } = JSON.parse(body) as { data: JobWords };
  const before = got.get(job.job_id) ?? [];
  const again = before.find((one) => one.id === id);
  if (again) {
    if (again.status !== job.status) problems.push(`webhook ${id} of ${job.job_id} said ${again.status}, and says ${job.status}`);
    return again;
  }
  const delivery = { id, status: job.status, delivered: false };
  const last = before.at(-1);
  // The next comes when the one before is delivered.
  if (last && !last.delivered) problems.push(`webhook ${id} of ${job.job_id} came before ${last.id} was delivered`);
  got.set(job.job_id, [...before, delivery]);
  return delivery;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request) body += chunk;
  return body;
}
