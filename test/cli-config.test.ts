// `ffjobs config check`: whatever would keep the service from starting is said at once, each with its setting, what it takes and where it stands; and
// what is right is right for `serve` too.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileFindings } from '../src/app/setting-files.ts';
import { readConfig, SETTINGS } from '../src/config.ts';
import { Certificates } from './access/certificates.ts';
import { python, ROOT } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const root = process.getuid?.() === 0;
const folder = mkdtempSync(join(tmpdir(), 'ffjobs-config-'));
after(() => rmSync(folder, { recursive: true }));

const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

async function check(env: Record<string, string>, ...args: string[]): Promise<{ code: number; terminal: FakeTerminal }> {
  const terminal = new FakeTerminal();
  const code = await ffjobs(['config', 'check', ...args], terminal, { env, cwd: folder, root: ROOT, fileFindings });
  return { code, terminal };
}

interface Problem {
  readonly settings: readonly string[];
  readonly problem: string;
  readonly from: string;
}

interface Said {
  readonly ok: boolean;
  readonly file: string | null;
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
  readonly settings: readonly { readonly name: string; readonly value: string; readonly from: string }[];
}
const said = async (env: Record<string, string>, ...args: string[]) => {
  const { code, terminal } = await check(env, '--json', ...args);
  return { code, ...(terminal.json[0] as unknown as Said) };
};

/** A certificate and its key, good for so many days from now. */
function certificate(name: string, days: number): { cert: string; key: string } {
  const [cert, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)];
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${name}`];
  execFileSync('openssl', [...made, '-keyout', key, '-out', cert, '-days', String(days)], { stdio: 'ignore' });
  return { cert, key };
}

describe('settings that are right', () => {
  test('nothing at all: the defaults, and 0', async () => {
    const { code, terminal } = await check({});
    assert.equal(code, 0);
    assert.match(terminal.stderr, /The settings are right: all are defaults/);
    assert.equal(terminal.stdout, '');
  });

  test('what is set is shown with where it stands, the environment over the file, and no password', async () => {
    const settings = file(
      'good',
      '# comment\nFFJOBS_PORT=9000\nFFJOBS_SLOTS=2\nexport AWS_REGION=eu-1\nFFJOBS_STORE=redis://ann:hush@redis:6379\n',
    );
    const found = await said({ FFJOBS_PORT: '9001', FFJOBS_CONFIG: 'good' });
    assert.deepEqual([found.code, found.ok, found.file, found.problems], [0, true, settings, []]);
    assert.deepEqual(found.settings, [
      { name: 'FFJOBS_PORT', value: '9001', from: 'environment' },
      { name: 'FFJOBS_SLOTS', value: '2', from: settings },
      { name: 'FFJOBS_STORE', value: 'redis://***@redis:6379', from: settings },
    ]);
    assert.deepEqual((await said({}, 'good')).settings.length, 3, 'a file that is named on the command line');
  });

  test('files that are what they should be', async () => {
    const { cert, key } = certificate('right', 30);
    const env = {
      FFJOBS_TLS_CERT: cert,
      FFJOBS_TLS_KEY: key,
      FFJOBS_TLS_CLIENT_CA: cert,
      FFJOBS_TENANTS: file('tenants.json', '{"tenants": {"studio": {}}}'),
      FFJOBS_JWT_SECRET_FILE: file('secret', 'x'.repeat(32)),
      FFJOBS_JWT_ISSUER: 'a',
      FFJOBS_JWT_AUDIENCE: 'b',
      FFJOBS_WEBHOOK_SECRETS_FILE: file('webhooks', `studio whsec_${'A'.repeat(32)}\n`),
    };
    assert.deepEqual((await said(env)).problems, []);
  });
});

describe('settings that are wrong', () => {
  test('all problems at once, each with its setting, what is allowed and where it stands; and 1', async () => {
    const settings = file('bad', 'FFJOBS_PORT=http\nFFJOBS_SLTOS=2\nPORT=80\nFFJOB_HOST=::\nnonsense\n');
    const { code, terminal } = await check({ FFJOBS_CONFIG: 'bad', FFJOBS_HOST: '0.0.0.0' });
    assert.equal(code, 1);
    for (const words of [
      `ffjobs: ${settings} names PORT, which nobody reads`,
      `ffjobs: ${settings} names FFJOB_HOST, which nobody reads; did you mean 'FFJOBS_HOST'?`,
      `ffjobs: ${settings}, line 5, is no setting: write NAME=VALUE`,
      "ffjobs: FFJOBS_PORT is 'http'; allowed: a whole number from 0 to 65535",
      "ffjobs: there is no setting FFJOBS_SLTOS; did you mean 'FFJOBS_SLOTS'?",
      "ffjobs: FFJOBS_HOST is '0.0.0.0', and anybody who reaches it could use the service",
      'FFJOBS_ALLOW_ANONYMOUS=yes if that is what you want (environment)',
      '6 problems: the service would not start.',
    ]) {
      assert.ok(terminal.stderr.includes(words), `${words} in\n${terminal.stderr}`);
    }
    assert.match(terminal.stderr, new RegExp(`0 to 65535 \\(${settings}\\)`));
    assert.doesNotMatch(terminal.stderr, / at .*\.ts:\d+/);
    const { ok, problems } = await said({ FFJOBS_CONFIG: 'bad', FFJOBS_HOST: '0.0.0.0' });
    assert.equal(ok, false);
    assert.deepEqual(problems.find(({ problem }) => problem.includes("'http'"))?.settings, ['FFJOBS_PORT']);
  });

  test('`serve` refuses the same', async () => {
    const terminal = new FakeTerminal();
    assert.equal(await ffjobs(['serve'], terminal, { env: { FFJOBS_CONFIG: 'bad' }, cwd: folder, root: ROOT, fileFindings }), 1);
    assert.match(terminal.stderr, /PORT, which nobody reads[\s\S]*FFJOBS_PORT is 'http'/);
  });

  const good = certificate('good', 30);
  const other = certificate('other', 30);
  const FILES: readonly [what: string, env: () => Record<string, string>, says: RegExp][] = [
    [
      'a file of settings that is not there',
      () => ({ FFJOBS_CONFIG: 'nowhere' }),
      /FFJOBS_CONFIG is 'nowhere', which cannot be read \(ENOENT\)/,
    ],
    [
      'tenants that are not there',
      () => ({ FFJOBS_TENANTS: 'nowhere' }),
      /FFJOBS_TENANTS: .*nowhere cannot be read \(ENOENT\): correct its name/,
    ],
    ['tenants that are no JSON', () => ({ FFJOBS_TENANTS: file('t1', '{') }), /FFJOBS_TENANTS: .*t1: /],
    ['tenants with a wrong name', () => ({ FFJOBS_TENANTS: file('t2', '{"tenant": {}}') }), /FFJOBS_TENANTS: .*t2: .*tenant/],
    [
      'a certificate that is none',
      () => ({ FFJOBS_TLS_CERT: file('c', 'x'), FFJOBS_TLS_KEY: good.key }),
      /FFJOBS_TLS_CERT: .* holds no certificate in PEM/,
    ],
    [
      'a key that is another one’s',
      () => ({ FFJOBS_TLS_CERT: good.cert, FFJOBS_TLS_KEY: other.key }),
      /FFJOBS_TLS_KEY: .*other\.key is not the key of the certificate .*good\.crt/,
    ],
    [
      'a key that is not there',
      () => ({ FFJOBS_TLS_CERT: good.cert, FFJOBS_TLS_KEY: 'nowhere' }),
      /FFJOBS_TLS_KEY: .*nowhere cannot be read \(ENOENT\)/,
    ],
    [
      'a secret that is too short',
      () => ({ FFJOBS_JWT_SECRET_FILE: file('short', 'abc'), FFJOBS_JWT_ISSUER: 'a', FFJOBS_JWT_AUDIENCE: 'b' }),
      /FFJOBS_JWT_SECRET_FILE: the secret in .*short has 3 bytes; it takes at least 32/,
    ],
    [
      'a key set that is none',
      () => ({ FFJOBS_JWT_JWKS: file('jwks', '[]'), FFJOBS_JWT_ISSUER: 'a', FFJOBS_JWT_AUDIENCE: 'b' }),
      /FFJOBS_JWT_JWKS: .*jwks is no key set: it takes JSON with a list "keys"/,
    ],
    [
      'a webhook secret that is none',
      () => ({ FFJOBS_WEBHOOK_SECRETS_FILE: file('w', 'hello') }),
      /FFJOBS_WEBHOOK_SECRETS_FILE: line 1 is no webhook secret/,
    ],
    [
      'a token of the metrics that is none',
      () => ({ FFJOBS_METRICS_TOKEN_FILE: file('token', 'short') }),
      /FFJOBS_METRICS_TOKEN_FILE: .*token holds no token: it takes at least 16/,
    ],
    ['a webhook receiver without a secret', () => ({ FFJOBS_WEBHOOK_URL: 'https://example.com/x' }), /FFJOBS_WEBHOOK_URL: /],
  ];
  for (const [what, env, says] of FILES) {
    test(`${what} is one sentence`, async () => {
      const { code, problems } = await said(env());
      assert.equal(code, 1);
      assert.equal(problems.length, 1, JSON.stringify(problems));
      assert.match(problems[0]!.problem, says);
    });
  }

  test('a certificate that has run out says when', async () => {
    const config = readConfig({ FFJOBS_TLS_CERT: good.cert, FFJOBS_TLS_KEY: good.key }, folder);
    const day = 86_400_000;
    const at = async (days: number) => await fileFindings(config, Date.now() + days * day);
    const [problem, ...others] = (await at(31)).problems;
    assert.deepEqual(others, []);
    assert.match(problem!, /FFJOBS_TLS_CERT: .*good\.crt was valid until .*: get a new certificate/);
    assert.match((await at(-2)).problems.join(), /FFJOBS_TLS_CERT: .*good\.crt is not valid before .*: look at this machine's clock/);
    assert.match((await at(20)).warnings.join(), /FFJOBS_TLS_CERT: .*good\.crt is valid until .*: get a new certificate before then/);
  });

  test('an authority of client certificates that has run out is told as such', async () => {
    using certificates = new Certificates();
    certificates.addAuthority('ca');
    certificates.sign('ended', 'ca', { subject: '/CN=ended', seconds: -60 });
    const ended = certificates.path('ended.pem');
    const tenants = file('certified.json', '{}');
    const env = { FFJOBS_TLS_CERT: good.cert, FFJOBS_TLS_KEY: good.key, FFJOBS_TLS_CLIENT_CA: ended, FFJOBS_TENANTS: tenants };
    assert.match((await said(env)).problems.map(({ problem }) => problem).join(), /^FFJOBS_TLS_CLIENT_CA: .*ended\.pem was valid until/);
    // One of several is enough: authorities are put beside one another while one follows another.
    const both = file('both.pem', `${readFileSync(ended, 'utf8')}\n${readFileSync(good.cert, 'utf8')}`);
    assert.deepEqual((await said({ ...env, FFJOBS_TLS_CLIENT_CA: both })).problems, []);
  });

  test('a secret that every user of the machine can read is a warning, and the service starts', async () => {
    const { cert, key } = certificate('open', 90);
    chmodSync(key, 0o644);
    const { code, warnings } = await said({ FFJOBS_TLS_CERT: cert, FFJOBS_TLS_KEY: key });
    assert.equal(code, 0);
    assert.deepEqual(
      warnings.map(({ problem }) => problem),
      [`FFJOBS_TLS_KEY: every user of this machine can read ${key}: chmod 600 ${key}, for the service's own user`],
    );
  });

  test('a file that this user may not read is told with its mode', {
    skip: root ? 'machine: root may read everything' : false,
  }, async () => {
    const { cert, key } = certificate('closed', 90);
    chmodSync(key, 0);
    const { problems } = await said({ FFJOBS_TLS_CERT: cert, FFJOBS_TLS_KEY: key });
    assert.match(problems[0]!.problem, /FFJOBS_TLS_KEY: .*closed\.key cannot be read \(EACCES\): correct its name or its mode/);
  });

  test('several files at once', async () => {
    const env = { FFJOBS_JWT_SECRET_FILE: 'nowhere', FFJOBS_JWT_ISSUER: 'a', FFJOBS_JWT_AUDIENCE: 'b', FFJOBS_TENANTS: 'nowhere' };
    const { problems } = await said({ ...env, FFJOBS_TLS_CERT: 'nowhere', FFJOBS_TLS_KEY: 'nowhere' });
    assert.deepEqual(problems.flatMap(({ settings }) => settings).toSorted(), [
      'FFJOBS_JWT_SECRET_FILE',
      'FFJOBS_TENANTS',
      'FFJOBS_TLS_CERT',
      'FFJOBS_TLS_KEY',
    ]);
  });
});

describe('what results are signed with', () => {
  const pair = (name: string, days: number) => {
    const at = join(folder, name);
    const make = 'import sys; from facefusion_worker.provenance.development import make; make(sys.argv[1], int(sys.argv[2]))';
    execFileSync(python(), ['-c', make, at, String(days)], { env: { ...process.env, PYTHONPATH: join(ROOT, 'worker') } });
    return { FFJOBS_PROVENANCE_CERT: join(at, 'certificate.pem'), FFJOBS_PROVENANCE_KEY: join(at, 'key.pem') };
  };
  const MARKS = { FFJOBS_PROVENANCE: 'c2pa', FFJOBS_PROVENANCE_PYTHON: python(), FFJOBS_PROVENANCE_TSA: 'http://127.0.0.1:9/' };
  const good = pair('marks', 90);
  const other = pair('other-marks', 90);

  test('is tried, without asking for a time stamp', async () => {
    const { code, problems, warnings } = await said({ ...MARKS, ...good });
    assert.deepEqual([code, problems, warnings], [0, [], []]);
  });

  const WRONG: readonly [what: string, env: () => Record<string, string>, says: RegExp][] = [
    [
      'a certificate that is not there',
      () => ({ FFJOBS_PROVENANCE_CERT: join(folder, 'none') }),
      /FFJOBS_PROVENANCE_CERT is .*none, which cannot be read/,
    ],
    ['a certificate that has run out', () => pair('ended-marks', 0), /the certificate of Trial signer, .* expired on .* have it renewed/],
    [
      'a key that is another one’s',
      () => ({ FFJOBS_PROVENANCE_KEY: other.FFJOBS_PROVENANCE_KEY }),
      /private key in .* does not belong to the certificate/,
    ],
    [
      'a root that it does not lead to',
      () => ({ FFJOBS_PROVENANCE_TRUST: join(folder, 'other-marks', 'root.pem') }),
      /does not lead to a root/,
    ],
    ['a key that is none', () => ({ FFJOBS_PROVENANCE_KEY: good.FFJOBS_PROVENANCE_CERT }), /which holds no private key in PEM/],
  ];
  for (const [what, env, says] of WRONG) {
    test(`${what} is one sentence`, async () => {
      const { code, problems } = await said({ ...MARKS, ...good, ...env() });
      assert.equal(code, 1);
      assert.equal(problems.length, 1, JSON.stringify(problems));
      assert.match(problems[0]!.problem, says);
      assert.equal(problems[0]!.from, 'environment');
    });
  }

  test('a key that others can read is a warning; that of a process without workers is not looked at', async () => {
    const open = pair('open-marks', 90);
    chmodSync(open.FFJOBS_PROVENANCE_KEY, 0o644);
    const { code, warnings } = await said({ ...MARKS, ...open });
    assert.equal(code, 0);
    assert.match(warnings.map(({ problem }) => problem).join(), /others than its owner can read .*key\.pem: chmod 600/);
    const fleet = { FFJOBS_ROLE: 'api', FFJOBS_STORE: 'redis://redis:6379', FFJOBS_BLOBS: 's3://bucket/p' };
    assert.deepEqual((await said({ ...MARKS, ...fleet, ...good, FFJOBS_PROVENANCE_KEY: join(folder, 'none') })).problems, []);
  });
});

test('`config list` has every setting with its default', async () => {
  const terminal = new FakeTerminal();
  assert.equal(await ffjobs(['config', 'list', '--json'], terminal), 0);
  const names = terminal.json.map(({ name }) => name);
  for (const name of Object.keys(SETTINGS)) assert.ok(names.includes(`FFJOBS_${name}`), name);
  assert.deepEqual(terminal.json.find(({ name }) => name === 'FFJOBS_PORT')?.default, '8000');
});
