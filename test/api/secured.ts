// A service with identities: API keys, and tokens that the test itself may sign, so that it has an administrator to begin with.
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SignJWT } from 'jose';
import type { Surroundings } from '../../src/app.ts';
import type { Scope } from '../../src/jobs/caller.ts';
import { type Service, startService } from './service.ts';

const SECRET = 'a secret of the tests, and long enough';
const ISSUER = 'https://id.example.com';

export interface Who {
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  readonly subject?: string;
  readonly seconds?: number;
}

export interface Secured extends Service {
  token(who: Who): Promise<string>;
  /** A key, made over REST by an administrator. */
  key(facts: { tenant: string; scopes: readonly Scope[]; ttl?: string; tier?: string }): Promise<{ id: string; secret: string }>;
  /** Puts the media of the tests where the tenant finds them. */
  furnish(tenant: string): Promise<void>;
  readonly auditPath: string;
}

/** `tenants`: what FFJOBS_TENANTS is to hold. */
export async function startSecured(
  settings: Readonly<Record<string, string>> = {},
  { tenants = {}, more }: { readonly tenants?: object; readonly more?: Partial<Surroundings> } = {},
): Promise<Secured> {
  const files = await mkdtemp(join(tmpdir(), 'ffjobs-secured-'));
  await writeFile(join(files, 'secret'), `${SECRET}\n`);
  await writeFile(join(files, 'tenants.json'), JSON.stringify(tenants));
  const service = await startService(
    {
      API_KEYS: 'on',
      JWT_SECRET_FILE: join(files, 'secret'),
      JWT_ISSUER: ISSUER,
      JWT_AUDIENCE: 'ffjobs',
      TENANTS: join(files, 'tenants.json'),
      ...settings,
    },
    more,
  );
  const token = ({ tenant, scopes, subject = 'anna', seconds = 600 }: Who) =>
    new SignJWT({ tenant, scope: scopes.join(' ') })
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer(ISSUER)
      .setAudience('ffjobs')
      .setSubject(subject)
      .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
      .sign(new TextEncoder().encode(SECRET));
  return Object.defineProperties(Object.create(service) as Secured, {
    token: { value: token },
    key: {
      async value(facts: { tenant: string; scopes: readonly Scope[] }) {
        const response = await fetch(new URL('/api/v1/keys', service.baseUrl), {
          method: 'POST',
          headers: {
            'content-type': 'application/json',
            authorization: `Bearer ${await token({ tenant: 'operators', scopes: ['admin'] })}`,
          },
          body: JSON.stringify(facts),
        });
        const json = (await response.json()) as { key: { key_id: string }; secret: string };
        if (response.status !== 201) throw new Error(`no key was made: ${JSON.stringify(json)}`);
        return { id: json.key.key_id, secret: json.secret };
      },
    },
    furnish: {
      async value(tenant: string) {
        await mkdir(join(service.inputDir, tenant), { recursive: true });
        for (const name of ['face.jpg', 'target.png', 'target.mp4'])
          await cp(join(service.inputDir, name), join(service.inputDir, tenant, name));
      },
    },
    auditPath: { value: join(service.dir, 'audit', 'audit.jsonl') },
    [Symbol.asyncDispose]: {
      async value() {
        await service[Symbol.asyncDispose]();
        await rm(files, { recursive: true, force: true });
      },
    },
  });
}
