// Loaded into a service before anything else (`node --import`): its clock by the wall jumps when SIGUSR2 comes, to the milliseconds ahead that the file
// CHAOS_CLOCK holds. The monotonic clock and timers go on as they are, as when somebody sets a machine's time.
import { readFileSync } from 'node:fs';

const file = process.env.CHAOS_CLOCK;
const Real = Date;
let ahead = 0;

const learn = () => {
  try {
    ahead = Number(readFileSync(file!, 'utf8')) || 0;
  } catch {
    ahead = 0;
  }
};

if (file !== undefined) {
  learn();
  process.on('SIGUSR2', learn);
  const now = () => Real.now() + ahead;
  globalThis.Date = new Proxy(Real, {
    construct: (target, args, as) => Reflect.construct(target, args.length === 0 ? [now()] : args, as === globalThis.Date ? target : as),
    apply: () => new Real(now()).toString(),
    get: (target, name, as) => (name === 'now' ? now : Reflect.get(target, name, as)),
  });
}
