// What the caller may do, so that nobody is offered what is refused. Until it is known nothing but looking is offered.
import { signal } from '@preact/signals';
import { Scope } from '../../../gen/facefusion/jobs/v1/access_service_pb.js';
import { accessService } from './clients.ts';

/** Whether what concerns all tenants may be changed. */
export const mayAdminister = signal(false);

export async function askIdentity(stop: AbortSignal): Promise<void> {
  const { scopes } = await accessService.getIdentity({}, { signal: stop });
  mayAdminister.value = scopes.includes(Scope.ADMIN);
}
