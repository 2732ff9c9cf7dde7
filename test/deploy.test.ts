// What operators install with: images, the composition, the chart, units. No container engine is needed: each file is held against the code (a
// setting that is not there would be refused at start) and against what its own program says of it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parse, parseAllDocuments } from 'yaml';
import { NODE_OPTIONS } from '../bench/processes.ts';
import { contextFilter, stagesOf } from '../scripts/image/dockerfile.ts';
import { OTHERS, readConfig, SETTINGS } from '../src/config.ts';
import { createMetrics } from '../src/telemetry/metrics.ts';
import { Certificates } from './access/certificates.ts';
import { python, ROOT, startService } from './api/service.ts';

const run = promisify(execFile);
const CHART = join(ROOT, 'deploy', 'helm', 'facefusion-jobs');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const FILES = [
  'Dockerfile',
  ...globSync('deploy/**/*', { cwd: ROOT, withFileTypes: true }).flatMap((entry) =>
    entry.isFile() ? [join(entry.parentPath, entry.name).slice(ROOT.length + 1)] : [],
  ),
];

test('every setting that is named anywhere is one of the service', () => {
  const known = new Set([...Object.keys(SETTINGS).map((name) => `FFJOBS_${name}`), ...OTHERS]);
  for (const file of FILES) {
    for (const [name] of read(file).matchAll(/\bFFJOBS_[A-Z0-9_]*[A-Z0-9]\b/g)) assert.ok(known.has(name), `${file} names ${name}`);
  }
});

test('every metric that is named anywhere is one of the service', async () => {
  const metrics = createMetrics();
  metrics.bind({
    jobsByStatus: async () => [['queued', 0]],
    slotsByState: () => [],
    watchers: () => 0,
    workerRestarts: () => 0,
    gpus: () => [],
  });
  const { text } = await metrics.scrape();
  const known = new Set(
    [...text.matchAll(/^# TYPE (\S+) (\S+)/gm)].flatMap(([, name, type]) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!],
    ),
  );
  let named = 0;
  for (const [file, expression] of expressions()) {
    for (const name of metricsIn(expression)) {
      named++;
      assert.ok(known.has(name), `${file}: '${name}' in ${expression}`);
    }
  }
  assert.ok(named > 0);
});

/** Names of series in a PromQL expression: what is neither a function, a keyword, a label nor a number. */
function metricsIn(expression: string): string[] {
  const bare = expression
    .replaceAll(/\{[^}]*\}/g, '')
    .replaceAll(/\[[^\]]*\]/g, '')
    .replaceAll(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, '')
    .replaceAll(/"[^"]*"/g, '');
  return [...bare.matchAll(/\b[a-z_][a-z0-9_:]*\b(?!\s*\()/gi)]
    .map(([name]) => name)
    .filter((name) => !/^(and|or|unless|bool|offset|by|inf|nan|e|up)$/i.test(name));
}

function* expressions(): Generator<readonly [file: string, expression: string]> {
  const alerts = parse(read('deploy/prometheus/alerts.yml')) as { groups: { rules: { expr: string }[] }[] };
  for (const { rules } of alerts.groups) for (const { expr } of rules) yield ['alerts.yml', expr];
  for (const file of FILES.filter((path) => path.startsWith('deploy/grafana/dashboards/'))) {
    const found: string[] = [];
    JSON.parse(read(file), (key, value: unknown) => {
      if (key === 'expr') found.push(value as string);
      return value;
    });
    assert.ok(found.length > 0, file);
    for (const expr of found) yield [file, expr.replaceAll('$__rate_interval', '5m')];
  }
  const query = /query: (.*)/.exec(read('deploy/helm/facefusion-jobs/templates/operators.yaml'));
  yield ['operators.yaml', query![1]!.replaceAll(/\{\{[^}]*\}\}/g, '')];
}

describe('images', () => {
  test('the Dockerfile has nothing that its linter objects to', async () => {
    const { stdout } = await run(python(), ['-c', 'import sysconfig; print(sysconfig.get_path("scripts"))']);
    await run(join(stdout.trim(), 'hadolint'), ['--no-color', join(ROOT, 'Dockerfile')]);
  });

  const stages = stagesOf(read('Dockerfile'));
  const lets = contextFilter(read('.dockerignore'));

  test('what it copies is there, and the build context lets it in', () => {
    let copied = 0;
    for (const { name, rest, line } of stages.flatMap(({ instructions }) => instructions)) {
      if (name !== 'COPY') continue;
      const [from, ...sources] = rest.split(/\s+/).slice(0, -1);
      if (from!.startsWith('--from=')) {
        assert.ok(
          stages.some((stage) => `--from=${stage.name}` === from),
          `line ${line} copies from a stage that is not there`,
        );
        continue;
      }
      for (const source of [from!, ...sources].filter((one) => one !== '.')) {
        copied++;
        assert.ok(existsSync(join(ROOT, source)), `line ${line}: there is no ${source}`);
        assert.ok(lets(source), `line ${line}: ${source} is kept out of the build context`);
      }
    }
    assert.ok(copied >= 4);
  });

  test('nothing goes into the build context but what an image is made from', () => {
    for (const path of ['src/main.ts', 'worker/facefusion_worker/worker.py', 'web/index.html', 'package-lock.json'])
      assert.ok(lets(path), path);
    const kept = [
      '.git/config',
      'data/jobs.db',
      'test/deploy.test.ts',
      'web/dist/index.html',
      'worker/tests/test_media.py',
      'node_modules/x/index.js',
    ];
    for (const path of [...kept, 'worker/facefusion_worker/__pycache__/worker.pyc', 'keys.json']) assert.ok(!lets(path), path);
  });

  test('a Dockerfile is read whole or not at all', () => {
    assert.deepEqual(
      stages.map(({ name }) => name),
      ['package', 'cpu-python', 'cuda-system', 'cuda-python', 'cuda', 'cpu'],
    );
    assert.match(stages[0]!.base, /^node:\d/, 'the value of a build argument is in its place');
    assert.throws(() => stagesOf('FROM a AS b\nADD x /x'), /line 2: ADD is not known here/);
    assert.throws(() => stagesOf('RUN true'), /line 1: RUN/);
    const [one] = stagesOf(['ARG BASE=a:1', 'FROM $' + '{BASE}', 'RUN x \\', '  # a comment', '  && y'].join('\n'));
    assert.deepEqual([one!.base, one!.instructions.map(({ rest }) => rest)], ['a:1', ['x   && y']]);
  });

  test('an image knows whether its service is well, in the clear and over TLS', async () => {
    using certificates = new Certificates();
    certificates.addAuthority('ca');
    certificates.sign('server', 'ca', { subject: '/CN=localhost' });
    const tls = { TLS_CERT: certificates.path('server.pem'), TLS_KEY: certificates.path('server.key') };
    const commands = [...read('Dockerfile').matchAll(/^HEALTHCHECK .*\\\n {2}CMD (\[.*\])$/gm)].map(
      ([, json]) => JSON.parse(json!) as string[],
    );
    assert.equal(commands.length, 2);
    for (const settings of [{}, tls]) {
      await using service = await startService({ HOST: '127.0.0.1', ...settings });
      for (const [, ...args] of commands) {
        const at = (port: string) => run(process.execPath, args, { env: { FFJOBS_PORT: port } });
        await at(new URL(service.baseUrl).port);
        await assert.rejects(at('1'));
      }
    }
  });

  test('an image refuses to serve the network until someone says who may call', () => {
    const instructions = read('Dockerfile').replaceAll(/^#.*$/gm, '');
    const env = Object.fromEntries([...instructions.matchAll(/\b(FFJOBS_[A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name!, value!]));
    assert.equal(env.FFJOBS_HOST, '0.0.0.0');
    assert.equal(env.FFJOBS_METRICS_HOST, '0.0.0.0', 'Prometheus is in another container');
    assert.throws(() => readConfig({ ...env, FFJOBS_ENGINE: 'classical' }, '/data'), /FFJOBS_ALLOW_ANONYMOUS/);
  });
});

interface Composition {
  readonly services: Record<
    string,
    {
      environment?: Record<string, string>;
      command?: string[];
      depends_on?: object;
      volumes?: string[];
      ports?: string[];
      secrets?: string[];
    }
  >;
  readonly volumes: object;
  readonly secrets: Record<string, { file: string }>;
}

describe('the composition', () => {
  const composition = parse(read('deploy/compose.yaml'), { merge: true }) as Composition;
  const image = { FFJOBS_HOST: '0.0.0.0', FFJOBS_DATA_DIR: '/data', FFJOBS_ENGINE: 'classical' };

  test('its services get settings that the service takes', () => {
    for (const name of ['api', 'worker']) {
      const { environment, command } = composition.services[name]!;
      const role = command!.at(-1)!;
      const config = readConfig({ ...image, ...environment, FFJOBS_ROLE: role }, '/data');
      assert.equal(config.role, name);
    }
  });

  test('what it refers to is there, and nothing is published beyond this machine', () => {
    for (const [name, service] of Object.entries(composition.services)) {
      for (const other of Object.keys(service.depends_on ?? {})) assert.ok(other in composition.services, `${name} depends on ${other}`);
      for (const volume of service.volumes ?? []) {
        const source = volume.split(':')[0]!;
        if (source.startsWith('.')) assert.ok(globSync(source, { cwd: join(ROOT, 'deploy') }).length > 0, `${name}: ${source}`);
        else assert.ok(source in composition.volumes, `${name}: ${source}`);
      }
      for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/, name);
    }
  });

  test('with certificates: each process has the secrets that its settings name, and no others', () => {
    const more = parse(read('deploy/compose.certificates.yaml')) as Composition;
    const configs = ['api', 'worker'].map((name) => {
      const { environment = {}, secrets = [] } = more.services[name]!;
      const named = Object.values(environment).flatMap((value) => /^\/run\/secrets\/(.+)$/.exec(value)?.[1] ?? []);
      assert.deepEqual(named.toSorted(), secrets.toSorted(), name);
      for (const secret of secrets) assert.ok(secret in more.secrets, secret);
      const all = { ...image, ...composition.services[name]!.environment, ...environment, FFJOBS_ROLE: name };
      return readConfig(all, '/data');
    });
    for (const { identities, anonymousScopes } of configs) assert.deepEqual([identities, anonymousScopes], [true, undefined]);
    const [api, worker] = configs;
    assert.deepEqual([api!.tlsKey, worker!.tlsKey], ['/run/secrets/tls.key', undefined]);
    assert.deepEqual([api!.provenanceSigner, worker!.provenanceSigner?.key], [undefined, '/run/secrets/marks.key']);
  });
});

test('the units start what the package has', () => {
  for (const file of FILES.filter((path) => path.startsWith('deploy/systemd/'))) {
    const unit = read(file);
    assert.match(unit, /^ExecStart=\/opt\/facefusion-jobs\/bin\/ffjobs\.mjs serve/m);
    const drain = 30;
    assert.ok(Number(/^TimeoutStopSec=(\d+)s$/m.exec(unit)![1]) > drain, `${file} kills before a drain has ended`);
  }
});

test('the service is started with the same options of Node everywhere, and the benches measure it with them', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  assert.match(scripts.start!, new RegExp(`node24\\.mjs ${NODE_OPTIONS.join(' ')} src/main\\.ts serve$`));
  for (const name of ['cpu', 'cuda']) {
    const image = stagesOf(read('Dockerfile')).find((stage) => stage.name === name)!;
    const entry = image.instructions.find((instruction) => instruction.name === 'ENTRYPOINT')!;
    assert.deepEqual(JSON.parse(entry.rest), ['tini', '--', 'node', ...NODE_OPTIONS, '/app/bin/ffjobs.mjs']);
  }
  for (const file of FILES.filter((path) => path.startsWith('deploy/systemd/'))) {
    assert.equal(/^Environment=NODE_OPTIONS=(.*)$/m.exec(read(file))?.[1], NODE_OPTIONS.join(' '), file);
  }
});

interface Resource {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly template: { readonly spec: PodSpec } };
}

interface PodSpec {
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string; readonly secret?: { readonly secretName: string; readonly defaultMode: number } }[];
}

interface Monitor {
  readonly endpoints: readonly { readonly authorization?: { readonly credentials: object } }[];
}

interface Probe {
  readonly httpGet: { readonly scheme?: string };
}

interface Container extends Record<'startupProbe' | 'livenessProbe' | 'readinessProbe', Probe> {
  readonly env: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
}

describe('the chart', { skip: await lacksHelm() }, () => {
  const template = async (...sets: string[]) => {
    const args = ['template', 'release', CHART, '--kube-version', '1.34.0', ...sets.flatMap((set) => ['--set', set])];
    return (await run('helm', args, { maxBuffer: 2 ** 24 })).stdout;
  };
  const everything = [
    'secretName=store',
    'keda.enabled=true',
    'serviceMonitor.enabled=true',
    'api.ingress.enabled=true',
    'api.ingress.tlsSecret=tls',
    'networkPolicy.egress.restrict=true',
    'worker.modelsClaim=models',
    'filesSecret=extra',
    'settings.FFJOBS_TENANTS=/etc/facefusion-jobs/files/tenants.json',
    'serviceMonitor.tokenKey=metrics-token',
    'settings.FFJOBS_METRICS_TOKEN_FILE=/etc/facefusion-jobs/files/metrics-token',
    'certificates.tls=web',
    'certificates.clientCa=callers',
    'certificates.marks=signer',
    'certificates.marksTrust=true',
  ];

  test('is well made', async () => {
    await run('helm', ['lint', '--strict', CHART, '--set', 'secretName=store']);
  });

  test('certificates are files of those that need them, and settings name the files', async () => {
    const documents = parseAllDocuments(await template(...everything)).map((one) => one.toJS() as Resource);
    const image = { FFJOBS_HOST: '0.0.0.0', FFJOBS_DATA_DIR: '/data', FFJOBS_ENGINE: 'classical' };
    const store = { FFJOBS_STORE: 'redis://redis:6379', FFJOBS_BLOBS: 's3://bucket/x' };
    const pods = ['api', 'worker'].map((kind) => {
      const { spec } = documents.find((one) => one.kind === 'Deployment' && one.metadata.name.endsWith(`-${kind}`))!.spec.template;
      const [container] = spec.containers;
      const settings = Object.fromEntries(container!.env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
      // Every file that a setting names is below a mount of a volume of a Secret.
      const mounts = new Map(container!.volumeMounts.map(({ name, mountPath }) => [mountPath, name]));
      for (const [name, value] of Object.entries(settings).filter(([, value]) => value.startsWith('/etc/facefusion-jobs/'))) {
        const volume = spec.volumes.find((one) => one.name === mounts.get(value.slice(0, value.lastIndexOf('/'))));
        assert.deepEqual([volume?.secret?.defaultMode, typeof volume?.secret?.secretName], [0o440, 'string'], `${kind}: ${name}`);
      }
      const config = readConfig({ ...image, ...store, ...settings, FFJOBS_ROLE: kind }, '/data');
      return { config, container: container!, secrets: spec.volumes.flatMap(({ secret }) => secret?.secretName ?? []).toSorted() };
    });
    const [api, worker] = pods;
    assert.deepEqual(api!.secrets, ['callers', 'extra', 'web']);
    assert.deepEqual(worker!.secrets, ['callers', 'extra', 'signer']);
    assert.deepEqual([api!.config.tlsKey, worker!.config.tlsKey], ['/etc/facefusion-jobs/tls/tls.key', undefined]);
    assert.equal(api!.config.provenanceSigner, undefined);
    assert.equal(worker!.config.provenanceSigner?.trust, '/etc/facefusion-jobs/marks/ca.crt');
    for (const { config } of pods) assert.ok(config.identities);
    for (const name of ['startupProbe', 'livenessProbe', 'readinessProbe'] as const) {
      assert.equal(api!.container[name].httpGet.scheme, 'HTTPS');
      assert.notEqual(worker!.container[name].httpGet.scheme, 'HTTPS');
    }
    const monitor = documents.find((one) => one.kind === 'ServiceMonitor')!.spec as unknown as Monitor;
    assert.deepEqual(monitor.endpoints[0]!.authorization?.credentials, { name: 'extra', key: 'metrics-token' });
    await assert.rejects(template('secretName=store', 'serviceMonitor.enabled=true', 'serviceMonitor.tokenKey=x'), /filesSecret/);
    await assert.rejects(template('secretName=store', 'certificates.clientCa=callers'), /certificates/);
    await assert.rejects(template('secretName=store', 'certificates.marksTrust=true'), /certificates/);
  });

  for (const [name, sets] of Object.entries({ 'as it comes': ['secretName=store'], 'with everything': everything })) {
    test(`gives what Kubernetes takes, ${name}`, async (t) => {
      const folder = await mkdtemp(join(tmpdir(), 'chart-'));
      t.after(() => rm(folder, { recursive: true, force: true }));
      const file = join(folder, 'all.yaml');
      await writeFile(file, await template(...sets));
      await run(python(), ['-m', 'kubernetes_validate', '--strict', '-k', '1.34', file]);
    });
  }

  test('refuses what it does not know, and to go without a store', async () => {
    await assert.rejects(template('secretName=store', 'api.replica=3'), /replica/);
    await assert.rejects(template('secretName=store', 'settings.PORT=1'), /settings/);
    await assert.rejects(template(), /secretName/);
  });

  test('a GPU is asked for once for each pod, and not at all where there is none', async () => {
    assert.match(await template('secretName=store'), /nvidia\.com\/gpu: 1/);
    assert.doesNotMatch(await template('secretName=store', 'worker.gpus=0', 'worker.tolerations=null'), /nvidia/);
  });
});

async function lacksHelm(): Promise<string | false> {
  return run('helm', ['version']).then(
    () => false,
    () => 'machine: helm is not on the PATH (https://helm.sh, or `go install helm.sh/helm/v3/cmd/helm@latest`)',
  );
}
