// Beside the picture: the result's facts, the worker that runs it, and what was asked for.
import { type Job, ProvenanceMark } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { bytes, duration, moment, msOf, number, percent } from '../format.ts';
import { baseName, NAME_LABEL, nameOf, shownStatus } from '../jobs/status.ts';
import { Icon } from '../parts/icons.tsx';
import { useThumbnail } from '../parts/pair.tsx';
import { CopyButton, Meter, Note } from '../parts/small.tsx';
import { href } from '../router.ts';
import { capabilities, slots } from '../service/overview.ts';
import { uploadName } from '../service/upload-names.ts';
import { defaultOf, optionLabel, printed } from '../submit/options.ts';
import { curlOf } from '../submit/snippets.ts';
import { words } from '../words/words.ts';

export function ResultPanel({ job }: { readonly job: Job }) {
  const w = words.value;
  const result = job.result!;
  const facts: [string, preact.ComponentChildren][] = [
    [w.job.file, result.mediaType],
    [
      w.job.size,
      <>
        {bytes(result.bytes)} <span class="meta">{w.job.bytes(number(Number(result.bytes)))}</span>
      </>,
    ],
  ];
  if (result.width > 0)
    facts.push([
      w.job.picture,
      `${result.width} × ${result.height}${result.frames > 1 && result.durationSeconds > 0 ? `, ${number(result.frames / result.durationSeconds, 2).replace(/[.,]00$/, '')} fps` : ''}`,
    ]);
  if (result.frames > 1) facts.push([w.job.framesLabel, `${number(result.frames)}${w.comma}${duration(result.durationSeconds)}`]);
  if (job.engine) facts.push([w.job.engine, `${job.engine.name} ${job.engine.version}`]);
  const mark = markOf(job);
  if (mark !== undefined) facts.push([w.job.marked, mark]);
  if (!job.purgedAt) facts.push([w.job.linkEnds, w.job.linkSigned]);
  const expires = msOf(job.resultExpireTime);
  if (!job.purgedAt && expires !== undefined) facts.push([w.job.keptUntil, moment(expires)]);
  return (
    <section class="panel" aria-labelledby="result-title">
      <header>
        <h2 id="result-title">{w.job.resultPanel}</h2>
      </header>
      <div class="pad stack">
        <Facts facts={facts} />
        <div class="sha">
          <span class="quiet">{w.job.sha}</span>
          <span class="mono clip" title={result.sha256}>
            {result.sha256.slice(0, 8)}…{result.sha256.slice(-8)}
          </span>
          <CopyButton text={result.sha256} label={w.job.copySha} small />
        </div>
        <Warnings job={job} />
      </div>
    </section>
  );
}

/** How the result says itself what it is. */
function markOf({ provenance }: Job): string | undefined {
  const w = words.value.job;
  if (!provenance || provenance.mark === ProvenanceMark.UNSPECIFIED) return undefined;
  return provenance.manifest === '' && provenance.label !== '' ? w.markedLabel(provenance.label) : w.markedAs;
}

function Warnings({ job }: { readonly job: Job }) {
  if (job.warnings.length === 0) return null;
  return (
    <Note kind="warn">
      {job.warnings.map((warning) => (
        <span key={warning} class="line-of">
          {warning}
        </span>
      ))}
    </Note>
  );
}

export function WorkerPanel({ job }: { readonly job: Job }) {
  const w = words.value;
  const slot = slots.value?.find((one) => one.jobId === job.jobId);
  if (!slot) return null;
  const use = slot.gpuUtilization;
  return (
    <section class="panel" aria-labelledby="worker-title">
      <header>
        <h2 id="worker-title">{w.job.worker}</h2>
        <span class="meta push">
          {slot.node}, {w.fleetPage.slot(slot.slot)}
        </span>
      </header>
      <div class="pad stack">
        {use !== undefined && (
          <div>
            <div class="row small">
              <span class="quiet">{w.job.gpuUse}</span>
              <b class="push">{percent(use * 100)}</b>
            </div>
            <Meter value={use * 100} label={w.job.gpuUse} />
          </div>
        )}
        <Facts
          facts={[
            ...(slot.memoryBytes === undefined ? [] : [[w.job.memory, bytes(slot.memoryBytes)] as [string, string]]),
            [w.job.models, slot.warmModels.length > 0 ? slot.warmModels.join(', ') : w.fleetPage.noModels],
            [w.job.attempt, number(job.attempt)],
          ]}
        />
      </div>
    </section>
  );
}

export function RequestPanel({ job }: { readonly job: Job }) {
  const w = words.value;
  const { request } = job;
  if (!request) return null;
  const hidden = shownStatus(job) === 'refused';
  const parameters = Object.entries(request.parameters ?? {});
  const processors = request.parameters?.processors;
  const defaults = capabilities.value?.options ?? [];
  const facts: [string, preact.ComponentChildren][] = [];
  if (Array.isArray(processors)) facts.push([w.job.pipeline, processors.join(', ')]);
  for (const [name, value] of parameters) {
    if (name === 'processors') continue;
    const option = defaults.find((one) => one.name === name);
    const usual = option && defaultOf(option);
    facts.push([
      option ? optionLabel(option) : name,
      <span key={name} title={name}>
        {typeof value === 'object' && !Array.isArray(value) ? JSON.stringify(value) : printed(value)}{' '}
        {usual !== undefined && printed(usual) !== '' && <span class="meta">{w.job.defaultIs(printed(usual))}</span>}
      </span>,
    ]);
  }
  if (request.priority !== 0) facts.push([w.job.priority, number(request.priority)]);
  const labels = Object.entries(request.labels).filter(([name]) => name !== NAME_LABEL);
  if (labels.length > 0) {
    facts.push([
      w.job.labels,
      labels.map((pair) => (
        <span class="tag" key={pair[0]}>
          {pair.join('=')}
        </span>
      )),
    ]);
  }
  if (job.batchId !== undefined) {
    facts.push([
      w.batch.label,
      <a key="batch" class="mono" href={href(`batches/${job.batchId}`)}>
        {job.batchId}
      </a>,
    ]);
  }
  facts.push([w.job.submitted, `${moment(msOf(job.createdAt) ?? 0)}${job.submittedBy ? ` ${w.job.by(job.submittedBy)}` : ''}`]);
  return (
    <section class="panel" aria-labelledby="request-title">
      <header>
        <h2 id="request-title">{w.job.request}</h2>
        <span class="push">
          <CopyButton text={() => curlOf(request)} label={w.job.copyCurl}>
            {w.job.copyCurl}
          </CopyButton>
        </span>
      </header>
      <div class="pad stack">
        {!hidden &&
          request.sourceImages.map((reference, i) => (
            <Input key={reference} job={job} input={`source_images[${i}]`} reference={reference} what={w.job.source} />
          ))}
        {!hidden && request.sourceAudio !== undefined && (
          <Input job={job} reference={request.sourceAudio} what={w.job.audio} icon="sound" />
        )}
        {!hidden && request.target.value !== undefined && (
          <Input
            job={job}
            input="target"
            reference={request.target.value}
            what={w.job.target}
            name={request.target.value.startsWith('upload://') ? nameOf(job) : undefined}
            wide
            icon={request.target.case === 'targetVideo' ? 'video' : 'picture'}
          />
        )}
        <Facts facts={facts} />
        {!job.result && <Warnings job={job} />}
      </div>
    </section>
  );
}

interface InputProps {
  readonly job: Job;
  /** As the service names it; none: it has no picture. */
  readonly input?: string;
  readonly reference: string;
  readonly what: string;
  readonly name?: string | undefined;
  readonly wide?: boolean;
  readonly icon?: 'picture' | 'video' | 'sound';
}

function Input({ job, input, reference, what, name, wide, icon = 'picture' }: InputProps) {
  const thumbnail = useThumbnail(job, input ?? '');
  return (
    <div class="inputs">
      {thumbnail ? (
        <img class={wide ? 'wide' : ''} src={thumbnail} alt="" />
      ) : (
        <span class={`blank${wide ? ' wide' : ''}`}>
          <Icon name={icon} />
        </span>
      )}
      <span class="clip">
        <b class="clip" title={reference}>
          {name ?? uploadName(reference) ?? baseName(reference)}
        </b>
        <span class="meta">{what}</span>
      </span>
    </div>
  );
}

export function Facts({ facts }: { readonly facts: readonly (readonly [string, preact.ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
