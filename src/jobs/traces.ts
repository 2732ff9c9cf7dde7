// A port to traces: where in somebody's trace a call or a job's stay is. Nobody has to have one; where it is undefined nothing is traced and nothing costs.

export type TraceFacts = Readonly<Record<string, string | number | boolean | undefined>>;

/** Some work with a beginning and an end. Times in milliseconds since 1970; undefined: now. */
export interface Span {
  /** As W3C Trace Context writes it, to be handed on. */
  readonly traceparent: string;
  /** 32 hex digits, for logs. */
  readonly traceId: string;
  child(name: string, facts?: TraceFacts, startMs?: number): Span;
  /** Once. `failure`: a stable reason; undefined: it went well. */
  end(facts?: TraceFacts, failure?: string): void;
}

export interface Traces {
  /** A call, in the trace that its headers name, or in one of its own. */
  call(headers: Readonly<Record<string, string | string[] | undefined>>): Span & { name(endpoint: string): void };
  /** What a node does for a job: in the trace of the call that submitted it, and linked to that call across the queue. */
  job(traceparent: string, facts: TraceFacts, startMs?: number): Span;
}
