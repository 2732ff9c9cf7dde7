// The NVIDIA GPUs of this machine as their driver tells, through the program that comes with it: no native module, and none needed elsewhere.
import { execFile } from 'node:child_process';

export interface GpuFacts {
  /** As CUDA_VISIBLE_DEVICES takes it. */
  readonly index: number;
  readonly name: string;
  readonly memoryBytes: number;
  readonly memoryUsedBytes: number;
  /** 0..1; undefined: the driver does not tell. */
  readonly utilization: number | undefined;
  /** Version of its driver. */
  readonly driver: string | undefined;
}

const FIELDS = ['index', 'name', 'memory.total', 'memory.used', 'utilization.gpu', 'driver_version'];
const TIMEOUT_MS = 10_000;
const MIB = 2 ** 20;

/** None where there is no such driver. `env` has the PATH that its program is on. */
export function readGpus(env: Readonly<Record<string, string | undefined>>): Promise<GpuFacts[]> {
  const args = [`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader,nounits'];
  return new Promise((resolve) => {
    execFile('nvidia-smi', args, { env: { ...env }, timeout: TIMEOUT_MS, windowsHide: true }, (error, stdout) =>
      resolve(error ? [] : stdout.split('\n').flatMap(factsOf)),
    );
  });
}

function factsOf(line: string): GpuFacts[] {
  const [index = '', name = '', total = '', used = '', busy = '', driver = ''] = line.split(',').map((part) => part.trim());
  if (!/^\d+$/.test(index)) return [];
  // '[N/A]' where a device does not say, as in some virtual machines.
  const number = (text: string) => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined);
  const share = number(busy);
  return [
    {
      index: Number(index),
      name,
      memoryBytes: (number(total) ?? 0) * MIB,
      memoryUsedBytes: (number(used) ?? 0) * MIB,
      utilization: share === undefined ? undefined : share / 100,
      driver: /^\d[\w.-]*$/.test(driver) ? driver : undefined,
    },
  ];
}

/** Looks again and again while there is something to see; what it last saw is at hand. */
export class GpuWatch implements AsyncDisposable {
  #last: readonly GpuFacts[] = [];
  readonly #timer: NodeJS.Timeout | undefined;
  #looking = false;

  private constructor(first: readonly GpuFacts[], read: () => Promise<GpuFacts[]>, everyMs: number) {
    this.#last = first;
    if (first.length === 0) return;
    this.#timer = setInterval(async () => {
      // A driver that hangs is not asked a second time meanwhile.
      if (this.#looking) return;
      this.#looking = true;
      this.#last = await read();
      this.#looking = false;
    }, everyMs);
    this.#timer.unref();
  }

  static async open(read: () => Promise<GpuFacts[]>, everyMs = 5_000): Promise<GpuWatch> {
    return new GpuWatch(await read(), read, everyMs);
  }

  get all(): readonly GpuFacts[] {
    return this.#last;
  }

  /** 0..1 */
  utilization(index: number): number | undefined {
    return this.#last.find((gpu) => gpu.index === index)?.utilization;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
  }
}
