// What a person meets when something on the machine is not as the service needs it: one sentence with the fix, and an exit code.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { InspectFleetStore } from '../src/cli/local/doctor.ts';
import { findPython, type PythonOptions, venvPython, venvState, workerPython } from '../src/cli/local/python.ts';
import type { StartApp } from '../src/cli/local/serve.ts';
import type { Surroundings } from '../src/cli/program.ts';
import type { Config } from '../src/config.ts';
import { FakeMachine } from './cli/fake-python.ts';
import { FakeService } from './cli/fake-service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { follow } from './fixtures/child.ts';

const MAIN = join(import.meta.dirname, '..', 'src', 'main.ts');

/** Runs the command line given to it at a pseudo-terminal and types there: Ctrl-C when the job is shown, then the answer to the question. */
const AT_A_TERMINAL = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
keys = [(b'queued', b'\\x03'), (b'go on watching', b'y\\n')]
shown = b''
while True:
    try:
        data = os.read(terminal, 65536)
    except OSError:
        break
    if not data:
        break
    shown += data
    if keys and keys[0][0] in shown:
        os.write(terminal, keys.pop(0)[1])
sys.stdout.buffer.write(shown)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

let machine: FakeMachine;
let terminal: FakeTerminal;
beforeEach(async (t) => {
  const fresh = await FakeMachine.make();
  machine = fresh;
  terminal = new FakeTerminal();
  (t as { after(fn: () => unknown): void }).after(() => rm(fresh.root, { recursive: true, force: true }));
});

describe('the worker’s Python', () => {
  const prepare = (more: Partial<PythonOptions> = {}) =>
    workerPython({ root: machine.root, given: undefined, env: machine.env, dev: false, report: (phase) => phases.push(phase), ...more });
  let phases: string[] = [];
  beforeEach(() => {
    phases = [];
  });

  test('is made once, and again only when the requirements have changed', async () => {
    await machine.addPython();
    assert.equal(await venvState(machine.root), 'missing');
    assert.equal(await prepare(), venvPython(machine.root));
    assert.match(machine.calls.join('\n'), /^venv\npip -m pip install --disable-pip-version-check .* -r .*requirements\.txt$/);
    assert.equal(phases.length, 2);
    assert.equal(await venvState(machine.root), 'ready');

    await prepare();
    assert.equal(machine.calls.length, 2, 'nothing to do');

    await appendFile(join(machine.root, 'worker', 'requirements.txt'), 'numpy==2\n');
    assert.equal(await venvState(machine.root), 'outdated');
    await prepare();
    assert.equal(machine.calls.length, 3, 'installed again, not made again');

    await prepare({ dev: true });
    assert.match(machine.calls[3]!, /requirements-dev\.txt/);
    await prepare();
    await prepare({ dev: true });
    assert.equal(machine.calls.length, 4);
  });

  test('two at once: one does the work, the other waits for it', async () => {
    const go = join(machine.root, 'go');
    await machine.addPython({ pipWaitsFor: go });
    const waiting = Promise.withResolvers<void>();
    const report = (phase: string) => {
      if (phase.startsWith('another process')) waiting.resolve();
    };
    const both = Promise.all([prepare({ report }), prepare({ report })]);
    await waiting.promise;
    await writeFile(go, '');
    assert.deepEqual(await both, [venvPython(machine.root), venvPython(machine.root)]);
    assert.equal(machine.calls.length, 2);
  });

  test('a half-made one is not taken for a whole one', async () => {
    await machine.addPython({ pipFails: 'ERROR: boom' });
    await assert.rejects(prepare(), /could not install the worker's packages: boom\. Mend that/);
    assert.equal(await venvState(machine.root), 'outdated');
    await rm(join(machine.root, '.venv'), { recursive: true });
    await machine.addPython();
    await prepare();
    assert.equal(await venvState(machine.root), 'ready');
  });

  test('an environment whose Python is gone is made anew', async () => {
    await machine.addPython();
    await prepare();
    await rm(venvPython(machine.root));
    await prepare();
    assert.equal(machine.calls.filter((call) => call === 'venv').length, 2);
  });

  test('an old python3 is passed over for a newer one beside it', async () => {
    await machine.addPython({ version: '3.8.10' });
    await machine.addPython({ version: '3.12.1', name: 'python3.12' });
    await prepare();
    assert.match(phases[0]!, /with Python 3\.12\.1/);
  });

  const none = (_: unknown) => undefined;
  const WRONG: readonly [what: string, arrange: () => Promise<Partial<PythonOptions> | undefined>, words: RegExp][] = [
    [
      'no Python at all',
      async () => {},
      /Python 3\.10 or newer is needed and none was found on the PATH\. Install it .*apt install python3/,
    ],
    [
      'an old Python',
      async () => none(await machine.addPython({ version: '3.9.18' })),
      /too old here: python3 is 3\.9\.18, and 3\.10 or newer is needed/,
    ],
    [
      'no venv module, as on Debian',
      async () =>
        none(
          await machine.addPython({
            venvFails: 'The virtual environment was not created successfully because ensurepip is not available.',
          }),
        ),
      /cannot make virtual environments.*apt install python3-venv, or python3\.11-venv/,
    ],
    [
      'a network that is not there',
      async () =>
        none(
          await machine.addPython({
            pipFails:
              'WARNING: Retrying after NewConnectionError: Temporary failure in name resolution\nERROR: Could not find a version that satisfies av\nERROR: No matching distribution found for av==1\n[notice] a new release',
          }),
        ),
      /could not reach its package index \(No matching distribution found for av==1\): connect to the network, or point pip at an index of yours/,
    ],
    [
      'a full disk',
      async () => none(await machine.addPython({ pipFails: 'ERROR: [Errno 28] No space left on device' })),
      /the disk is full/,
    ],
    [
      'a package that is not there',
      async () => none(await machine.addPython({ pipFails: 'ERROR: No matching distribution found for av==1' })),
      /No matching distribution found for av==1/,
    ],
    [
      'a folder that cannot be written',
      async () => none(await writeFile(join(machine.root, '.cache'), 'a file in the way')),
      /cannot write in .* \(EEXIST\): make it writable/,
    ],
    ['half a repository', async () => none(await rm(join(machine.root, 'worker', 'requirements.txt'))), /requirements\.txt is missing/],
    [
      'a Python of one’s own that is none',
      async () => ({ given: '/nowhere/python' }),
      /FFJOBS_PYTHON is '\/nowhere\/python', which is not a Python that runs/,
    ],
    [
      'packages that lack something of the system',
      async () => none(await machine.addPython({ lacks: ['cv2'] })),
      /are installed, and Python cannot import cv2: `.*python -c "import cv2"` says why/,
    ],
    [
      'a Python of one’s own that is old',
      async () => ({ given: await machine.addPython({ version: '3.7.1' }) }),
      /Python 3\.7\.1, and 3\.10 or newer is needed/,
    ],
    [
      'a Python of one’s own without the packages',
      async () => ({ given: await machine.addPython({ lacks: ['cv2', 'av'] }) }),
      /which lacks av, cv2: run `.* -m pip install -r .*requirements\.txt`/,
    ],
  ];
  for (const [what, arrange, words] of WRONG) {
    test(`${what}: one sentence with the fix`, async () => {
      const more = (await arrange()) ?? {};
      await assert.rejects(prepare(more), (error: Error) => {
        assert.equal(error.name, 'SetupProblem');
        assert.match(error.message, words);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      });
    });
  }

  test('a Python of one’s own that has all is used as it is', async () => {
    const given = await machine.addPython();
    assert.equal(await prepare({ given }), given);
    assert.deepEqual(machine.calls, []);
    assert.ok(!existsSync(join(machine.root, '.venv')));
  });
});

/** A local command on the fake machine. */
const local = (args: string[], env: Record<string, string> = {}, more: Partial<Surroundings> = {}) =>
  ffjobs(args, terminal, {
    env: { ...machine.env, FFJOBS_METRICS_PORT: 'off', ...env },
    cwd: machine.root,
    root: machine.root,
    ...more,
  });

async function taken(): Promise<{ port: number } & AsyncDisposable> {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    port,
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}

describe('doctor', () => {
  const findings = () =>
    Object.fromEntries(
      (terminal.json as { check: string; state: string; detail: string; fix: string | null }[]).map((one) => [one.check, one]),
    );

  test('a fresh machine that can: every line is ok or says that nothing is to do', async () => {
    await machine.addPython();
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: '0' }), 0);
    assert.deepEqual(
      Object.values(findings()).map(({ check, state }) => [check, state]),
      [
        ['node', 'ok'],
        ['settings', 'ok'],
        ['python', 'ok'],
        ['environment', 'warn'],
        ['gpu', 'ok'],
        ['data folder', findings()['data folder']!.state],
        ['port', 'ok'],
        ['job store', 'ok'],
      ],
    );
    assert.deepEqual((await readdir(machine.root)).sort(), ['bin', 'worker'], 'it leaves nothing behind');
  });

  test('a result store on S3 is tried, and what keeps it from being used is said with its fix', async () => {
    await machine.addPython();
    const settings = { FFJOBS_PORT: '0', FFJOBS_BLOBS: 's3://results/here', FFJOBS_S3_ENDPOINT: 'http://127.0.0.1:1' };
    assert.equal(await local(['doctor', '--json'], { ...settings, AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'secret' }), 1);
    const { state, detail, fix } = findings()['blob store']!;
    assert.equal(state, 'fail');
    assert.equal(detail, 's3://results/here/: the store at http://127.0.0.1:1 cannot be reached (ECONNREFUSED)');
    assert.equal(fix, 'look at the address, and whether it runs');
  });

  test('files that settings name, each problem with its fix', async () => {
    await machine.addPython();
    const fileFindings = async () => ({
      problems: ['FFJOBS_TLS_CERT: cert.pem was valid until yesterday: get a new certificate'],
      warnings: ['FFJOBS_TLS_KEY: every user of this machine can read key.pem: chmod 600 key.pem'],
    });
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: '0' }, { fileFindings }), 1);
    assert.deepEqual(
      terminal.json.filter((one) => (one as { check: string }).check === 'files'),
      [
        {
          check: 'files',
          state: 'fail',
          detail: 'FFJOBS_TLS_CERT: cert.pem was valid until yesterday',
          fix: 'get a new certificate',
        },
        {
          check: 'files',
          state: 'warn',
          detail: 'FFJOBS_TLS_KEY: every user of this machine can read key.pem',
          fix: 'chmod 600 key.pem',
        },
      ],
    );
  });

  test('the job store of a fleet is looked at where it is, and no file is spoken of', async () => {
    await machine.addPython();
    const env = { FFJOBS_PORT: '0', FFJOBS_STORE: 'redis://:secret@redis.example.com/2', FFJOBS_FLEET: 'north' };
    const asked: unknown[] = [];
    const inspectFleetStore: InspectFleetStore = async (at) => {
      asked.push(at);
      return { store: 'redis://:***@redis.example.com/2', version: '7.4.1', exists: true, warnings: ['Redis has appendfsync everysec'] };
    };
    assert.equal(await local(['doctor', '--json'], env, { inspectFleetStore }), 0);
    assert.deepEqual(asked, [{ url: env.FFJOBS_STORE, fleet: 'north' }]);
    const told = (terminal.json as { check: string; state: string; detail: string }[]).filter(({ check }) => check === 'job store');
    assert.deepEqual(
      told.map(({ state, detail }) => [state, detail]),
      [
        ['ok', "redis://:***@redis.example.com/2, version 7.4.1, holds the fleet 'north'"],
        ['warn', 'Redis has appendfsync everysec'],
      ],
    );
  });

  test('the job store of a fleet that cannot be used', async () => {
    await machine.addPython();
    const inspectFleetStore = () => Promise.reject(new Error('cannot open the job store redis://redis.example.com: it does not answer'));
    const env = { FFJOBS_PORT: '0', FFJOBS_STORE: 'redis://redis.example.com' };
    assert.equal(await local(['doctor', '--json'], env, { inspectFleetStore }), 1);
    const { state, detail, fix } = findings()['job store']!;
    assert.deepEqual([state, detail], ['fail', 'cannot open the job store redis://redis.example.com: it does not answer']);
    assert.match(fix!, /FFJOBS_STORE/);
  });

  test('lines for people say the fix', async () => {
    assert.equal(await local(['doctor'], { FFJOBS_PORT: '0' }), 1);
    assert.match(terminal.stdout, /^fail {2}python {8}Python 3\.10 or newer is needed and none was found on the PATH\. Install it/m);
    assert.match(terminal.stdout, /^warn|^ok/m);
  });

  test('wrong settings are all told', async () => {
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: 'many', FFJOBS_SLOTS: '0' }), 1);
    const problems = (terminal.json as { check: string; state: string; detail: string }[]).filter(({ check }) => check === 'settings');
    assert.equal(problems.length, 2);
    assert.match(problems[0]!.detail, /FFJOBS_PORT is 'many'/);
  });

  test('a port that another program has', async () => {
    await using other = await taken();
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: String(other.port) }), 1);
    const { state, detail, fix } = findings().port!;
    assert.equal(state, 'fail');
    assert.match(detail, /EADDRINUSE/);
    assert.match(fix!, /FFJOBS_PORT/);
  });

  test('a port that this service has already is no fault', async () => {
    await using service = await FakeService.start();
    await machine.addPython();
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: String(service.port) }), 0);
    assert.match(findings().port!.detail, /facefusion-jobs 1\.2\.3 runs here already/);
  });

  test('a data folder that cannot be, and a GPU that is not there', async () => {
    await writeFile(join(machine.root, 'file'), '');
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: '0', FFJOBS_DATA_DIR: './file/data', FFJOBS_GPUS: '0,1' }), 1);
    assert.equal(findings()['data folder']!.state, 'fail');
    assert.match(findings()['data folder']!.fix!, /FFJOBS_DATA_DIR/);
    assert.match(findings().gpu!.detail, /FFJOBS_GPUS names 0, 1; this machine has no NVIDIA GPU/);
  });

  test('a store that another process holds, and one that is none', async () => {
    await mkdir(join(machine.root, 'data'));
    const path = join(machine.root, 'data', 'jobs.db');
    const script = `const db = new (require('node:sqlite').DatabaseSync)(process.argv[1]); db.exec('PRAGMA journal_mode=WAL; PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t (a)'); console.log('held'); setInterval(() => {}, 1000)`;
    const holder = spawn(process.execPath, ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const held = follow(holder);
    await held.said(/held/);
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: '0' }), 1);
    assert.match(findings()['job store']!.detail, /is held by another process/);
    holder.kill('SIGKILL');
    await held.ended;
    for (const end of ['', '-wal', '-shm']) await rm(path + end, { force: true });
    await writeFile(path, 'not a database, and long enough that nobody takes it for an empty one'.repeat(20));
    terminal = new FakeTerminal();
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: '0' }), 1);
    assert.match(findings()['job store']!.detail, /not a database/);
  });

  test('packages that cannot be imported, and an engine of one’s own that is not there', async () => {
    const python = await machine.addPython({ lacks: ['cv2', 'my_engine'] });
    assert.equal(await local(['doctor', '--json'], { FFJOBS_PORT: '0', FFJOBS_PYTHON: python, FFJOBS_ENGINE: 'my_engine:Engine' }), 1);
    assert.match(findings().packages!.detail, /cv2 cannot be imported/);
    assert.match(findings().engine!.fix!, /FFJOBS_ENGINE_PATH/);
  });
});

describe('serve', () => {
  const app = () => {
    const closed = Promise.withResolvers<void>();
    const seen: { config?: Config; closing: boolean } = { closing: false };
    const start: StartApp = async (config) => {
      seen.config = config;
      return {
        address: 'http://127.0.0.1:1',
        close: () => {
          seen.closing = true;
          return closed.promise;
        },
      };
    };
    return { seen, start, finish: closed.resolve };
  };
  beforeEach(() => machine.addPython());

  test('prepares Python, says where it listens, drains on a signal and ends with 0', async () => {
    const { seen, start, finish } = app();
    const serving = local(['serve', '--json'], {}, { startApp: start });
    await terminal.until(/listening/);
    assert.deepEqual(terminal.json, [{ listening: 'http://127.0.0.1:1' }]);
    assert.equal(seen.config!.python, venvPython(machine.root));
    terminal.interrupt('SIGTERM');
    await terminal.until(/Stopping/);
    assert.equal(seen.closing, true);
    finish();
    assert.equal(await serving, 0);
  });

  test('a second signal does not wait for the drain', async () => {
    const { start } = app();
    const serving = local(['serve'], {}, { startApp: start });
    await terminal.until(/listens on/);
    terminal.interrupt();
    await terminal.until(/Stopping/);
    terminal.interrupt();
    assert.equal(await serving, 130);
  });

  test('a signal while Python is prepared ends at once', async () => {
    await machine.addPython({ pipWaitsFor: join(machine.root, 'never') });
    const { seen, start } = app();
    const serving = local(['serve'], {}, { startApp: start });
    await terminal.until(/installing/);
    terminal.interrupt();
    assert.equal(await serving, 0);
    assert.equal(seen.config, undefined);
  });

  test('settings come from the file that FFJOBS_CONFIG names, the environment goes first', async () => {
    await writeFile(join(machine.root, 'settings.env'), 'FFJOBS_SLOTS=3\nFFJOBS_PORT=9000\n');
    const { seen, start, finish } = app();
    const serving = local(['serve'], { FFJOBS_CONFIG: 'settings.env', FFJOBS_PORT: '0' }, { startApp: start });
    await terminal.until(/listens on/);
    assert.equal(seen.config!.slots, 3);
    assert.equal(seen.config!.port, 0);
    terminal.interrupt();
    finish();
    assert.equal(await serving, 0);
  });

  const failing =
    (error: object): StartApp =>
    () =>
      Promise.reject(Object.assign(new Error('no'), error));
  for (const [what, env, start, words] of [
    [
      'a busy port',
      { FFJOBS_PORT: '8765' },
      failing({ code: 'EADDRINUSE', port: 8765 }),
      /port 8765 is taken by another program: .*set FFJOBS_PORT/,
    ],
    [
      'a busy metrics port',
      { FFJOBS_METRICS_PORT: '8766' },
      failing({ code: 'EADDRINUSE', port: 8766 }),
      /port 8766 is taken by another program: .*set FFJOBS_METRICS_PORT/,
    ],
    [
      'a port that only root may have',
      { FFJOBS_PORT: '80' },
      failing({ code: 'EACCES', port: 80 }),
      /may not listen on port 80: set FFJOBS_PORT/,
    ],
    [
      'an address of another machine',
      { FFJOBS_HOST: '127.0.0.9' },
      failing({ code: 'EADDRNOTAVAIL' }),
      /no address '127.0.0.9': set FFJOBS_HOST/,
    ],
    [
      'a store that another process has',
      {},
      failing({ message: 'the job store x is in use by another process: stop that one, or give this one a data folder of its own' }),
      /in use by another process: stop that one/,
    ],
    [
      'wrong settings',
      { FFJOBS_SLOTS: 'x', FFJOBS_PORTS: '1' },
      undefined,
      /FFJOBS_SLOTS is 'x'[\s\S]*ffjobs: there is no setting FFJOBS_PORTS; did you mean 'FFJOBS_PORT'/,
    ],
    ['a file of settings that is not there', { FFJOBS_CONFIG: 'nowhere' }, undefined, /FFJOBS_CONFIG is 'nowhere', which cannot be read/],
    [
      'a data folder that cannot be',
      { FFJOBS_DATA_DIR: './bin/python3/data' },
      undefined,
      /data folder .* cannot be written \(ENOTDIR\): make it writable/,
    ],
    // The system answers ENOENT there whatever exists, which sends Node's own recursive mkdir round and round.
    ...(existsSync('/proc/self')
      ? [['a data folder below /proc', { FFJOBS_DATA_DIR: '/proc/x/data' }, undefined, /data folder .* cannot be written/] as const]
      : []),
    ['no Python', { PATH: '/nowhere' }, undefined, /Python 3\.10 or newer is needed/],
  ] as const) {
    test(`${what}: one sentence with the fix, and 1`, async () => {
      assert.equal(await local(['serve'], env, { startApp: start }), 1);
      assert.match(terminal.stderr, words);
      assert.doesNotMatch(terminal.stderr, / at .*\.ts:\d+/, 'no stack');
    });
  }
});

describe('the program', () => {
  let service: FakeService;
  before(async () => {
    service = await FakeService.start();
  });
  after(() => service[Symbol.asyncDispose]());
  const start = (...args: string[]) => {
    const child = spawn(process.execPath, [MAIN, '--server', service.url, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    return { child, ended: once(child, 'close') as Promise<[number | null, string | null]> };
  };

  test('ends with the command’s exit code', async () => {
    const [code] = await start('get', 'job_unknown').ended;
    assert.equal(code, 5);
  });

  test('Ctrl-C in a script’s watch ends with 130 and leaves the job running', async () => {
    const job = service.addJob();
    const { child, ended } = start('watch', job);
    await once(child.stderr, 'data');
    child.kill('SIGINT');
    assert.deepEqual(await ended, [130, null]);
    assert.equal(service.jobs.get(job)!.status, 1);
  });

  test('at a terminal, Ctrl-C asks, and the answer counts', {
    skip: process.platform === 'win32' && 'machine: no pseudo-terminals',
  }, async () => {
    const job = service.addJob();
    const python = await findPython(process.env);
    const child = spawn(
      python.command,
      [...python.args, '-c', AT_A_TERMINAL, process.execPath, MAIN, '--server', service.url, 'watch', job],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let shown = '';
    child.stdout.on('data', (chunk) => {
      shown += chunk;
    });
    const [code] = await once(child, 'close');
    assert.equal(code, 4, shown);
    assert.match(shown, /was canceled/);
    assert.equal(shown.match(/ 0% {2}canceled/g)?.length, 1, 'the bar’s end is drawn once');
  });

  test('a reader that leaves is no error', async () => {
    for (let at = 0; at < 20; at++) service.addJob();
    const { child, ended } = start('list', '--limit', '1000', '--json');
    child.stdout.destroy();
    assert.deepEqual(await ended, [0, null]);
  });

  test('the launcher hands on arguments and exit code', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ffjobs-'));
    const bin = join(import.meta.dirname, '..', 'bin', 'ffjobs.mjs');
    const child = spawn(process.execPath, [bin, '--server', service.url, 'get', 'job_unknown'], { cwd: folder, stdio: 'ignore' });
    const [code] = await once(child, 'close');
    assert.equal(code, 5);
    await rm(folder, { recursive: true });
  });
});
