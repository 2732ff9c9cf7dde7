// An S3-compatible server of one's own, for tests and demos: moto, in memory, on a free port, from the Python environment of the tests. Its keys are any.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export interface Moto extends AsyncDisposable {
  readonly endpoint: string;
}

/** `python`: with the packages of worker/requirements-dev.txt. Its log goes to stderr. */
export async function startMoto(python: string, stderr: 'inherit' | 'ignore' = 'inherit'): Promise<Moto> {
  const moto = spawn(python, [join(import.meta.dirname, 's3_server.py')], { stdio: ['pipe', 'pipe', stderr] });
  const ended = once(moto, 'exit').then(([code]) => {
    throw new Error(`the S3 server ended with ${code}: is moto[server] of worker/requirements-dev.txt installed?`);
  });
  ended.catch(() => {});
  const [port] = (await Promise.race([once(createInterface({ input: moto.stdout! }), 'line'), ended])) as [string];
  return {
    endpoint: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      moto.stdin!.end();
      if (moto.exitCode === null && moto.signalCode === null) await once(moto, 'exit');
    },
  };
}
