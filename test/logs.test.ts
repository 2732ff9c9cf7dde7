// The log: what was said is there, however the process ends, and what opens a door is not.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { createLogger, type Logger } from '../src/telemetry/logs.ts';

const LOGS = pathToFileURL(join(import.meta.dirname, '..', 'src', 'telemetry', 'logs.ts')).href;

/** The messages that a process leaves which logs two lines and then does as it is told. */
function messages(rest: string): string[] {
  const program = `
    import { createLogger } from ${JSON.stringify(LOGS)};
    const log = createLogger({ level: 'info', format: 'json', terminal: false });
    log.info('one');
    log.info('two');
    ${rest}`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: 60_000 });
  return stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
}

/** The line that `say` logs. */
function line(say: (log: Logger) => void): Record<string, unknown> {
  const lines: string[] = [];
  say(createLogger({ level: 'info', format: 'json', terminal: false, destination: { write: (text) => void lines.push(text) } }));
  assert.equal(lines.length, 1);
  return JSON.parse(lines[0]!) as Record<string, unknown>;
}

describe('what opens a door is kept out of the log', () => {
  const SECRET = 'hunter2';

  for (const name of ['authorization', 'cookie', 'x-api-key', 'secret', 'token', 'password', 'signature']) {
    it(`${name}, three levels down`, () => {
      const facts = { [name]: SECRET, a: { [name]: SECRET, kept: 1, b: { [name]: SECRET }, list: [{ [name]: SECRET }] } };
      const given = structuredClone(facts);
      const said = line((log) => log.info(facts, 'm'));
      const hidden = '[redacted]';
      assert.equal(said[name], hidden);
      assert.deepEqual(said.a, { [name]: hidden, kept: 1, b: { [name]: hidden }, list: [{ [name]: SECRET }] });
      assert.deepEqual(facts, given, 'what was given is not touched');
    });
  }

  it('in what a logger of a call has with it', () => {
    const said = line((log) => log.child({ request_id: 'r', headers: { authorization: SECRET } }).info('m'));
    assert.deepEqual([said.request_id, said.headers], ['r', { authorization: '[redacted]' }]);
  });

  it('in an error, whose message and stack stay', () => {
    const error = Object.assign(new TypeError('no way in'), { code: 'E', token: SECRET, config: { password: SECRET, host: 'h' } });
    for (const said of [line((log) => log.error({ err: error }, 'm')), line((log) => log.error(error, 'm'))]) {
      const told = said.err as Record<string, unknown>;
      assert.equal(told.message, 'no way in');
      assert.match(String(told.stack), /TypeError: no way in/);
      assert.deepEqual([told.code, told.token, told.config], ['E', '[redacted]', { password: '[redacted]', host: 'h' }]);
      assert.equal(told.type, 'TypeError');
    }
    const other = line((log) => log.info({ cause: error }, 'm')).cause as Record<string, unknown>;
    assert.deepEqual([other.token, other.config], ['[redacted]', { password: '[redacted]', host: 'h' }]);
  });
});

describe('the log', () => {
  for (const [how, rest] of Object.entries({
    'runs out of work': '',
    'is ended': 'process.exit(3);',
    'dies of an error': "throw new Error('a defect');",
  })) {
    it(`has everything when its process ${how}`, () => assert.deepEqual(messages(rest), ['one', 'two']));
  }

  it('has what is older than a moment when its process is killed', () => {
    assert.deepEqual(messages("setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1000);"), ['one', 'two']);
  });

  it('has an error, and all before it, at once', () => {
    const rest = `
      log.error('three');
      // The write is the thread pool's, which needs nothing more of this thread.
      const never = new Int32Array(new SharedArrayBuffer(4));
      Atomics.wait(never, 0, 0, 1000);
      process.kill(process.pid, 'SIGKILL');`;
    assert.deepEqual(messages(rest), ['one', 'two', 'three']);
  });
});
