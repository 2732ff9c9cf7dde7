// What of a fleet's nodes was taken out of service, by whom, and why; and the port that keeps it. Always true: a slot is out or in by what is kept alone, so that
// every process of a fleet says the same of it, and what is out stays out, as it was said first, until it is put back.

/** What is taken out or put back. */
export interface Place {
  readonly node: string;
  /** Undefined: all of the node. */
  readonly slot: string | undefined;
}

export interface Drain {
  /** As in `submitted_by`. */
  readonly by: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** In their words; may be empty. */
  readonly reason: string;
}

/** Of one node. As it is kept, in JSON. */
export interface NodeDrains {
  /** Everything is out but what `slots` says otherwise. */
  readonly whole?: Drain | undefined;
  /** By the slot's name; null: it is in, though the rest is out. */
  readonly slots: Readonly<Record<string, Drain | null>>;
}

/** Where it is kept, beside the jobs. */
export interface DrainStore {
  /** By node; one of which nothing is out is not there. */
  all(): Promise<ReadonlyMap<string, NodeDrains>>;
  /**
   * Durable, atomic: what of `node` is out becomes what `step` makes of it; undefined: nothing is. `step` has no effects: it is asked anew where another
   * process has changed it meanwhile.
   */
  change(node: string, step: (now: NodeDrains | undefined) => NodeDrains | undefined): Promise<void>;
  /** Called when something may have changed, by whichever process. A call may be missed: whoever needs to know looks by itself too. */
  onChange: () => void;
}

/** Why a slot is out; undefined: it is in. */
export function drainOf(now: NodeDrains | undefined, slot: string): { readonly drain: Drain; readonly wholeNode: boolean } | undefined {
  if (!now) return undefined;
  const own = Object.hasOwn(now.slots, slot) ? now.slots[slot] : undefined;
  if (own) return { drain: own, wholeNode: false };
  return own === undefined && now.whole ? { drain: now.whole, wholeNode: true } : undefined;
}

/** With a slot out; `slot` undefined: all of the node. */
export function drained(now: NodeDrains | undefined, slot: string | undefined, drain: Drain): NodeDrains {
  const { whole, slots } = now ?? { slots: {} };
  if (slot !== undefined) return drainOf(now, slot) ? now! : { whole, slots: { ...slots, [slot]: drain } };
  // Those that were put back by themselves go out for the new reason, and not for the one that the rest is out for.
  const again = Object.entries(slots).map(([name, own]) => [name, own ?? drain]);
  return { whole: whole ?? drain, slots: Object.fromEntries(again) };
}

/** With a slot back; `slot` undefined: all of the node. `known`: the slots that the node has, as far as anybody knows. Undefined: nothing is out. */
export function restored(now: NodeDrains | undefined, slot: string | undefined, known: readonly string[]): NodeDrains | undefined {
  if (!now || slot === undefined) return undefined;
  const { [slot]: _, ...others } = now.slots;
  const next: NodeDrains = { whole: now.whole, slots: now.whole ? { ...others, [slot]: null } : others };
  const nothing = now.whole ? known.length > 0 && known.every((name) => !drainOf(next, name)) : Object.keys(others).length === 0;
  return nothing ? undefined : next;
}
