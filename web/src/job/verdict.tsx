// The outcome in one sentence, why, and what next. A refusal is not a failure, and `canceled` is said only once the process has ended.
import type { JsonValue } from '@bufbuild/protobuf';
import { type Job, JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { clock, countdown, msOf, roughly } from '../format.ts';
import { failureWords, type Shown } from '../jobs/status.ts';
import { Icon, STATUS_ICONS } from '../parts/icons.tsx';
import { now } from '../parts/small.tsx';
import { go } from '../router.ts';
import { capabilities } from '../service/overview.ts';
import { draftOfJob } from '../submit/draft.ts';
import type { NextStep } from '../words/en.ts';
import { words } from '../words/words.ts';

export function Verdict({ job, status }: { readonly job: Job; readonly status: Shown }) {
  const w = words.value;
  if (status === 'stopping') {
    const asked = msOf(job.cancelRequestedAt) ?? now.value;
    const force = msOf(job.forceStopAt);
    const why =
      job.status === JobStatus.QUEUED || force === undefined
        ? w.job.stoppingQueued
        : w.job.stoppingWhy(roughly((now.value - asked) / 1000), countdown((force - now.value) / 1000));
    return <Words status={status} title={w.job.stoppingTitle} why={why} />;
  }
  if (status === 'canceled')
    return <Words status={status} title={w.job.canceledTitle(clock(msOf(job.finishedAt) ?? now.value))} why={w.job.canceledWhy} />;
  if (status === 'refused')
    return (
      <Words status={status} title={w.job.refusedTitle} why={w.job.refusedWhy} next={[{ text: w.job.refusedNext, again: '' }]} job={job} />
    );
  if (status !== 'failed') return null;
  const reason = job.error?.reason ?? '';
  const known = w.reasons[reason];
  const message = job.error?.message || job.errorMessage || '';
  const attempts = job.attempt > 1 ? w.job.attempts(job.attempt, job.request?.maxAttempts ?? 0) : '';
  const again = job.error ? (job.error.retryable ? w.job.retryable : w.job.notRetryable) : '';
  return (
    <Words
      status={status}
      title={w.job.failedTitle(known?.what ?? failureWords(job))}
      why={[known ? message : '', attempts, again].filter(Boolean).map(sentence).join(' ')}
      code={reason}
      next={known?.next ?? []}
      job={job}
    />
  );
}

function sentence(text: string): string {
  // A field's name stays as the API writes it.
  const first = /^[a-z]+[_[:]/.test(text) ? text : text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?。！？]$/.test(first) ? first : `${first}.`;
}

interface WordsProps {
  readonly status: Shown;
  readonly title: string;
  readonly why: string;
  readonly code?: string;
  readonly next?: readonly NextStep[];
  /** Submitted again by steps that say so. */
  readonly job?: Job;
}

function Words({ status, title, why, code, next = [], job }: WordsProps) {
  // An engine without the option cannot be helped by it.
  const possible = next.filter((one) => typeof one === 'string' || canChange(one.again));
  return (
    <div class="verdict">
      <Icon name={STATUS_ICONS[status]} />
      <div>
        <h2>{title}</h2>
        <p>
          {why} {code && <code class="meta">{code}</code>}
        </p>
        {possible.length > 0 && (
          <ul class="do">
            {possible.map((one) => (
              <li key={typeof one === 'string' ? one : one.text}>
                <Icon name="right" />
                {typeof one === 'string' || !job ? (
                  <span>{marked(typeof one === 'string' ? one : one.text)}</span>
                ) : (
                  <button class="link" type="button" onClick={() => change(job, one.again)}>
                    {marked(one.text)}
                  </button>
                )}
              </li>
            ))}
          </ul>
        )}
      </div>
    </div>
  );
}

/** Fields of the form that are no options of the engine. */
const FIELDS: Readonly<Record<string, string>> = { run_timeout: 'run-minutes' };

function canChange(name: string): boolean {
  return name === '' || name in FIELDS || (capabilities.value?.options.some((option) => option.name === name) ?? false);
}

/** Opens the form with the job's request in it, at what is to be changed, and changed already where there is a value that helps. */
function change(job: Job, name: string): void {
  const { parameters = {} } = job.request ?? {};
  const changes: Record<string, JsonValue> = {};
  if (name === 'face_detector_score') {
    const used = typeof parameters[name] === 'number' ? parameters[name] : 0.5;
    changes[name] = Math.max(0.1, Math.round((used - 0.15) * 100) / 100);
  } else if (name === 'face_detector_angles') changes[name] = [0, 90, 270];
  draftOfJob(job, { changes, at: name === '' ? undefined : (FIELDS[name] ?? `f-${name}`) });
  go('new');
}

/** Names between backquotes are the API's. */
function marked(text: string) {
  return text.split('`').map((part, i) => (i % 2 === 1 ? <code key={part}>{part}</code> : part));
}
