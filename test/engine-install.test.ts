// `ffjobs engine`: FaceFusions side by side, from a repository in a folder and with programs that only say that they are Python and pip; no network.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readFileSync, realpathSync } from 'node:fs';
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, test } from 'node:test';
import { requirementsOf } from '../src/cli/local/engine/install.ts';
import { EngineRegistry } from '../src/cli/local/engine/registry.ts';
import { readSettings } from '../src/cli/local/settings.ts';
import { FakeMachine } from './cli/fake-python.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const ENGINE = {
  kind: 'engine',
  version: '3.8.1',
  release: '3.8',
  providers: ['cpu'],
  hooks: 71,
  processors: ['face_swapper'],
  options: 82,
};
const THERE = { kind: 'model', name: 'nsfw_1', path: '/m/nsfw_1.onnx', state: 'present', bytes: 7 };
const MISSING = { kind: 'model', name: 'hyperswap_1a_256', path: '/m/h.onnx', state: 'missing', bytes: 0 };
const GIT = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim();

let machine: FakeMachine;
let terminal: FakeTerminal;
let repository: string;

const local = (...args: string[]) =>
  ffjobs(args, terminal, { env: { ...machine.env, FFJOBS_METRICS_PORT: 'off', FFJOBS_PORT: '0' }, cwd: machine.root, root: machine.root });
const registry = () => new EngineRegistry(join(machine.root, 'data'));
const config = (env: Record<string, string> = {}) => readSettings(env, machine.root);

function git(...args: string[]): void {
  const identity = ['-c', 'user.name=a', '-c', 'user.email=a@example.com', '-c', 'init.defaultBranch=main', '-c', 'commit.gpgsign=false'];
  execFileSync(GIT, [...identity, '-C', repository, ...args], { stdio: 'pipe' });
}

async function release(version: string): Promise<void> {
  await writeFile(
    join(repository, 'facefusion', 'metadata.py'),
    `METADATA =\\\n{\n\t'name': 'FaceFusion',\n\t'version': '${version}'\n}\n`,
  );
  git('add', '-A');
  git('commit', '-qm', version);
}

beforeEach(async (t) => {
  const fresh = await FakeMachine.make();
  (t as { after(fn: () => unknown): void }).after(() => rm(fresh.root, { recursive: true, force: true }));
  machine = fresh;
  terminal = new FakeTerminal();
  repository = join(machine.root, 'repository');
  await mkdir(join(repository, 'facefusion'), { recursive: true });
  await writeFile(join(repository, 'facefusion', 'core.py'), '');
  await writeFile(join(repository, 'requirements.txt'), 'gradio==5\nnumpy==2.4.6\nonnxruntime==1.28.0\n');
  git('init', '-q');
  await release('3.8.1');
  git('tag', '3.8.1');
  git('checkout', '-qb', 'v4');
  await release('v4');
  await machine.addPython({ version: '3.12.1', name: 'python3.12' });
  await machine.addReal(GIT);
  for (const tool of ['ffmpeg', 'ffprobe', 'curl']) await machine.addProgram(tool);
  await machine.engineSays('check', [{ kind: 'tool', name: 'ffmpeg', path: '/f', version: 'ffmpeg 5' }, ENGINE]);
  await machine.engineSays('models', [THERE, MISSING], 1);
});

describe('engine install', () => {
  test('checks out the release, makes its environment, holds it to the hooks, and says which models are there', async () => {
    assert.equal(await local('engine', 'install', 'facefusion', '--source', repository), 0, terminal.stderr);
    const record = registry().get('facefusion-3.8.1')!;
    assert.match(record.commit!, /^[0-9a-f]{40}$/);
    assert.ok(existsSync(join(record.home, 'facefusion', 'core.py')));
    assert.ok(existsSync(record.python));
    const folder = registry().folderOf('facefusion-3.8.1');
    assert.equal(
      readFileSync(join(folder, 'requirements.txt'), 'utf8'),
      'numpy==2.4.6\nonnxruntime==1.28.0\nav==18.1.0\nc2pa-python==1\ncryptography==2\n',
    );
    const done = machine.calls.map((call) => call.replaceAll(machine.root, ''));
    assert.deepEqual(done, [
      'venv',
      'pip -m pip install --disable-pip-version-check --no-input -q -r /data/engines/facefusion-3.8.1/requirements.txt',
      'engine check --json in /data/engines/facefusion-3.8.1/source',
      'engine models --json in /data/engines/facefusion-3.8.1/source',
    ]);
    assert.match(terminal.stdout, /all 71 hooks are there; runs on cpu/);
    assert.match(terminal.stdout, /there: nsfw_1\. not there: hyperswap_1a_256; `ffjobs engine warm` downloads them, no job does/);
    assert.match(terminal.stdout, /facefusion-3\.8\.1 is installed and in use/);
    assert.deepEqual([config().engine, config().facefusion?.installed], ['facefusion', 'facefusion-3.8.1']);
  });

  test('again: looked at, and nothing made; what was broken off is made anew', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    const before = machine.calls.length;
    assert.equal(await local('engine', 'install', 'facefusion', '--source', repository), 0);
    assert.deepEqual(
      machine.calls.slice(before).map((call) => call.split(' ').slice(0, 2).join(' ')),
      ['engine check', 'engine models'],
    );
    await rm(join(registry().folderOf('facefusion-3.8.1'), 'engine.json'));
    assert.throws(() => config(), /the engine in use is facefusion-3\.8\.1, which is not whole/);
    assert.equal(await local('engine', 'install', 'facefusion', '--source', repository), 0);
    assert.equal(config().engine, 'facefusion');
  });

  test('one from before results could be marked is given what that takes', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    await machine.addPython({ version: '3.12.1', name: 'older', lacks: ['c2pa'] });
    await cp(join(machine.bin, 'older'), registry().get('facefusion-3.8.1')!.python);
    const before = machine.calls.length;
    assert.equal(await local('engine', 'install', 'facefusion', '--source', repository), 0, terminal.stderr);
    const pip = `pip -m pip install --disable-pip-version-check --no-input -q -r ${join(machine.root, 'worker', 'requirements-provenance.txt')}`;
    assert.equal(machine.calls.slice(before).at(-1), pip);
    assert.match(terminal.stderr, /installing what marks results: c2pa/);
  });

  test('several versions side by side share their models; one is in use, and it cannot be removed', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    assert.equal(await local('engine', 'install', 'facefusion', '--version', 'v4', '--source', repository, '--json'), 0, terminal.stderr);
    assert.deepEqual(
      registry()
        .list()
        .map(({ name }) => name),
      ['facefusion-3.8.1', 'facefusion-v4'],
    );
    const models = registry()
      .list()
      .map(({ home }) => realpathSync(join(home, '.assets', 'models')));
    assert.equal(new Set(models).size, 1);
    const last = terminal.lines.at(-1)!;
    assert.deepEqual([JSON.parse(last).name, JSON.parse(last).in_use], ['facefusion-v4', false]);
    assert.match(registry().get('facefusion-v4')!.home, /v4\/source$/);

    assert.equal(config().facefusion?.installed, 'facefusion-3.8.1');
    assert.equal(await local('engine', 'remove', '3.8.1'), 2);
    assert.match(terminal.stderr, /facefusion-3\.8\.1 is in use: choose another one/);
    assert.equal(await local('engine', 'use', 'v4'), 0);
    assert.equal(config().facefusion?.installed, 'facefusion-v4');
    assert.equal(await local('engine', 'remove', '3.8.1'), 0);
    assert.ok(existsSync(models[0]!));
    assert.equal(await local('engine', 'list'), 0);
    assert.match(terminal.stdout, /^\* facefusion-v4 /m);
    assert.match(terminal.stderr, /The service starts on: facefusion \(facefusion-v4, installed in /);
    assert.equal(await local('engine', 'use', 'classical'), 0);
    assert.equal(config().engine, 'classical');
    assert.equal(await local('engine', 'use', '9.9'), 5);
    assert.match(terminal.stderr, /facefusion-9\.9 is not installed; there is: facefusion-v4/);
  });

  test('a plain checkout is copied, and says its version itself', async () => {
    const plain = join(machine.root, 'plain');
    await cp(repository, plain, { recursive: true, filter: (path) => !path.endsWith('.git') });
    await mkdir(join(plain, '.assets', 'models'), { recursive: true });
    assert.equal(await local('engine', 'install', 'facefusion', '--version', '3.8.1', '--source', plain), 1);
    assert.match(terminal.stderr, /is FaceFusion v4, not 3\.8\.1/);
    assert.equal(await local('engine', 'install', 'facefusion', '--source', plain), 0);
    const { home, commit } = registry().get('facefusion-v4')!;
    assert.equal(commit, undefined);
    assert.ok(lstatSync(join(home, '.assets')).isSymbolicLink());
  });

  test('the onnxruntime of the release’s own choices, the newest where several fit', async () => {
    assert.equal(await local('engine', 'install', 'facefusion', '--source', repository, '--onnxruntime', 'cuda'), 0);
    assert.match(readFileSync(join(registry().folderOf('facefusion-3.8.1'), 'requirements.txt'), 'utf8'), /^onnxruntime-gpu==1\.28\.0$/m);
    assert.equal(await local('engine', 'install', 'facefusion', '--source', repository, '--onnxruntime', 'metal'), 1);
    assert.match(terminal.stderr, /--onnxruntime is 'metal'; this release knows here: default, cuda@12, cuda@13/);
  });

  test('an older Python takes the newest packages that there are for it', () => {
    const list = 'gradio-rangeslider==0.0.8\ngradio==5.50.0\nnumpy==2.4.6 # why\n\nonnxruntime==1.28.0\nscipy==1.18.0\n';
    assert.equal(
      requirementsOf(list, 'onnxruntime-gpu==1.28.0', '3.12.1'),
      'numpy==2.4.6\nscipy==1.18.0\nonnxruntime-gpu==1.28.0\nav==18.1.0\n',
    );
    assert.equal(requirementsOf(list, 'onnxruntime==1.28.0', '3.10.13'), 'numpy<=2.4.6\nscipy<=1.18.0\nonnxruntime<=1.28.0\nav==17.1.0\n');
  });

  const WRONG: readonly [what: string, arrange: () => Promise<unknown>, args: readonly string[], words: RegExp][] = [
    [
      'no ffmpeg',
      async () => Promise.all(['ffmpeg', 'ffprobe'].map((tool) => rm(join(machine.bin, tool)))),
      [],
      /ffmpeg, ffprobe are not on the PATH, and FaceFusion needs them: install them \(Debian, Ubuntu: apt install ffmpeg;/,
    ],
    ['no git', () => rm(join(machine.bin, 'git')), [], /git is not on the PATH.*apt install git/],
    ['a version that is not there', async () => {}, ['--version', '9.9.9'], /git could not get 9\.9\.9 from .*9\.9\.9 not found/],
    ['a version that is a path', async () => {}, ['--version', '../../x'], /is no version: a tag or branch/],
    ['a source that is not there', async () => {}, ['--source', 'nowhere'], /--source is 'nowhere', which is neither a URL nor a folder/],
    ['a folder of something else', async () => {}, ['--source', '.'], /neither a git repository nor a checkout of FaceFusion/],
    [
      'pip without a network',
      () => machine.addPython({ version: '3.12.1', name: 'python3.12', pipFails: 'ERROR: NewConnectionError: Network is unreachable' }),
      [],
      /pip could not reach its package index .*PIP_INDEX_URL/,
    ],
    [
      'a hook that is not there',
      () =>
        machine.engineSays(
          'check',
          [{ kind: 'error', reason: 'ENGINE_BROKEN', message: 'FaceFusion 3.8.1 lacks what this engine takes hold of: x.y.' }],
          1,
        ),
      [],
      /FaceFusion 3\.8\.1 is not as it has to be: FaceFusion 3\.8\.1 lacks what this engine takes hold of: x\.y/,
    ],
    ['a Python that is none', async () => {}, ['--python', '/nowhere'], /--python is '\/nowhere', which is not a Python that runs/],
  ];
  for (const [what, arrange, args, words] of WRONG) {
    test(`${what}: one sentence, and no engine`, async () => {
      await arrange();
      const source = args.includes('--source') ? [] : ['--source', repository];
      assert.equal(await local('engine', 'install', 'facefusion', ...source, ...args), 1);
      assert.match(terminal.stderr, words);
      assert.deepEqual(registry().list(), []);
      assert.equal(config().engine, 'classical');
    });
  }

  test('another name than facefusion is a wrong use', async () => {
    assert.equal(await local('engine', 'install', 'deepfake'), 2);
    assert.match(terminal.stderr, /there is no engine 'deepfake' to install; there is: facefusion/);
  });

  test('the program’s own --version is still its own', async () => {
    assert.equal(await local('--version'), 0);
    assert.equal(terminal.stdout.trim(), '0.0.0');
  });
});

describe('engine warm', () => {
  test('hands on the progress of the download, and its failures', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    await machine.engineSays('warm', [
      { kind: 'progress', name: 'hyperswap_1a_256.onnx', done: 5, total: 10 },
      { kind: 'done', fetched: 1 },
    ]);
    assert.equal(await local('engine', 'warm', '--processors', 'face_swapper', 'face_enhancer'), 0);
    assert.match(machine.calls.at(-1)!, /^engine warm --processors face_swapper face_enhancer --json/);
    const env = { ...machine.env, FFJOBS_PORT: '0', AWS_SECRET_ACCESS_KEY: 'of the service', HTTPS_PROXY: 'http://way.out:3128' };
    assert.equal(await ffjobs(['engine', 'warm'], terminal, { env, cwd: machine.root, root: machine.root }), 0);
    assert.match(machine.calls.at(-1)!, /^engine warm .* in [^ ]+ by http:\/\/way\.out:3128$/);
    assert.match(terminal.stderr, /fetching hyperswap_1a_256\.onnx: 5 B of 10 B/);
    assert.match(terminal.stdout, /the models of face_swapper, face_enhancer are there; 1 of them were fetched/);
    await machine.engineSays(
      'warm',
      [
        { kind: 'failed', name: 'gfpgan_1.4', state: 'missing' },
        { kind: 'done', fetched: 0 },
      ],
      1,
    );
    assert.equal(await local('engine', 'warm'), 1);
    assert.match(terminal.stderr, /The model gfpgan_1\.4 could not be fetched/);
  });

  test('the plain engine has nothing to fetch', async () => {
    assert.equal(await local('engine', 'warm'), 2);
    assert.match(terminal.stderr, /the engine is classical, which has no models to fetch/);
  });
});

describe('a FaceFusion that is broken', () => {
  const refused = 'FaceFusion 3.8.1 lacks what this engine takes hold of: x.y.';

  test('is told by doctor, with its fix, and never replaced by another engine', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    await machine.engineSays('check', [{ kind: 'error', reason: 'ENGINE_BROKEN', message: refused }], 1);
    assert.equal(await local('doctor', '--json'), 1);
    const findings = terminal.lines.filter((line) => line.startsWith('{"fix"')).map((line) => JSON.parse(line));
    const finding = findings.find(({ check }) => check === 'engine');
    assert.deepEqual([finding.state, finding.detail], ['fail', refused]);
    assert.match(finding.fix, /`ffjobs engine install facefusion` mends it/);
  });

  test('ends the start with its own sentence, once', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    let closed = 0;
    const startApp = async () => ({
      address: 'http://127.0.0.1:1',
      unfit: Promise.resolve(refused),
      close: async () => {
        closed++;
      },
    });
    const serving = new FakeTerminal();
    const surroundings = { env: { ...machine.env, FFJOBS_METRICS_PORT: 'off' }, cwd: machine.root, root: machine.root, startApp };
    assert.equal(await ffjobs(['serve'], serving, surroundings), 1);
    assert.equal(closed, 1);
    assert.equal(serving.stderr.split(refused).length, 2);
    assert.match(serving.stderr, /Engine: facefusion \(facefusion-3\.8\.1, installed in /);
  });

  test('whose Python lacks what media are examined with is told before the start', async () => {
    await local('engine', 'install', 'facefusion', '--source', repository);
    await machine.addPython({ version: '3.12.1', name: 'lacking', lacks: ['av'] });
    await cp(join(machine.bin, 'lacking'), registry().get('facefusion-3.8.1')!.python);
    const serving = new FakeTerminal();
    assert.equal(await ffjobs(['serve'], serving, { env: machine.env, cwd: machine.root, root: machine.root }), 1);
    assert.match(
      serving.stderr,
      /the Python of facefusion-3\.8\.1 is '.*', which lacks av: run `.* -m pip install av==18\.1\.0`, or run `ffjobs engine install/,
    );
  });
});
