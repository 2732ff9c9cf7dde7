// Where every request comes in: who calls is found out here, before anything of a body is read. Always true: what is not for everybody goes on
// with its caller or not at all; who is known is served in the same turn.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DescService } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Caller } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { Guard } from '../jobs/guard.ts';
import type { ErrorAnswer } from '../rest/errors.ts';
import { toConnectError } from './errors.ts';
import { codeName } from './interceptors.ts';
import { refuse } from './refusal.ts';
import type { RequestCall } from './requests.ts';

export interface EntranceOptions {
  readonly guard: Pick<Guard, 'identify' | 'addressOf' | 'noteRefusal' | 'ruleOf'>;
  readonly services: readonly DescService[];
  /** Everything below it is asked for an identity, but for `openPaths`. */
  readonly prefix: string;
  readonly openPaths: readonly string[];
  /** What an error is answered with where no protocol of rpcs is spoken. */
  readonly answerOf: (error: unknown) => ErrorAnswer;
  readonly log: Logger;
}

/** Calls `serve` once the caller is known, or answers the request. */
export type Entrance = (request: IncomingMessage, response: ServerResponse, call: RequestCall, serve: () => void) => void;

/** Throws where a method has no rule. */
export function createEntrance({ guard, services, prefix, openPaths, answerOf, log }: EntranceOptions): Entrance {
  const guarded = new Set(
    services.filter(({ methods }) => methods.some((method) => guard.ruleOf(method).needs !== 'public')).map(({ typeName }) => typeName),
  );
  const exact = new Set(openPaths.filter((path) => !path.endsWith('/')));
  const below = openPaths.filter((path) => path.endsWith('/'));

  function isForEverybody(url: string): boolean {
    if (url.startsWith(`${prefix}/`)) return exact.has(pathOf(url)) || below.some((path) => url.startsWith(path));
    // What is nobody's path here may be anything; the routes that need a caller look for one themselves.
    return url.startsWith('/') && !guarded.has(url.slice(1, url.indexOf('/', 1)));
  }

  function refused(request: IncomingMessage, response: ServerResponse, call: RequestCall, error: unknown): void {
    const mapped = toConnectError(error, (err, reference) => {
      if (reference !== undefined) call.failed = true;
      log.error({ err, reference, request_id: call.id }, 'the caller could not be found out');
    });
    call.code = codeName(mapped.code);
    const { headers, method, socket, url = '/' } = request;
    const address = guard.addressOf(headers, socket);
    const reason = error instanceof JobsError ? error.reason : undefined;
    guard.noteRefusal({ action: `${method} ${pathOf(url)}`, address, outcome: call.code, reason, request_id: call.id }, address);
    if (response.destroyed) return;
    refuse(request, response, mapped, {
      isRpc: guarded.has(url.slice(1, url.indexOf('/', 1))),
      always: call.headers,
      rest: answerOf(mapped),
    });
  }

  return (request, response, call, serve) => {
    if (isForEverybody(request.url ?? '/')) return serve();
    let caller: Caller | Promise<Caller>;
    try {
      caller = guard.identify(request.headers, request.socket);
    } catch (error) {
      return refused(request, response, call, error);
    }
    const admit = (known: Caller) => {
      call.caller = known;
      serve();
    };
    if (!(caller instanceof Promise)) return admit(caller);
    caller.then(
      (known) => {
        if (!response.destroyed) admit(known);
      },
      (error) => refused(request, response, call, error),
    );
  };
}

/** Without the query, where a signature could be. */
function pathOf(url: string): string {
  const mark = url.indexOf('?');
  return mark < 0 ? url : url.slice(0, mark);
}
