// Staying connected. Always true: a stream that breaks, sleeps or loses its server is opened again from where it was, by who follows it; what
// the page shows as connected is. A hidden page lets go of its streams after a while, because a browser has few connections to one server.
import { Code, ConnectError } from '@connectrpc/connect';
import { computed, effect, type Signal, signal } from '@preact/signals';
import { isPassing } from './errors.ts';
import { key, keyWanted } from './key.ts';

export type Link =
  | { readonly state: 'connecting' | 'live' }
  /** Times in milliseconds since 1970. */
  | { readonly state: 'lost'; readonly since: number; readonly retryAt: number };

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const HIDDEN_MS = 15_000;
const TICK_MS = 5_000;

/** Everything that is followed now. */
const links = signal<readonly Signal<Link>[]>([]);

/** The worst of them. */
export const link = computed<Link>(() => {
  const all = links.value.map((one) => one.value);
  return all.find((one) => one.state === 'lost') ?? all.find((one) => one.state === 'connecting') ?? { state: 'live' };
});

/** `again`: streams are to be opened anew now. `visible`: a hidden page may follow again. */
const wake = new EventTarget();

/** Tries everything again at once. */
export function reconnect(): void {
  wake.dispatchEvent(new Event('again'));
}

export const visible = signal(!document.hidden);

/** Notices sleep, hidden pages and the network's return. Called once. */
export function startLinks(): void {
  let hiding: ReturnType<typeof setTimeout> | undefined;
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => setVisible(false), HIDDEN_MS);
    else setVisible(true);
  });
  addEventListener('online', reconnect);
  let last = Date.now();
  setInterval(() => {
    // Timers stand still while a machine sleeps, and connections are dead after it without a word.
    if (Date.now() - last > 4 * TICK_MS && !document.hidden) reconnect();
    last = Date.now();
  }, TICK_MS);
}

function setVisible(next: boolean): void {
  visible.value = next;
}

/** One run of a stream: ends when the stream does. Calls `alive` as soon as the service has answered. */
export type Run = (signal: AbortSignal, alive: () => void) => Promise<'done' | 'again'>;

/**
 * Runs a stream until it is done or `signal` is aborted, over losses of any kind. Throws what no repetition mends. A refused key waits for
 * another one.
 */
export async function follow(run: Run, signal: AbortSignal): Promise<void> {
  const own = signalOf({ state: 'connecting' } as Link);
  links.value = [...links.value, own];
  let waitMs = FIRST_WAIT_MS;
  try {
    while (!signal.aborted) {
      await until(() => visible.value, signal);
      const attempt = new AbortController();
      const stop = linked(signal, attempt);
      const again = () => attempt.abort();
      wake.addEventListener('again', again);
      const unwatch = effect(() => {
        if (!visible.value) attempt.abort();
      });
      try {
        const alive = () => {
          own.value = { state: 'live' };
          waitMs = FIRST_WAIT_MS;
        };
        if ((await run(attempt.signal, alive)) === 'done') return;
        // A stream that ends before its time: the server has been told to stop.
        if (!attempt.signal.aborted) throw new ConnectError('the stream ended', Code.Unavailable);
      } catch (error) {
        if (signal.aborted) return;
        if (attempt.signal.aborted) continue;
        if (ConnectError.from(error).code === Code.Unauthenticated) {
          await until(() => keyWanted.value === undefined, signal);
          continue;
        }
        if (!isPassing(error)) throw error;
        const since = own.value.state === 'lost' ? own.value.since : Date.now();
        // Apart from each other, so that a server that comes back is not met by all at once.
        const ms = waitMs * (0.75 + Math.random() / 2);
        own.value = { state: 'lost', since, retryAt: Date.now() + ms };
        waitMs = Math.min(LONGEST_WAIT_MS, waitMs * 2);
        await pause(ms, signal);
      } finally {
        stop();
        unwatch();
        wake.removeEventListener('again', again);
      }
    }
  } finally {
    links.value = links.value.filter((one) => one !== own);
  }
}

export interface WatchProblem {
  readonly notFound: boolean;
  readonly error: unknown;
}

/** Follows as `follow` does; the signal tells what no repetition mends. */
export function followed(run: Run, stop: AbortSignal): Signal<WatchProblem | undefined> {
  const problem = signalOf<WatchProblem | undefined>(undefined);
  follow(run, stop).catch((error: unknown) => {
    problem.value = { notFound: ConnectError.from(error).code === Code.NotFound, error };
  });
  return problem;
}

/** Calls `ask` now and every `everyMs` while the page is visible. A failure to reach the service makes all streams look whether they live. */
export async function poll(everyMs: number, ask: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
  let failed = false;
  await follow(async (attempt, alive) => {
    while (true) {
      try {
        await ask(AbortSignal.any([attempt, AbortSignal.timeout(10_000)]));
      } catch (error) {
        if (!attempt.aborted && !failed && isPassing(error)) {
          failed = true;
          queueMicrotask(reconnect);
        }
        throw error;
      }
      failed = false;
      alive();
      await pause(everyMs, attempt);
      if (attempt.aborted) return 'again';
    }
  }, signal);
}

function signalOf<T>(value: T): Signal<T> {
  return signal(value);
}

/** Aborts `inner` with `outer`; answers how to let go. */
function linked(outer: AbortSignal, inner: AbortController): () => void {
  const abort = () => inner.abort();
  if (outer.aborted) abort();
  outer.addEventListener('abort', abort);
  return () => outer.removeEventListener('abort', abort);
}

/** Resolves when `test` holds, or with the signal. */
function until(test: () => boolean, stop: AbortSignal): Promise<void> {
  if (test() || stop.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      unwatch();
      stop.removeEventListener('abort', end);
      resolve();
    };
    // Read in the effect, so that it runs again with what is read.
    const unwatch = effect(() => {
      if (test()) queueMicrotask(end);
    });
    stop.addEventListener('abort', end);
  });
}

/** Waits; ends early with the signal or when everything is to be tried again. */
function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      stop.removeEventListener('abort', end);
      wake.removeEventListener('again', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    stop.addEventListener('abort', end);
    wake.addEventListener('again', end);
    if (stop.aborted) end();
  });
}

// A key that was changed opens everything anew.
let before = key.value;
effect(() => {
  if (key.value === before) return;
  before = key.value;
  queueMicrotask(reconnect);
});
