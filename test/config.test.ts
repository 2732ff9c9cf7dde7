import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError, readConfig, SETTINGS } from '../src/config.ts';

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
    [{ FFJOBS_STORE: 'redis://localhost' }, /'redis' is not part of this version/],
    [{ FFJOBS_BLOBS: 's3://Not A Bucket/x' }, /local:PATH, or s3:\/\/bucket\/prefix; this is not/],
    [{ FFJOBS_BLOBS: '/data/blobs' }, /local:PATH, or s3:\/\/bucket\/prefix/],
    [{ FFJOBS_S3_PUBLIC_ENDPOINT: 'minio:9000' }, /FFJOBS_S3_PUBLIC_ENDPOINT/],
    [{ FFJOBS_ENGINE: 'best' }, /allowed: auto, classical, module:Class/],
    [{ FFJOBS_HOST: '0.0.0.0' }, /anybody who reaches it.*FFJOBS_ALLOW_ANONYMOUS=yes/],
    [{ FFJOBS_HOST: '::' }, /anybody/],
    [{ FFJOBS_TLS_CERT: '/a.pem' }, /go together/],
    [{ FFJOBS_PUBLIC_URL: 'example' }, /an absolute URL/],
    [{ FFJOBS_CORS_ORIGINS: 'https://a.example/app' }, /no path/],
    [{ FFJOBS_CORS_ORIGINS: 'localhost:5173' }, /such as https:/],
    [{ FFJOBS_PROT: '8000' }, /no setting FFJOBS_PROT; did you mean 'FFJOBS_PORT'/],
    [{ FACEFUSION_HOME: '/opt/facefusion' }, /facefusion/],
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
