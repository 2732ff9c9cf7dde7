// What operators install with: images, the composition, the chart, units. No container engine is needed: each file is held against the code (a
// setting that is not there would be refused at start) and against what its own program says of it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { OTHERS, readConfig, SETTINGS } from '../src/config.ts';
import { createMetrics } from '../src/telemetry/metrics.ts';
import { python, ROOT } from './api/service.ts';

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

  test('what it copies is there, and the build context lets it in', () => {
    const ignored = read('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'));
    for (const [, sources] of read('Dockerfile').matchAll(/^COPY (?!--from)(.+) \S+$/gm)) {
      for (const source of sources!.split(' ').filter((one) => one !== '.')) {
        assert.ok(globSync(source, { cwd: ROOT }).length > 0, source);
        assert.ok(
          ignored.some((line) => source.startsWith(line.slice(1))),
          `${source} is kept out of the build context`,
        );
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

describe('the composition', () => {
  const composition = parse(read('deploy/compose.yaml'), { merge: true }) as {
    services: Record<
      string,
      { environment?: Record<string, string>; command?: string[]; depends_on?: object; volumes?: string[]; ports?: string[] }
    >;
    volumes: object;
  };

  test('its services get settings that the service takes', () => {
    for (const name of ['api', 'worker']) {
      const { environment, command } = composition.services[name]!;
      const role = command!.at(-1)!;
      const image = { FFJOBS_HOST: '0.0.0.0', FFJOBS_DATA_DIR: '/data', FFJOBS_ENGINE: 'classical' };
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
});

test('the units start what the package has', () => {
  for (const file of FILES.filter((path) => path.startsWith('deploy/systemd/'))) {
    const unit = read(file);
    assert.match(unit, /^ExecStart=\/opt\/facefusion-jobs\/bin\/ffjobs\.mjs serve/m);
    const drain = 30;
    assert.ok(Number(/^TimeoutStopSec=(\d+)s$/m.exec(unit)![1]) > drain, `${file} kills before a drain has ended`);
  }
});

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
  ];

  test('is well made', async () => {
    await run('helm', ['lint', '--strict', CHART, '--set', 'secretName=store']);
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
