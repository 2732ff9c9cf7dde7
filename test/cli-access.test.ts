// Keys and the audit log at the command line: in the job store of this machine, and by a running service.
import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { openKeys, verifyAudit } from '../src/app.ts';
import { Exit } from '../src/cli/remote/errors.ts';
import { type Secured, startSecured } from './api/secured.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const access = { openKeys, verifyAudit };

describe('keys of a service that is not running', () => {
  let dir: string;
  let env: Record<string, string>;
  beforeEach(async (t) => {
    dir = await mkdtemp(join(tmpdir(), 'ffjobs-keys-'));
    env = { FFJOBS_DATA_DIR: dir, FFJOBS_API_KEYS: 'on' };
    (t as unknown as { after(run: () => Promise<void>): void }).after(() => rm(dir, { recursive: true, force: true }));
  });
  const run = async (...args: string[]) => {
    const terminal = new FakeTerminal();
    const code = await ffjobs(args, terminal, { env, cwd: dir, access });
    return { terminal, code };
  };

  test('are made, listed, rotated and revoked', async () => {
    const made = await run(
      'keys',
      'create',
      '--name',
      'render farm',
      '--tenant',
      'studio',
      '--scope',
      'submit',
      '--scope',
      'read',
      '--ttl',
      '90d',
    );
    assert.equal(made.code, Exit.ok, made.terminal.stderr);
    assert.match(made.terminal.stdout, /^ffj_[a-z2-7]{10}_[a-z2-7]{40}\n$/);
    const id = made.terminal.stdout.slice(4, 14);
    const listed = await run('--json', 'keys', 'list');
    const [key] = listed.terminal.json;
    assert.deepEqual([key!.key_id, key!.tenant, key!.scopes, key!.name], [id, 'studio', ['submit', 'read'], 'render farm']);
    assert.equal(Date.parse(key!.expire_time as string) - Date.parse(key!.created_at as string), 90 * 86_400_000);
    assert.ok(!listed.terminal.stdout.includes(made.terminal.stdout.trim().slice(-40)));
    const rotated = await run('keys', 'rotate', id, '--overlap', '1h');
    assert.equal(rotated.code, Exit.ok);
    const next = rotated.terminal.stdout.slice(4, 14);
    assert.notEqual(next, id);
    assert.match(rotated.terminal.stderr, new RegExp(`The old key ${id} works until`));
    assert.equal((await run('keys', 'rotate', id)).code, Exit.invalid);
    assert.match((await run('keys', 'revoke', next)).terminal.stdout, /revoked/);
    assert.equal((await run('keys', 'revoke', 'nobody')).code, Exit.notFound);
    const lines = (await run('keys', 'list', '--tenant', 'studio')).terminal.lines;
    assert.equal(lines.length, 2);
    assert.equal((await run('keys', 'list', '--tenant', 'other')).terminal.stdout, '');
  });

  test('are refused with what is allowed', async () => {
    for (const args of [
      ['--scope', 'write'],
      ['--ttl', '90'],
      ['--tenant', '../x'],
      ['--tier', 'gold'],
    ]) {
      const { code, terminal } = await run('keys', 'create', ...args);
      assert.equal(code, Exit.invalid, args.join(' '));
      assert.match(terminal.stderr, /it takes|allowed|a tenant has a name/);
      assert.equal(terminal.stdout, '');
    }
    env.FFJOBS_API_KEYS = 'off';
    assert.match((await run('keys', 'create')).terminal.stderr, /once FFJOBS_API_KEYS=on is set/);
  });
});

describe('keys of a running service', () => {
  let service: Secured;
  before(async () => {
    service = await startSecured();
  });
  after(async () => await service?.[Symbol.asyncDispose]());
  const run = async (env: Record<string, string>, ...args: string[]) => {
    const terminal = new FakeTerminal();
    const code = await ffjobs(args, terminal, { env, cwd: service.dir, access, server: service.baseUrl });
    return { terminal, code };
  };

  test('are its own to make, for an administrator, and open it for other commands', async () => {
    const here = { FFJOBS_DATA_DIR: service.dir, FFJOBS_API_KEYS: 'on' };
    const blocked = await run(here, 'keys', 'create');
    assert.equal(blocked.code, Exit.failed);
    assert.match(blocked.terminal.stderr, /is in use by another process: set FFJOBS_TOKEN/);
    const admin = { FFJOBS_TOKEN: await service.token({ tenant: 'operators', scopes: ['admin'] }) };
    const made = await run(admin, '--json', 'keys', 'create', '--tenant', 'studio');
    assert.equal(made.code, Exit.ok, made.terminal.stderr);
    const [{ secret, key }] = made.terminal.json as [{ secret: string; key: { key_id: string } }];
    assert.equal((await run({ FFJOBS_TOKEN: secret }, 'list')).code, Exit.ok);
    assert.equal((await run({ FFJOBS_TOKEN: secret }, 'keys', 'list')).code, Exit.denied);
    assert.equal((await run({}, 'list')).code, Exit.denied);
    const rotated = await run(admin, '--json', 'keys', 'rotate', key.key_id, '--overlap', '0s');
    assert.equal(rotated.code, Exit.ok, rotated.terminal.stderr);
    const gone = await run({ FFJOBS_TOKEN: secret }, 'list');
    assert.equal(gone.code, Exit.denied);
    assert.match(gone.terminal.stderr, /the API key \w+ has expired/);
    assert.equal((await run(admin, 'keys', 'revoke', 'nobody')).code, Exit.notFound);
  });
});

test('the audit log is verified, and what is wrong with it is said', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-audit-'));
  t.after(() => rm(dir, { recursive: true }));
  const path = join(dir, 'audit', 'audit.jsonl');
  {
    await using service = await startSecured({ AUDIT: path });
    await service.key({ tenant: 'studio', scopes: ['read'] });
  }
  const run = async (...args: string[]) => {
    const terminal = new FakeTerminal();
    const code = await ffjobs(['audit', 'verify', ...args], terminal, { env: { FFJOBS_AUDIT: path }, cwd: dir, access });
    return { terminal, code };
  };
  const good = await run();
  assert.equal(good.code, Exit.ok, good.terminal.stderr);
  const [, hash] = /the last is 3, ([0-9a-f]{64})/.exec(good.terminal.stdout) ?? [];
  assert.equal((await run(path, '--noted', hash!)).code, Exit.ok);
  assert.equal((await run(path, '--noted', 'f'.repeat(64))).code, Exit.failed);
  await appendFile(path, '{"seq":');
  assert.match((await run()).terminal.stderr, /7 bytes of an unfinished line/);
  await writeFile(path, (await readFile(path, 'utf8')).replace('CreateKey', 'ListKeys'));
  const bad = await run();
  assert.equal(bad.code, Exit.failed);
  assert.match(bad.terminal.stderr, /line 2: this line is not as it was written/);
  assert.equal((await run(join(dir, 'none.jsonl'))).code, Exit.failed);
});
