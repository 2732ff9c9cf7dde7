// What this process's machine is, for who looks at the fleet: its GPUs and the room on its disk. Always true: what is answered comes from memory, so that a disk that
// hangs makes it old and not late.
import { create } from '@bufbuild/protobuf';
import { type Node, NodeSchema } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { GpuFacts } from '../gpu/devices.ts';

/** How old the room on the disk may be before it is looked at again. */
const FRESH_MS = 5_000;

export interface MachineOptions {
  readonly node: string;
  readonly gpus: () => readonly GpuFacts[];
  /** Bytes that the disk of the work folders has left. */
  readonly diskFree: () => Promise<number>;
}

export class Machine {
  readonly #options: MachineOptions;
  #free: number | undefined;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #looking = false;

  constructor(options: MachineOptions) {
    this.#options = options;
  }

  /** As last seen; looks again where that is long ago. */
  facts(): Node {
    void this.look();
    const gpus = this.#options.gpus();
    return create(NodeSchema, {
      node: this.#options.node,
      gpus: gpus.map(({ index, name, memoryBytes, memoryUsedBytes, utilization }) => ({
        index,
        name,
        memoryBytes: BigInt(memoryBytes),
        memoryUsedBytes: BigInt(memoryUsedBytes),
        utilization,
      })),
      gpuDriver: gpus.find(({ driver }) => driver !== undefined)?.driver,
      diskFreeBytes: this.#free === undefined ? undefined : BigInt(this.#free),
    });
  }

  /** Never rejects: room that cannot be told is told as it was. */
  async look(): Promise<void> {
    const now = performance.now();
    if (this.#looking || now - this.#lookedMs < FRESH_MS) return;
    this.#looking = true;
    this.#lookedMs = now;
    try {
      this.#free = await this.#options.diskFree();
    } catch {
      // Jobs that need the room say so.
    } finally {
      this.#looking = false;
    }
  }
}
