// Which scope each method needs and what else holds for it: the one table. Always true: it is total over every service that is served (the
// compiler sees to ours, the start to all), so that a new method without a rule is never served.
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { AccessService } from '../../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../../gen/facefusion/jobs/v1/webhook_service_pb.js';
import { Health } from '../../gen/grpc/health/v1/health_pb.js';
import { ServerReflection } from '../../gen/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '../../gen/grpc/reflection/v1alpha/reflection_pb.js';
import type { Rule } from '../jobs/guard.ts';

const READ: Rule = { needs: 'read', audited: false };
/** Hands out a result. */
const FETCH: Rule = { needs: 'read', audited: true };
const SUBMIT: Rule = { needs: 'submit', audited: true, submits: () => 1 };
const CHANGE: Rule = { needs: 'submit', audited: true };
const TRY: Rule = { needs: 'submit', audited: false };
const ADMIN: Rule = { needs: 'admin', audited: true };
const ANY: Rule = { needs: 'any', audited: false };
const PUBLIC: Rule = { needs: 'public', audited: false };

const jobs: Record<keyof typeof JobService.method, Rule> = {
  submit: SUBMIT,
  submitBatch: { ...SUBMIT, submits: (message) => Math.max(1, (message as { readonly jobs?: readonly unknown[] }).jobs?.length ?? 1) },
  getBatch: READ,
  watchBatch: READ,
  cancelBatch: CHANGE,
  validate: TRY,
  get: READ,
  getStatus: READ,
  getResult: FETCH,
  getProvenance: READ,
  getBatchResults: FETCH,
  getInput: FETCH,
  watch: READ,
  watchJobs: READ,
  list: READ,
  cancel: CHANGE,
  purge: CHANGE,
};
const process: Record<keyof typeof ProcessService.method, Rule> = { swap: SUBMIT, enhance: SUBMIT };
const uploads: Record<keyof typeof UploadService.method, Rule> = { upload: CHANGE };
const system: Record<keyof typeof SystemService.method, Rule> = {
  getCapabilities: READ,
  listSlots: READ,
  drainSlots: ADMIN,
  restoreSlots: ADMIN,
  getOverview: READ,
};
const access: Record<keyof typeof AccessService.method, Rule> = {
  getIdentity: ANY,
  getUsage: READ,
  createKey: ADMIN,
  listKeys: ADMIN,
  revokeKey: ADMIN,
  rotateKey: ADMIN,
};
const webhooks: Record<keyof typeof WebhookService.method, Rule> = { listDeliveries: READ, replayDelivery: CHANGE };
const health: Record<keyof typeof Health.method, Rule> = { check: PUBLIC, watch: PUBLIC, list: PUBLIC };
const reflection: Record<keyof typeof ServerReflection.method, Rule> = { serverReflectionInfo: PUBLIC };
const reflectionAlpha: Record<keyof typeof ServerReflectionAlpha.method, Rule> = { serverReflectionInfo: PUBLIC };

const RULES: ReadonlyMap<DescMethod, Rule> = new Map([
  ...of(JobService, jobs),
  ...of(ProcessService, process),
  ...of(UploadService, uploads),
  ...of(SystemService, system),
  ...of(AccessService, access),
  ...of(WebhookService, webhooks),
  ...of(Health, health),
  ...of(ServerReflection, reflection),
  ...of(ServerReflectionAlpha, reflectionAlpha),
]);

/** The rule of a method. A method that nobody has ruled on is a defect, and not served. */
export function ruleOf(method: DescMethod): Rule {
  const rule = RULES.get(method);
  if (!rule) throw new Error(`nobody has said who may call ${method.parent.typeName}.${method.name}: add it to src/access/rules.ts`);
  return rule;
}

function of<S extends DescService>(service: S, rules: Readonly<Record<string, Rule>>): [DescMethod, Rule][] {
  return service.methods.map((method) => {
    const rule = Object.hasOwn(rules, method.localName) ? rules[method.localName] : undefined;
    if (!rule) throw new Error(`nobody has said who may call ${service.typeName}.${method.name}: add it to src/access/rules.ts`);
    return [method, rule];
  });
}
