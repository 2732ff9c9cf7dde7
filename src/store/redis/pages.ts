// Pages of the jobs that match a filter, newest first. The narrowest index leads; what it gives is checked against the rest of the filter.
import { type Job, STATUSES } from '../../jobs/job.ts';
import type { JobId, JobPage, JobQuery } from '../../jobs/ports.ts';
import { filterScope, inScope, inState, pageTokenRefused } from '../job-filter.ts';
import type { Tokens } from '../tokens.ts';
import type { RedisConnection } from './connection.ts';
import type { RedisJobs } from './jobs.ts';
import { present } from './record.ts';

export interface RedisPagesOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  readonly tokens: Tokens;
}

/** Where a job stands in every index. */
interface Place {
  readonly created: number;
  readonly number: number;
}

export class RedisPages {
  readonly #options: RedisPagesOptions;

  constructor(options: RedisPagesOptions) {
    this.#options = options;
  }

  /** See `JobStore.list`. */
  async list(query: JobQuery): Promise<JobPage> {
    const { jobs, tokens } = this.#options;
    const scope = filterScope(query);
    let place = query.pageToken === undefined ? undefined : this.#opened(query.pageToken, scope);
    const indexes = indexesOf(query);
    const found: (Place & { readonly shown: Job })[] = [];
    let watchToken: string | undefined;
    // What an index gives may not match the rest of the filter; goes on until the page is full.
    for (let more = true; more && found.length <= query.pageSize; ) {
      const most = query.pageSize + 1 - found.length;
      const { change, next } = await this.#read(query, indexes, place, most);
      watchToken ??= tokens.seal('watch', [change]);
      more = next.length === most;
      const views = await jobs.views(next.map(({ id }) => id));
      for (const [i, { created, number }] of next.entries()) {
        place = { created, number };
        const viewed = views[i];
        if (!viewed || !inScope(viewed.stored, query) || !inState(viewed.stored, query)) continue;
        found.push({ created, number, shown: present(viewed.stored, viewed.position) });
      }
    }
    const last = found.length > query.pageSize ? found[query.pageSize - 1] : undefined;
    return {
      jobs: found.slice(0, query.pageSize).map(({ shown }) => shown),
      nextPageToken: last && tokens.seal('page', [last.created, last.number], scope),
      watchToken: watchToken!,
    };
  }

  #opened(token: string, scope: string): Place {
    const opened = this.#options.tokens.open('page', token, scope);
    if (!opened) throw pageTokenRefused();
    return { created: opened[0]!, number: opened[1]! };
  }

  /** The next of what the indexes have after a place, `most` of them, and the number of the latest change. */
  async #read(
    query: JobQuery,
    indexes: readonly string[],
    place: Place | undefined,
    most: number,
  ): Promise<{ readonly change: number; readonly next: readonly (Place & { readonly id: JobId })[] }> {
    const [change, places] = (await this.#options.redis.run('page', [
      most,
      place ? place.created : '',
      place ? `${place.number}`.padStart(14, '0') : '',
      query.createdAfterMs ?? '-inf',
      query.createdBeforeMs ?? '+inf',
      ...indexes,
    ])) as [Buffer, Buffer[]];
    const next: (Place & { readonly id: JobId })[] = [];
    for (let i = 0; i < places.length; i += 2) {
      const member = places[i + 1]!.toString();
      next.push({ created: Number(places[i]), number: Number(member.slice(0, 14)), id: member.slice(14) });
    }
    // Each index comes sorted; several are merged here.
    next.sort((a, b) => b.created - a.created || b.number - a.number);
    next.splice(most);
    return { change: Number(change), next };
  }
}

function indexesOf({ tenant, statuses, labels, batchId, errorReason }: JobQuery): string[] {
  const [label] = labels ?? [];
  if (label) return [`label:${label.value === undefined ? label.key : `${label.key}=${label.value}`}`];
  if (batchId !== undefined) return [`batch:${batchId}`];
  if (errorReason !== undefined) return [`error:${errorReason}`];
  const wanted = statuses?.length ? [...new Set(statuses)] : STATUSES;
  return wanted.map((status) => `jobs:${tenant ?? ''}:${status}`);
}
