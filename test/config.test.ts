import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError, readConfig, SETTINGS, withoutPassword } from '../src/config.ts';

const read = (env: Record<string, string>) => readConfig(env, '/srv');
const problems = (env: Record<string, string>): readonly string[] => {
  try {
    read(env);
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
};

const FACEFUSION = { FACEFUSION_HOME: '/opt/ff', FACEFUSION_PYTHON: '/opt/ff/.venv/bin/python' };

describe('the engine', () => {
  const found = { name: 'facefusion-3.8.1', home: '/srv/data/engines/facefusion-3.8.1/source', python: '/p' };
  const choose = (env: Record<string, string>, installed = false) => readConfig(env, '/srv', () => (installed ? found : undefined));

  test('auto is FaceFusion wherever it is configured or installed, what is configured first, and the plain one elsewhere', () => {
    assert.equal(choose({}).engine, 'classical');
    assert.deepEqual([choose({}, true).engine, choose({}, true).facefusion?.installed], ['facefusion', 'facefusion-3.8.1']);
    const both = choose(FACEFUSION, true);
    assert.deepEqual([both.engine, both.facefusion?.home, both.facefusion?.installed], ['facefusion', '/opt/ff', undefined]);
    assert.deepEqual([choose({ FFJOBS_ENGINE: 'facefusion' }, true).facefusion?.python], ['/p']);
  });

  test('one that was asked for by name is that one, whatever else is there', () => {
    for (const engine of ['classical', 'mine:Mine']) {
      const config = choose({ ...FACEFUSION, FFJOBS_ENGINE: engine }, true);
      assert.deepEqual([config.engine, config.facefusion], [engine, undefined]);
    }
    // Half of a configuration that is not asked for is no problem either.
    assert.equal(choose({ FACEFUSION_HOME: '/x', FFJOBS_ENGINE: 'classical' }).engine, 'classical');
  });

  test('one that is installed and broken is a problem, and no reason for another one', () => {
    const broken = () => {
      throw new ConfigError(['it is broken']);
    };
    assert.throws(() => readConfig({}, '/srv', broken), /it is broken/);
    assert.equal(readConfig({ FFJOBS_ENGINE: 'classical' }, '/srv', broken).engine, 'classical');
  });

  test('providers and devices are the slots’ in turn', () => {
    const { devices, threads, python } = choose({
      FACEFUSION_HOME: 'ff',
      FACEFUSION_PYTHON: 'python3.12',
      FACEFUSION_EXECUTION_PROVIDERS: 'tensorrt, cuda; cpu',
      FACEFUSION_EXECUTION_DEVICE_IDS: '0;1;2',
      FACEFUSION_EXECUTION_THREAD_COUNT: '4',
    }).facefusion!;
    assert.deepEqual(
      devices.map((one) => [...one.providers, ...one.deviceIds]),
      [
        ['tensorrt', 'cuda', 0],
        ['cpu', 1],
        ['tensorrt', 'cuda', 2],
      ],
    );
    assert.deepEqual([threads, python], [4, 'python3.12']);
  });
});

describe('configuration', () => {
  test('has a default for everything, on loopback, and cannot be changed', () => {
    const config = read({});
    assert.equal(config.host, '127.0.0.1');
    assert.equal(config.port, 8000);
    assert.equal(config.metricsPort, 8001);
    assert.equal(config.dataDir, '/srv/data');
    assert.equal(config.inputRoot, '/srv/data/input');
    assert.equal(config.storePath, '/srv/data/jobs.db');
    assert.equal(config.engine, 'classical');
    assert.ok(Object.isFrozen(config));
  });

  test('sizes, durations, lists and places are read as people write them', () => {
    const config = read({
      FFJOBS_MAX_BODY_BYTES: '64K',
      FFJOBS_CANCEL_GRACE: '1.5s',
      FFJOBS_GPUS: '0,2',
      FFJOBS_STORE: 'sqlite:/x/y.db',
      FFJOBS_METRICS_PORT: 'off',
    });
    assert.equal(config.maxBodyBytes, 65_536);
    assert.equal(config.cancelGraceMs, 1500);
    assert.deepEqual(config.gpus, [0, 2]);
    assert.equal(config.storePath, '/x/y.db');
    assert.equal(config.metricsPort, 0);
  });

  const BAD: readonly [env: Record<string, string>, says: RegExp][] = [
    [{ FFJOBS_PORT: '70000' }, /FFJOBS_PORT is '70000'; allowed: .*0 to 65535/],
    [{ FFJOBS_PORT: 'http' }, /FFJOBS_PORT/],
    [{ FFJOBS_SLOTS: '0' }, /1 to 256/],
    [{ FFJOBS_RUN_TIMEOUT: '5' }, /a duration such as/],
    [{ FFJOBS_MAX_UPLOAD_BYTES: 'lots' }, /a size such as/],
    [{ FFJOBS_GPUS: 'all' }, /numbers with commas/],
    [{ FFJOBS_LOG_LEVEL: 'loud' }, /allowed: trace, debug/],
    [{ FFJOBS_STORE: 'rediss:/ann:secret@localhost' }, /'rediss:\/\*\*\*'; allowed: sqlite:PATH, redis:/],
    [{ FFJOBS_ROLE: 'worker' }, /FFJOBS_ROLE=worker is for a fleet.*FFJOBS_STORE=redis/],
    [{ FFJOBS_FLEET: 'a{b}' }, /FFJOBS_FLEET is 'a\{b\}'/],
    [{ FFJOBS_BLOBS: 's3://Not A Bucket/x' }, /local:PATH, or s3:\/\/bucket\/prefix; this is not/],
    [{ FFJOBS_BLOBS: '/data/blobs' }, /local:PATH, or s3:\/\/bucket\/prefix/],
    [{ FFJOBS_S3_PUBLIC_ENDPOINT: 'minio:9000' }, /FFJOBS_S3_PUBLIC_ENDPOINT/],
    [{ FFJOBS_ENGINE: 'best' }, /allowed: auto, facefusion, classical, module:Class/],
    [{ FFJOBS_HOST: '0.0.0.0' }, /anybody who reaches it.*FFJOBS_ALLOW_ANONYMOUS=yes/],
    [{ FFJOBS_HOST: '::' }, /anybody/],
    [{ FFJOBS_TLS_CERT: '/a.pem' }, /go together/],
    [{ FFJOBS_PUBLIC_URL: 'example' }, /an absolute URL/],
    [{ FFJOBS_CORS_ORIGINS: 'https://a.example/app' }, /no path/],
    [{ FFJOBS_CORS_ORIGINS: 'localhost:5173' }, /such as https:/],
    [{ FFJOBS_PROT: '8000' }, /no setting FFJOBS_PROT; did you mean 'FFJOBS_PORT'/],
    [{ FACEFUSION_HOME: '/opt/ff' }, /FACEFUSION_PYTHON is not: set it to the Python of its environment, such as \/opt\/ff\/\.venv/],
    [{ FACEFUSION_PYTHON: '/opt/python' }, /FACEFUSION_HOME is not/],
    [{ FFJOBS_ENGINE: 'facefusion' }, /there is none: `ffjobs engine install facefusion` gets one, or set FACEFUSION_HOME/],
    [{ FFJOBS_ENGINE_MODE: 'subprocess' }, /a mode of the engine facefusion, and the engine is classical/],
    [{ FFJOBS_OPTION_LIMITS: '{"output_video_fps": -1}' }, /an object of caps/],
    [{ FFJOBS_OPTION_LIMITS: 'many' }, /an object of caps/],
    [{ FFJOBS_WORKER_USER: 'a b' }, /a user, or user:group/],
    [{ FFJOBS_TEST_SYNTHETIC_MODELS: '1', FFJOBS_HOST: '0.0.0.0', FFJOBS_ALLOW_ANONYMOUS: 'yes' }, /for tests, which listen on loopback/],
    [
      { ...FACEFUSION, FACEFUSION_EXECUTION_PROVIDERS: 'cuda;gpu' },
      /allowed: cuda, tensorrt, .*cpu, with commas between, and ; between slots/,
    ],
    [{ ...FACEFUSION, FACEFUSION_EXECUTION_DEVICE_IDS: '0,a' }, /numbers with commas between/],
    [{ ...FACEFUSION, FACEFUSION_EXECUTION_THREAD_COUNT: '0' }, /from 1 to 128/],
    [{ ...FACEFUSION, FFJOBS_PROBE: 'off' }, /FFJOBS_PROBE=off is only for an engine of your own/],
  ];
  for (const [env, says] of BAD) {
    test(`${JSON.stringify(env)} is refused in words`, () => {
      const found = problems(env);
      assert.equal(found.length, 1, found.join('\n'));
      assert.match(found[0]!, says);
    });
  }

  test('all problems come at once', () => {
    assert.equal(problems({ FFJOBS_PORT: 'x', FFJOBS_SLOTS: 'y', FFJOBS_NOPE: 'z' }).length, 3);
  });

  test('loopback by any name, and any address where that was switched on in words', () => {
    for (const host of ['localhost', '::1', '127.0.0.53']) assert.deepEqual(problems({ FFJOBS_HOST: host }), []);
    assert.deepEqual(problems({ FFJOBS_HOST: '0.0.0.0', FFJOBS_ALLOW_ANONYMOUS: 'yes' }), []);
  });

  test('every setting says what it is for', () => {
    for (const [name, { help }] of Object.entries(SETTINGS)) assert.ok(help.length > 10, name);
  });
});

test('a value is shown without what may be a password, also one that is not written as it should be', () => {
  for (const [value, shown] of [
    ['redis://ann:hush@redis:6379/1', 'redis://***@redis:6379/1'],
    ['redis://:hu/s@h@redis', 'redis://***'],
    ['redis://ann:hush', 'redis://***'],
    ['rdis://ann:hush', 'rdis://***'],
    ['redis//ann:hush@redis', 'redis//***'],
    ['ann:hush@redis:6379', '***@redis:6379'],
    ['https://ann:hush@proxy.example.com/', 'https://***@proxy.example.com/'],
  ] as const)
    assert.equal(withoutPassword(value), shown);
  for (const value of ['redis://redis:6379', 'sqlite:/data/a:b@c.db', 's3://bucket/pre@fix', 'http://a.example,https://b.example', 'a@b'])
    assert.equal(withoutPassword(value), value);
});
