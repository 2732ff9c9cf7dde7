// The service as the command line sees it: one connection, which is closed when the command ends.
import { Code } from '@connectrpc/connect';
import type { JobsClient } from '../../client/client.ts';
import { connectJobs, type FileSource } from '../../client/node.ts';
import { CliError, Exit } from './errors.ts';

export type Service = JobsClient<FileSource>;

export interface ConnectOptions {
  /** API key or token, where the service wants to know who calls. */
  readonly token?: string | undefined;
  /** Default: yes. */
  readonly patient?: boolean;
  /** Told once when the service asks for patience (its first worker is still loading, for example), with its words. */
  onWait?(message: string): void;
}

/** Opens nothing yet; the first call does. */
export function connect(server: string, { token, patient = true, onWait }: ConnectOptions = {}): Service {
  if (!URL.canParse(server) || !/^https?:$/.test(new URL(server).protocol)) {
    throw new CliError(Exit.invalid, `--server is '${server}'; it takes a URL such as http://127.0.0.1:8000`);
  }
  let told = false;
  return connectJobs(server, {
    ...(token === undefined ? {} : { token }),
    retry: {
      ...(patient ? {} : { patienceMs: 0 }),
      codes: [Code.Unavailable],
      // A person is told at once that nothing answers.
      losses: 0,
      onWait: ({ rawMessage }) => {
        if (!told) onWait?.(rawMessage);
        told = true;
      },
    },
  });
}
