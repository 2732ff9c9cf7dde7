// The buffers of bodies that pass through are collected while they are young. V8 does not see how large they are when it decides about that, only that
// ever more stands outside of its heap, and then examines the whole heap: for each few ten megabytes of a body, at twice the processor time of the
// transfer itself, in which nobody else is served. Always true here: what is collected early is garbage and nothing else, and it costs by what lives
// among the youngest objects alone. Knows nothing of who passes what.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Between two collections. A heap that has been quiet for a while is examined whole after as little as twice this. */
const EVERY_BYTES = 4 << 20;

type Collect = (options: { readonly type: 'minor' }) => void;

let passed = 0;
let collect: Collect | undefined;

/** To be called with the length of each piece of a body that came in a buffer of its own. */
export function bytesPassed(bytes: number): void {
  passed += bytes;
  if (passed < EVERY_BYTES) return;
  passed = 0;
  collect ??= collector();
  collect({ type: 'minor' });
}

/** Contexts that are made while the flag is set have it; nobody else gets to see it. */
function collector(): Collect {
  setFlagsFromString('--expose-gc');
  try {
    return runInNewContext('gc') as Collect;
  } finally {
    setFlagsFromString('--no-expose-gc');
  }
}
