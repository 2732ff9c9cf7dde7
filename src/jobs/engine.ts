// An engine as its callers know it, wherever in a fleet it runs.
import type { Capabilities } from '../../gen/facefusion/worker/v1/worker_pb.js';

export interface Engine {
  readonly name: string;
  readonly version: string;
  readonly capabilities: Capabilities;
}
