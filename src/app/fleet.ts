// The fleet as callers are shown it: this process's slots as they are, those of the other nodes as they last said, and the engines that there are.
// What is out of service is shown with them. Always true here: what is answered comes from memory; a job store that is away makes it old and not late.
import { create } from '@bufbuild/protobuf';
import { type Node, NodeSchema, type Slot } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Scheduler } from '../gpu/scheduler.ts';
import { isWarm } from '../gpu/worker.ts';
import type { Engine } from '../jobs/engine.ts';
import { JobsError } from '../jobs/errors.ts';
import type { NodeFacts, NodeRegistry } from '../jobs/ports.ts';
import type { Drains } from './drains.ts';
import type { Machine } from './machine.ts';

/** How often a node says how it is and asks how the others are; sooner when something changes. */
const EVERY_MS = 2_000;
const SOON_MS = 100;
/** While no engine has been heard of, nothing can be taken. */
const UNTIL_READY_MS = 250;
/** A node that has said nothing for so long is not shown. */
const TTL_MS = 10_000;

export interface FleetOptions {
  readonly node: string;
  /** Undefined: there are no others. */
  readonly nodes: NodeRegistry | undefined;
  readonly drains: Drains;
  /** Told when the registry cannot be read or written; the next try follows by itself. */
  readonly onError: (error: unknown) => void;
}

export class Fleet implements AsyncDisposable {
  /** Called after each change that `slots` shows. */
  onChange: () => void = () => {};
  readonly #options: FleetOptions;
  #local: Scheduler | undefined;
  #machine: Machine | undefined;
  #localKnown: Engine | undefined;
  #others: readonly NodeFacts[] = [];
  /** By name, as last heard of: an engine stays known while all of its workers are away. */
  readonly #engines = new Map<string, Engine>();
  /** The next exchange; `atMs` is monotonic. */
  #next: { readonly timer: NodeJS.Timeout; readonly atMs: number } | undefined;
  #exchanging: Promise<void> | undefined;
  /** The time for the next exchange came while one was under way, with something that it may not tell. */
  #late = false;
  #closed = false;

  constructor(options: FleetOptions) {
    this.#options = options;
    options.drains.onChange = () => {
      this.#local?.reconsiderOffers();
      this.onChange();
    };
  }

  /** The slots of this process, and what they run on. */
  attach(local: Scheduler, machine: Machine): void {
    this.#local = local;
    this.#machine = machine;
    local.onChange(() => {
      this.onChange();
      this.#soon();
    });
    this.#soon();
  }

  /** Asks once how the others are and what is out of service, then goes on doing so. */
  async start(): Promise<void> {
    await Promise.all([this.#exchange(), this.#options.drains.look()]);
  }

  /** Whether a slot of this process's node is to be given jobs. */
  isOffered(slot: string): boolean {
    const { node, drains } = this.#options;
    return drains.isOffered({ node, slot });
  }

  /** Those of this process. */
  ownSlots(): Slot[] {
    return (this.#local?.slots() ?? []).map((slot) => this.#options.drains.shown(slot));
  }

  slots(): Slot[] {
    return [...this.ownSlots(), ...this.#others.flatMap((node) => node.slots.map((slot) => this.#options.drains.shown(slot)))];
  }

  /** Those whose slots these are, then those that are away and of which something is out of service. */
  nodes(): Node[] {
    const there = new Map<string, Node>();
    if (this.#machine) there.set(this.#options.node, this.#machine.facts());
    // Several processes may be one node; one of them says for all.
    for (const { node, machine } of this.#others) if (!there.has(node)) there.set(node, machine ?? create(NodeSchema, { node }));
    return [...there.values(), ...this.#options.drains.away(new Set(there.keys()))];
  }

  /** Whether a worker is, here or elsewhere. Asked with each change, so it costs next to nothing. */
  get isWarm(): boolean {
    return (this.#local?.isWarm ?? false) || this.#others.some(({ slots }) => slots.some(({ state }) => isWarm(state)));
  }

  /** The engine of that name, or the one that most slots run; throws ENGINE_NOT_READY while there is none. */
  engine(wanted?: string): Engine {
    const local = this.localEngine();
    if (local && (wanted === undefined || wanted === local.name)) return local;
    const known = wanted === undefined ? undefined : this.#engines.get(wanted);
    if (known) return known;
    const slots = new Map<string, number>();
    for (const { engine, slots: its } of this.#others) if (engine) slots.set(engine.name, (slots.get(engine.name) ?? 0) + its.length);
    const [most] = [...slots].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
    const engine = (most && this.#engines.get(most[0])) ?? this.#engines.values().next().value;
    if (engine) return engine;
    const problem = this.slots().find((slot) => slot.problem)?.problem;
    throw new JobsError('unavailable', 'ENGINE_NOT_READY', `the engine is not ready yet${problem ? `: ${problem}` : ''}`, {
      retryAfterSeconds: 1,
    });
  }

  /** What this process's workers are; undefined: it has none, or none has said yet. */
  localEngine(): Engine | undefined {
    const facts = this.#local?.capabilities();
    if (facts?.capabilities) this.#localKnown = { name: facts.name, version: facts.version, capabilities: facts.capabilities };
    return this.#localKnown;
  }

  /** Some engine has been heard of. */
  get isReady(): boolean {
    return this.localEngine() !== undefined || this.#engines.size > 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#next?.timer);
    await this.#exchanging;
    if (this.#local) await this.#options.nodes?.withdraw().catch(this.#options.onError);
  }

  #soon(): void {
    this.#arm(SOON_MS);
  }

  /** Never later than it was to be: a node whose slots change all the time is to be heard of too. */
  #arm(ms: number): void {
    if (this.#closed || !this.#options.nodes) return;
    const atMs = performance.now() + ms;
    if (this.#next && this.#next.atMs <= atMs) return;
    clearTimeout(this.#next?.timer);
    const timer = setTimeout(() => void this.#exchange(), ms);
    timer.unref();
    this.#next = { timer, atMs };
  }

  #exchange(): Promise<void> {
    clearTimeout(this.#next?.timer);
    this.#next = undefined;
    this.#late = this.#exchanging !== undefined;
    this.#exchanging ??= this.#exchangeOnce()
      .catch(this.#options.onError)
      .finally(() => {
        this.#exchanging = undefined;
        this.#arm(this.#late ? SOON_MS : this.isReady ? EVERY_MS : UNTIL_READY_MS);
      });
    return this.#exchanging;
  }

  async #exchangeOnce(): Promise<void> {
    const { nodes, node } = this.#options;
    if (!nodes) return;
    // Words of a change may have been lost.
    void this.#options.drains.look();
    if (this.#local)
      await nodes.announce({ node, machine: this.#machine?.facts(), slots: this.#local.slots(), engine: this.localEngine() }, TTL_MS);
    this.#others = await nodes.others();
    for (const { engine } of this.#others) if (engine) this.#engines.set(engine.name, engine);
    this.onChange();
  }
}
