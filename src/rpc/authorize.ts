// Who may make a call, before it runs, and what is noted of it after. Always true: a call whose caller was not found out when it came in is not
// served, unless its method is for everybody; a stream ends with the credential that opened it; what is audited is noted before it is answered.
import { Code, ConnectError, type HandlerContext, type Interceptor, type StreamResponse } from '@connectrpc/connect';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Caller } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { AuditEntry, Guard, Rule } from '../jobs/guard.ts';
import { uploadIdOf } from '../jobs/uploads.ts';
import { setRateHeaders, toConnectError } from './errors.ts';
import { type Call, callKey, codeName } from './interceptors.ts';

type AnyRequest = Parameters<ReturnType<Interceptor>>[0];
type AnyResponse = Awaited<ReturnType<ReturnType<Interceptor>>>;
type Next = ReturnType<Interceptor>;

/** The caller of a call. Throws where there is none, which is a defect of whoever let the call pass. */
export function callerOf(context: Pick<HandlerContext, 'values'>): Caller {
  return mustKnow(context.values.get(callKey)?.caller);
}

/** Throws UNAUTHENTICATED where there is no caller. */
export function mustKnow(caller: Caller | undefined): Caller {
  if (caller) return caller;
  throw new JobsError('unauthenticated', 'CREDENTIALS_MISSING', 'nobody knows who calls');
}

/** Throws PERMISSION_DENIED where the caller has not the scope that a rule asks for. */
export function assertMay(caller: Caller, { needs }: Rule): void {
  if (needs === 'public' || needs === 'any' || caller.identity.scopes.has(needs)) return;
  const { scopes } = caller.identity;
  const has = scopes.size > 0 ? `has ${[...scopes].join(', ')}` : 'has none';
  throw new JobsError('denied', 'SCOPE_MISSING', `this needs the scope '${needs}', and your credential ${has}`, {
    metadata: { scope: needs },
  });
}

export function authorize(guard: Guard): Interceptor {
  return (next) => (request) => {
    const rule = guard.ruleOf(request.method);
    if (rule.needs === 'public') return next(request);
    let caller: Caller;
    const call = request.contextValues.get(callKey);
    try {
      caller = mustKnow(call?.caller);
      assertMay(caller, rule);
      if (rule.audited) guard.assertNotable();
    } catch (error) {
      const entry = entryOf(request, call, error);
      guard.noteRefusal(entry, entry.actor ?? entry.address ?? 'unknown');
      return Promise.reject(error);
    }
    // Most calls: a unary read.
    if (!request.stream && !rule.audited) return next(request);
    if (!request.stream) return unary(guard, rule, caller, next, request);
    return stream(guard, rule, caller, next, request);
  };
}

async function unary(
  guard: Guard,
  rule: Rule,
  caller: Caller,
  next: Next,
  request: AnyRequest & { readonly stream: false },
): Promise<AnyResponse> {
  const call = request.contextValues.get(callKey);
  try {
    const left = rule.submits && (await guard.submit(caller, rule.submits(request.message)));
    const response = await next(request);
    if (left) setRateHeaders(response.header, { limit: left.limit, remaining: left.remaining, reset: left.resetSeconds });
    if (guard.notes && !response.stream) {
      for (const entry of entriesOf(request, entryOf(request, call, undefined, response.message))) await guard.note(entry);
    }
    return response;
  } catch (error) {
    guard.noteRefusal(entryOf(request, call, error), caller.identity.kind === 'anonymous' ? caller.address : caller.identity.name);
    throw error;
  }
}

async function stream(
  guard: Guard,
  rule: Rule,
  caller: Caller,
  next: Next,
  request: AnyRequest & { readonly stream: true },
): Promise<AnyResponse> {
  const call = request.contextValues.get(callKey);
  const note = async (error: unknown, last?: unknown) => {
    if (rule.audited) await guard.note(entryOf(request, call, error, last));
  };
  const ending = new AbortController();
  const release = guard.hold(caller.identity, (reason) => ending.abort(toConnectError(reason, () => {})));
  const forgets = caller.identity.kind === 'anonymous';
  try {
    // A copy of the request costs more than all the rest here; whose identity does not end needs none.
    const passed = forgets
      ? request
      : {
          ...request,
          signal: AbortSignal.any([request.signal, ending.signal]),
          message: until(request.message as AsyncIterable<unknown>, ending.signal),
        };
    const response = (await next(passed as AnyRequest)) as StreamResponse;
    return withMessages(response, lasting(response.message, ending.signal, release, note));
  } catch (error) {
    release();
    const told = ending.signal.aborted ? ending.signal.reason : error;
    await note(told);
    throw told;
  }
}

/** What a caller sends, while it may: also one that sends nothing is told when its credential ends. */
async function* until<T>(messages: AsyncIterable<T>, ending: AbortSignal): AsyncGenerator<T> {
  const { promise: ended, reject } = Promise.withResolvers<never>();
  ended.catch(() => {});
  const end = () => reject(ending.reason);
  ending.addEventListener('abort', end, { once: true });
  const inner = messages[Symbol.asyncIterator]();
  let over = false;
  try {
    for (;;) {
      const result = await Promise.race([inner.next(), ended]);
      over = result.done === true;
      if (result.done) return;
      yield result.value;
    }
  } finally {
    ending.removeEventListener('abort', end);
    // Not waited for: it may be waiting for bytes that never come.
    if (!over) inner.return?.()?.then(undefined, () => {});
  }
}

function withMessages({ service, method, header, trailer }: StreamResponse, message: AsyncIterable<unknown>): StreamResponse {
  return { stream: true, service, method, header, trailer, message } as StreamResponse;
}

/** The messages, until the credential ends; `note` is told once how it went. */
function lasting<T>(
  messages: AsyncIterable<T>,
  ending: AbortSignal,
  release: () => void,
  note: (error: unknown, last?: unknown) => Promise<void>,
): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const inner = messages[Symbol.asyncIterator]();
      let last: T | undefined;
      let over = false;
      const end = async (error: unknown) => {
        release();
        if (over) return;
        over = true;
        await note(error, last);
      };
      return {
        async next() {
          try {
            const result = await inner.next();
            if (ending.aborted) throw ending.reason;
            if (result.done) await end(undefined);
            else last = result.value;
            return result;
          } catch (error) {
            const told = ending.aborted ? ending.reason : error;
            await end(told);
            throw told;
          }
        },
        async return(value) {
          await end(new ConnectError('the client has left', Code.Canceled));
          return (await inner.return?.(value)) ?? { done: true, value: undefined };
        },
      };
    },
  };
}

/** Notes what is done over routes that are no rpc: each request that changes something, when it has been answered. */
export function noteRoutes(app: FastifyInstance, guard: Guard, callerOf: (request: FastifyRequest) => Caller | undefined): void {
  app.addHook('onResponse', (request, reply, done) => {
    const caller = callerOf(request);
    if (caller && (request.method === 'POST' || request.method === 'DELETE')) {
      const { identity, address } = caller;
      const outcome = reply.statusCode < 400 ? 'ok' : `http_${reply.statusCode}`;
      const action = `${request.method} ${request.routeOptions.url ?? ''}`;
      const entry: AuditEntry = { action, tenant: identity.tenant, actor: identity.name, address, outcome, request_id: request.id };
      if (reply.statusCode < 400) void guard.note(entry);
      else guard.noteRefusal(entry, identity.kind === 'anonymous' ? address : identity.name);
    }
    done();
  });
}

type Facts = { -readonly [K in 'job_id' | 'batch_id' | 'upload_id' | 'key_id' | 'node' | 'slot' | 'attestation']?: string };

/** What is kept of a call. Ids and the statement of consent are all that is taken from its messages. */
function entryOf(request: AnyRequest, call: Call | undefined, error: unknown, answer?: unknown): AuditEntry {
  const facts: Facts = {};
  if (!request.stream) {
    collect(request.message, facts);
    collectPlace(request.message, facts);
  }
  collect(answer, facts);
  const caller = call?.caller;
  const failure = error === undefined ? undefined : toConnectError(error, () => {});
  return {
    action: `${request.service.name}/${request.method.name}`,
    tenant: caller?.identity.tenant,
    actor: caller?.identity.name,
    address: caller?.address,
    outcome: failure ? codeName(failure.code) : 'ok',
    reason: error instanceof JobsError ? error.reason : undefined,
    ...facts,
    request_id: call?.id,
  };
}

/** The entry of a call; of a batch, one for each statement of consent in it, so that no line of the log grows with the batch. */
function entriesOf({ message }: AnyRequest & { readonly stream: false }, entry: AuditEntry): AuditEntry[] {
  const { jobs } = message as { readonly jobs?: readonly { readonly job?: { readonly attestation?: string } }[] };
  if (!Array.isArray(jobs)) return [entry];
  const places = new Map<string, number[]>();
  for (const [i, { job }] of jobs.entries()) {
    if (!job?.attestation) continue;
    const known = places.get(job.attestation);
    if (known) known.push(i);
    else places.set(job.attestation, [i]);
  }
  if (places.size === 0) return [entry];
  return [...places].map(([attestation, attested_jobs]) => ({ ...entry, attestation, attested_jobs }));
}

/** Of a request alone: jobs have a slot too. */
function collectPlace(message: object, facts: Facts): void {
  const { node, slot } = message as Record<string, unknown>;
  if (typeof node !== 'string' || node === '') return;
  facts.node = node;
  if (typeof slot === 'string' && slot !== '') facts.slot = slot;
}

function collect(message: unknown, facts: Facts): void {
  if (typeof message !== 'object' || message === null) return;
  const { jobId, batchId, keyId, uri, job, batch, key, delivery, attestation } = message as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);
  facts.job_id = text(jobId) ?? facts.job_id;
  facts.batch_id = text(batchId) ?? facts.batch_id;
  facts.key_id = text(keyId) ?? facts.key_id;
  facts.upload_id = (text(uri) && uploadIdOf(uri as string)) ?? facts.upload_id;
  facts.attestation = text(attestation) ?? facts.attestation;
  for (const inner of [job, batch, key, delivery]) collect(inner, facts);
}
