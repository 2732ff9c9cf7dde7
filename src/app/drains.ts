// What of the fleet is out of service, as this process knows it, and how that is changed. Always true: what is answered comes from memory, and until the store has
// said it once nothing of this node is offered; a change that was answered is on the disk, and heeded here.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type Node, NodeSchema, type Slot, type Slot_Drain, Slot_DrainSchema } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { type DrainStore, drained, drainOf, type NodeDrains, type Place, restored } from '../jobs/drains.ts';
import { JobsError } from '../jobs/errors.ts';

export interface DrainsOptions {
  readonly store: DrainStore;
  /** Told of what people want to find in the log. */
  readonly log: { info(facts: object, message: string): void };
  /** Told when the store cannot be asked; asked again by whoever asks now and then. */
  readonly onError: (error: unknown) => void;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

export class Drains {
  /** Called after each look at the store. */
  onChange: () => void = () => {};
  readonly #options: DrainsOptions;
  #known: ReadonlyMap<string, NodeDrains> | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: DrainsOptions) {
    this.#options = options;
    options.store.onChange = () => void this.look();
  }

  /** Asks the store; what was asked for later is heeded later. Never rejects. */
  look(): Promise<void> {
    this.#looking = this.#looking.then(async () => {
      try {
        this.#known = await this.#options.store.all();
        this.onChange();
      } catch (error) {
        this.#options.onError(error);
      }
    });
    return this.#looking;
  }

  isOffered({ node, slot }: { readonly node: string; readonly slot: string }): boolean {
    return this.#known !== undefined && drainOf(this.#known.get(node), slot) === undefined;
  }

  /** A slot as its node has told of it, with what is known here. */
  shown(slot: Slot): Slot {
    const found = drainOf(this.#known?.get(slot.node), slot.slot);
    return found ? { ...slot, draining: true, drain: messageOf(found) } : slot;
  }

  /** Nodes that are not `there` and of which something is out: nobody would see it otherwise. */
  away(there: ReadonlySet<string>): Node[] {
    return [...(this.#known ?? [])]
      .filter(([node]) => !there.has(node))
      .map(([node, { whole, slots }]) => {
        const drain = whole ?? Object.values(slots).find((one) => one !== null)!;
        return create(NodeSchema, { node, away: true, drain: messageOf({ drain, wholeNode: whole !== undefined }) });
      });
  }

  /** `known`: all slots of the fleet, of which the place must be one. Throws NODE_NOT_FOUND or SLOT_NOT_FOUND where it is not. */
  async drain(place: Place, why: { readonly by: string; readonly reason: string }, known: readonly Slot[]): Promise<void> {
    assertThere(place, known);
    const { store, log, now = Date.now } = this.#options;
    const drain = { ...why, atMs: now() };
    await store.change(place.node, (is) => drained(is, place.slot, drain));
    log.info({ ...place, ...why }, `${wordsOf(place)} is taken out of service by ${why.by}${why.reason && `: ${why.reason}`}`);
    await this.look();
  }

  /** As `drain`; a node that is not there may be put back too, if something of it is out. */
  async restore(place: Place, by: string, known: readonly Slot[]): Promise<void> {
    const { store, log } = this.#options;
    await this.look();
    if (!this.#known?.has(place.node)) assertThere(place, known);
    const slots = known.filter(({ node }) => node === place.node).map(({ slot }) => slot);
    if (place.slot !== undefined && slots.length > 0) assertThere(place, known);
    await store.change(place.node, (is) => restored(is, place.slot, slots));
    log.info({ ...place, by }, `${wordsOf(place)} is put back into service by ${by}`);
    await this.look();
  }
}

function messageOf({ drain: { by, atMs, reason }, wholeNode }: NonNullable<ReturnType<typeof drainOf>>): Slot_Drain {
  return create(Slot_DrainSchema, { by, at: timestampFromMs(atMs), reason, wholeNode });
}

function wordsOf({ node, slot }: Place): string {
  return slot === undefined ? `the node ${node}` : `the slot ${node}/${slot}`;
}

/** How many names an error lists. */
const LISTED = 10;

function assertThere({ node, slot }: Place, known: readonly Slot[]): void {
  const own = known.filter((one) => one.node === node);
  if (own.length === 0)
    throw notFound('NODE_NOT_FOUND', `there is no node '${node}'`, [...new Set(known.map((one) => one.node))], { node });
  if (slot === undefined || own.some((one) => one.slot === slot)) return;
  const names = own.map((one) => one.slot);
  throw notFound('SLOT_NOT_FOUND', `the node ${node} has no slot '${slot}'`, names, { node, slot });
}

function notFound(
  reason: 'NODE_NOT_FOUND' | 'SLOT_NOT_FOUND',
  what: string,
  names: readonly string[],
  metadata: Readonly<Record<string, string>>,
): JobsError {
  const listed = names.slice(0, LISTED).join(', ') + (names.length > LISTED ? ` and ${names.length - LISTED} more` : '');
  return new JobsError('not_found', reason, `${what}; there ${names.length === 1 ? 'is' : 'are'} ${listed || 'none now'}`, { metadata });
}
