// grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). Always true: a watcher hears the newest status of its service,
// though not every one in between, and nothing twice in a row. The registry is the owner of the statuses; '' is the server as a whole.
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from '../../gen/grpc/health/v1/health_pb.js';

export { ServingStatus };

export class HealthRegistry {
  readonly #statuses = new Map<string, ServingStatus>();
  readonly #watchers = new Map<string, Set<() => void>>();
  #ending = false;

  /** Sets the status of a service and tells its watchers. Ignored once `shutdown` was called. */
  set(service: string, status: ServingStatus): void {
    if (!this.#ending) this.#put(service, status);
  }

  /** The status of a service; undefined when nothing was ever set for it. */
  get(service: string): ServingStatus | undefined {
    return this.#statuses.get(service);
  }

  /** Every service with its status. */
  entries(): IterableIterator<[service: string, status: ServingStatus]> {
    return this.#statuses.entries();
  }

  /** Every service is NOT_SERVING from now on, so that balancers turn elsewhere while calls in flight finish. */
  shutdown(): void {
    this.#ending = true;
    for (const service of this.#statuses.keys()) this.#put(service, ServingStatus.NOT_SERVING);
  }

  /** The status now, SERVICE_UNKNOWN when there is none, then every change. Ends by throwing the signal's reason. */
  async *watch(service: string, signal: AbortSignal): AsyncGenerator<ServingStatus> {
    let wake = () => {};
    const onChange = () => wake();
    const watchers = this.#watchers.get(service) ?? new Set();
    this.#watchers.set(service, watchers.add(onChange));
    signal.addEventListener('abort', onChange);
    try {
      let last: ServingStatus | undefined;
      for (;;) {
        signal.throwIfAborted();
        const status = this.get(service) ?? ServingStatus.SERVICE_UNKNOWN;
        if (status !== last) {
          last = status;
          yield status;
          continue;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener('abort', onChange);
      watchers.delete(onChange);
      if (watchers.size === 0) this.#watchers.delete(service);
    }
  }

  #put(service: string, status: ServingStatus): void {
    this.#statuses.set(service, status);
    for (const onChange of this.#watchers.get(service) ?? []) onChange();
  }
}

/** The service over a registry, for Connect's router: `router.service(desc, implementation)`. */
export function healthService(registry: HealthRegistry): {
  readonly desc: typeof Health;
  readonly implementation: ServiceImpl<typeof Health>;
} {
  const implementation: ServiceImpl<typeof Health> = {
    check({ service }) {
      const status = registry.get(service);
      if (status === undefined) throw new ConnectError(`nothing is known of the service "${service}"`, Code.NotFound);
      return { status };
    },
    list() {
      return { statuses: Object.fromEntries([...registry.entries()].map(([service, status]) => [service, { status }])) };
    },
    async *watch({ service }, context: HandlerContext) {
      for await (const status of registry.watch(service, context.signal)) yield { status };
    },
  };
  return { desc: Health, implementation };
}
