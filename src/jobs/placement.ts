// What a node should have for a job: the engine that took it, and the models that it would load.
import type { JsonObject } from '@bufbuild/protobuf';
import type { Placement } from './ports.ts';

/** `parameters` as resolved, defaults filled in: an option PROCESSOR_model names what the processor loads, as the engine names what it has warm. */
export function placementOf(engine: string, parameters: JsonObject, processors: readonly string[]): Placement {
  const models = processors.map((processor) => parameters[`${processor}_model`]).filter((model) => typeof model === 'string');
  return { engine, models: [...new Set(models)].sort() };
}
