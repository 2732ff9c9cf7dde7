// One try of a delivery over HTTP. Always true here: what connects is judged by the caller's connector at the socket, no redirect is followed, and
// of an answer no more is read than tells that it is over.
import { Agent, type buildConnector, request } from 'undici';

export interface SenderOptions {
  /** Connects to what may be reached, and to nothing else. */
  readonly connect: buildConnector.connector;
  /** For the whole try. */
  readonly timeoutMs: number;
  /** Connections to one host. */
  readonly perHost: number;
}

export type Sent =
  | { readonly ok: true }
  /** `gone`: the receiver wants nothing any more. */
  | {
      readonly ok: false;
      readonly kind: 'status' | 'redirect' | 'timeout' | 'refused' | 'network' | 'internal';
      readonly error: string;
      readonly gone: boolean;
    };

const MAX_ANSWER_BYTES = 16 * 1024;

export class Sender implements AsyncDisposable {
  readonly #agent: Agent;
  readonly #timeoutMs: number;

  constructor({ connect, timeoutMs, perHost }: SenderOptions) {
    this.#timeoutMs = timeoutMs;
    this.#agent = new Agent({ connect, connections: perHost, maxHeaderSize: 16 * 1024, keepAliveTimeout: 4_000 });
  }

  async send(url: string, headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal): Promise<Sent> {
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    try {
      const answer = await request(url, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json', 'user-agent': 'facefusion-jobs' },
        body,
        dispatcher: this.#agent,
        signal: AbortSignal.any([signal, timeout]),
      });
      const { statusCode } = answer;
      // A receiver that never ends its answer has answered all the same.
      await answer.body.dump({ limit: MAX_ANSWER_BYTES, signal: AbortSignal.any([signal, timeout]) }).catch(() => answer.body.destroy());
      if (statusCode >= 200 && statusCode < 300) return { ok: true };
      if (statusCode >= 300 && statusCode < 400) {
        return {
          ok: false,
          kind: 'redirect',
          error: `it answered ${statusCode}: redirects are not followed, give the final URL`,
          gone: false,
        };
      }
      return { ok: false, kind: 'status', error: `it answered ${statusCode}`, gone: statusCode === 410 };
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (timeout.aborted) return { ok: false, kind: 'timeout', error: `no answer within ${this.#timeoutMs / 1000} s`, gone: false };
      const cause = (error as Error).cause ?? error;
      const refused = (cause as Error).name === 'HostNotAllowed' || (error as Error).name === 'HostNotAllowed';
      const { code, message } = cause as NodeJS.ErrnoException;
      return { ok: false, kind: refused ? 'refused' : 'network', error: refused ? message : (code ?? message), gone: false };
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#agent.destroy();
  }
}
