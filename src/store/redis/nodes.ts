// The nodes of a fleet as each has last said, in one hash. A node that says nothing any more is left out after its time, and its words are swept.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { ListSlotsResponseSchema } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { CapabilitiesSchema } from '../../../gen/facefusion/worker/v1/worker_pb.js';
import type { NodeFacts, NodeRegistry } from '../../jobs/ports.ts';
import type { RedisConnection } from './connection.ts';

const KEY = 'nodes';

/** As it lies in Redis; the messages in base64. */
interface Entry {
  readonly node: string;
  readonly expiresMs: number;
  /** A ListSlotsResponse, with the node itself. */
  readonly slots: string;
  readonly engine?: { readonly name: string; readonly version: string; readonly capabilities: string };
}

export class RedisNodes implements NodeRegistry {
  readonly #redis: RedisConnection;
  readonly #instance: string;
  readonly #now: () => number;

  constructor(redis: RedisConnection, instance: string, now: () => number) {
    this.#redis = redis;
    this.#instance = instance;
    this.#now = now;
  }

  async announce({ node, machine, slots, engine }: NodeFacts, ttlMs: number): Promise<void> {
    const shown = create(ListSlotsResponseSchema, { slots: [...slots], nodes: machine ? [machine] : [] });
    const entry: Entry = {
      node,
      expiresMs: this.#now() + ttlMs,
      slots: base64(toBinary(ListSlotsResponseSchema, shown)),
      ...(engine && {
        engine: { name: engine.name, version: engine.version, capabilities: base64(toBinary(CapabilitiesSchema, engine.capabilities)) },
      }),
    };
    await this.#redis.put(KEY, this.#instance, Buffer.from(JSON.stringify(entry)));
  }

  async withdraw(): Promise<void> {
    await this.#redis.drop(KEY, [this.#instance]);
  }

  async others(): Promise<readonly NodeFacts[]> {
    const now = this.#now();
    const gone: string[] = [];
    const nodes: NodeFacts[] = [];
    for (const [instance, text] of Object.entries(await this.#redis.hash(KEY))) {
      if (instance === this.#instance) continue;
      const entry = JSON.parse(text.toString()) as Entry;
      if (entry.expiresMs <= now) gone.push(instance);
      else nodes.push(decode(entry));
    }
    await this.#redis.drop(KEY, gone);
    return nodes.sort((a, b) => (a.node < b.node ? -1 : 1));
  }
}

function decode({ node, slots, engine }: Entry): NodeFacts {
  const shown = fromBinary(ListSlotsResponseSchema, Buffer.from(slots, 'base64'));
  return {
    node,
    machine: shown.nodes[0],
    slots: shown.slots,
    engine: engine && { ...engine, capabilities: fromBinary(CapabilitiesSchema, Buffer.from(engine.capabilities, 'base64')) },
  };
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}
