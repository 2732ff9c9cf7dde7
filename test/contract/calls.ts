// What suites of stores do with a call and with a stream of one.
import assert from 'node:assert/strict';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobsError } from '../../src/jobs/errors.ts';

/** What a call was refused with. */
export async function refusal(call: Promise<unknown> | (() => Promise<unknown>)): Promise<JobsError> {
  let error: unknown;
  try {
    await (typeof call === 'function' ? call() : call);
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error instanceof JobsError, `refused with ${error}`);
  return error;
}

/** Tries again while the store cannot be reached, as every caller of the service is told to. */
export async function patiently<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof JobsError && error.kind === 'unavailable')) throw error;
      assert.ok(error.retryAfterSeconds! > 0);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** The status that an event tells. */
export const statusOf = (event: JobEvent) => (event.event.case === 'state' ? event.event.value.status : undefined);
