// What a load generator can be asked to do, as plain data: it crosses a process boundary. One generator does one task at a time.

export type Request =
  | {
      readonly protocol: 'http';
      readonly method: string;
      readonly path: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
      readonly status: number;
      /** Says that the server is not free yet: asked again a millisecond later, and the wait is the call's. */
      readonly busyStatus?: number;
      /** Must occur in the body; unset: the body is not looked at. */
      readonly contains?: string;
    }
  | {
      readonly protocol: 'grpc';
      /** `/package.Service/Method`. */
      readonly path: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly message: Uint8Array;
    };

/** Closed loop: `inFlight` requests at any time over `connections`, for `seconds`, or until `count` are done. */
export interface Calls {
  readonly kind: 'calls';
  readonly port: number;
  readonly request: Request;
  readonly connections: number;
  readonly inFlight: number;
  readonly seconds?: number;
  readonly count?: number;
  /** Between an answer and the next request; default none. */
  readonly pauseMs?: number;
}

export interface CallsDone {
  readonly calls: number;
  /** Answers other than the one expected; not among `calls`. */
  readonly errors: number;
  readonly firstError: string | undefined;
  readonly seconds: number;
  /** CPU seconds of the load generator itself. Near `seconds` it was the slower side, and the figure is its own. */
  readonly cpuSeconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** One submit after another on an idle service; each waits `pauseMs` after its answer. */
export interface Submits {
  readonly kind: 'submits';
  readonly port: number;
  readonly request: Request;
  readonly count: number;
  readonly pauseMs: number;
}

export interface SubmitsDone {
  /** `startNs`: CLOCK_MONOTONIC just before the request was written; `ackMs`: until its answer was read. */
  readonly submits: ReadonlyArray<{ readonly jobId: string; readonly startNs: bigint; readonly ackMs: number }>;
}

/** Opens watchers of one job and answers when each has had its first event. They stay open until `unwatch`. */
export interface Watch {
  readonly kind: 'watch';
  readonly port: number;
  readonly request: Request;
  readonly watchers: number;
  /** For gRPC: HTTP/2 connections that they share. SSE takes one connection each. */
  readonly connections: number;
  readonly timeoutMs: number;
}

/** What the open watchers get from now on, for `seconds`. */
export interface Deliveries {
  readonly kind: 'deliveries';
  readonly seconds: number;
}

export interface DeliveriesDone {
  readonly events: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** From the event's own time (the store's) to the watcher. Millisecond steps. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** From the moment the engine reported it, where the event says so. */
  readonly fromEngineP99Ms: number;
  /** Sequences missed without a word (`skipped_after`), over all watchers. */
  readonly holes: number;
  readonly watchersOpen: number;
}

export interface Unwatch {
  readonly kind: 'unwatch';
}

/** Opens connections that do nothing, and others that send next to nothing; each that the server ends is opened again, until `disperse`. */
export interface Crowd {
  readonly kind: 'crowd';
  readonly port: number;
  readonly idle: number;
  readonly slow: number;
  /** Of the slow ones, so that their bodies are waited for. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface Disperse {
  readonly kind: 'disperse';
}

export interface Dispersed {
  /** Connections that were there at the end. */
  readonly open: number;
  /** How often the server ended one. */
  readonly ended: number;
  /** How often one could not be opened. */
  readonly failed: number;
}

export type Task = Calls | Submits | Watch | Deliveries | Unwatch | Crowd | Disperse;

export interface Results {
  readonly calls: CallsDone;
  readonly submits: SubmitsDone;
  readonly watch: { readonly seconds: number };
  readonly deliveries: DeliveriesDone;
  readonly unwatch: null;
  readonly crowd: { readonly seconds: number };
  readonly disperse: Dispersed;
}
