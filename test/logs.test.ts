// The log on standard output: what was said is there, however the process ends.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';

const LOGS = pathToFileURL(join(import.meta.dirname, '..', 'src', 'telemetry', 'logs.ts')).href;

/** The messages that a process leaves which logs two lines and then does as it is told. */
function messages(rest: string): string[] {
  const program = `
    import { createLogger } from ${JSON.stringify(LOGS)};
    const log = createLogger({ level: 'info', format: 'json', terminal: false });
    log.info('one');
    log.info('two');
    ${rest}`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: 20_000 });
  return stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
}

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
