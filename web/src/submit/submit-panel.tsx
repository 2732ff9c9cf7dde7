// Whether the job can run, how long it would take, and the button. The button can always be pressed: with problems left it goes to the first.
import { number, roughly, secondsOf } from '../format.ts';
import { Facts } from '../job/side.tsx';
import type { Shown } from '../jobs/status.ts';
import { Icon } from '../parts/icons.tsx';
import { IconButton } from '../parts/small.tsx';
import { go, page } from '../router.ts';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { answer, callOff, checkFailure, checking, type Problem, problemAt, problems, sending, submit } from './check.ts';
import { change, draft, WEBHOOK_STATUSES, type WebhookStatus } from './draft.ts';
import { goToOption } from './options-panel.tsx';

/** To where a problem is mended, or somebody was sent. */
export function goTo({ at }: Pick<Problem, 'at'>): void {
  if (at.startsWith('f-')) {
    goToOption(at.slice(2));
    return;
  }
  const element = document.getElementById(at);
  const details = element?.closest('details');
  if (details) details.open = true;
  element?.focus();
  element?.scrollIntoView({ block: 'center' });
}

async function press(): Promise<void> {
  if (sending.value.is === 'uploading' || sending.value.is === 'sending') return;
  const [known] = problems.value;
  if (known && !checking.value) return goTo(known);
  const id = await submit();
  // Who has gone on to another page meanwhile stays there.
  if (page.value.name !== 'new') return;
  const [found] = problems.value;
  if (id !== undefined) go(`jobs/${id}`);
  else if (found) goTo(found);
}

export function SubmitPanel() {
  const w = words.value.submit;
  const wrong = problems.value;
  const state = sending.value;
  const warnings = answer.value?.warnings ?? [];
  const estimate = answer.value?.estimate;
  const wait = secondsOf(estimate?.wait);
  const run = secondsOf(estimate?.run);
  const ahead = estimate?.jobsAhead ?? 0;
  return (
    <section class="panel" aria-label={w.check}>
      <div class="pad stack">
        <div role="status">
          {wrong.length > 0 ? (
            <p class="err">
              <Icon name="warn" />
              <b>{w.toFix(wrong.length)}</b>
            </p>
          ) : (
            <p class="row ready">
              <Icon name={checking.value ? 'queued' : 'check'} />
              <b>{checking.value ? w.checking : w.ready}</b>
            </p>
          )}
        </div>
        {wrong.length > 0 && (
          <ol class="numbered problems">
            {wrong.map((problem) => (
              <li key={problem.field}>
                <button class="link" type="button" onClick={() => goTo(problem)}>
                  {problem.text}
                </button>
              </li>
            ))}
          </ol>
        )}
        {checkFailure.value !== undefined && (
          <p class="err">
            <Icon name="warn" />
            <span>{checkFailure.value}</span>
          </p>
        )}
        {warnings.length > 0 && (
          <ul class="cautions">
            {warnings.map((warning) => (
              <li key={warning}>
                <Icon name="info" />
                <span lang="en">{warning}</span>
              </li>
            ))}
          </ul>
        )}
        <Facts
          facts={[
            [w.runsFor, run === undefined ? w.unknown : words.value.about(roughly(Math.max(1, run)))],
            [
              w.waitsFor,
              wait === undefined
                ? w.unknown
                : w.aboutAhead(ahead === 0 ? roughly(0) : words.value.about(roughly(wait)), number(ahead), ahead),
            ],
            [w.resultFormat, draft.value.outputFormat === '' ? w.sameFormat : draft.value.outputFormat],
          ]}
        />
        {state.is === 'failed' && (
          <p class="err" role="alert">
            <Icon name="warn" />
            <span>
              <b>{w.sendingFailed}.</b> {state.why}
            </span>
          </p>
        )}
        <SubmitButton wide />
        <p class="hint">{wrong.length > 0 ? w.asYouType : w.submitHint}</p>
        <Further />
      </div>
      <div class="submit-bar only-phone">
        {wrong.length > 0 && (
          <button class="err link" type="button" onClick={() => goTo(wrong[0]!)}>
            <Icon name="warn" />
            <span>{w.toFixShort(wrong.length)}</span>
          </button>
        )}
        <SubmitButton />
      </div>
    </section>
  );
}

function SubmitButton({ wide }: { readonly wide?: boolean }) {
  const w = words.value.submit;
  const state = sending.value.is;
  if (state === 'uploading') {
    return (
      <div class="row wrap">
        <span class="quiet small" role="status">
          {w.whenUploaded}
        </span>
        <button class="btn push" type="button" onClick={callOff}>
          {w.dontSend}
        </button>
      </div>
    );
  }
  return (
    <button
      class={`btn primary${wide ? ' big only-wide' : ' push'}`}
      type="button"
      aria-disabled={problems.value.length > 0 || state === 'sending'}
      onClick={() => void press()}
    >
      {state === 'sending' ? w.submitting : w.submit}
    </button>
  );
}

function Further() {
  const w = words.value.submit;
  const { priority, labels, maxAttempts, runMinutes, previews, outputFormat, target, attestation, carried } = draft.value;
  const formats = (target?.kind === 'video' ? capabilities.value?.videoFormats : capabilities.value?.imageFormats) ?? [];
  return (
    <details>
      <summary>{w.further}</summary>
      <div class="further" id="further" tabIndex={-1}>
        <label for="output-format">{w.outputFormat}</label>
        <select
          class="field"
          id="output-format"
          value={outputFormat}
          onChange={(event) => change({ outputFormat: event.currentTarget.value })}
        >
          <option value="">{w.sameFormat}</option>
          {[...new Set([...formats, ...(outputFormat === '' ? [] : [outputFormat])])].map((format) => (
            <option key={format} value={format}>
              {format}
            </option>
          ))}
        </select>
        <label for="priority">{w.priority}</label>
        <input
          class="field"
          id="priority"
          type="number"
          min={-10}
          max={10}
          step={1}
          value={priority}
          aria-describedby="priority-hint"
          onInput={(event) => change({ priority: Math.round(numberIn(event.currentTarget.value) ?? 0) })}
        />
        <p class="hint" id="priority-hint">
          {w.priorityHint}
        </p>
        <label for="labels">{w.labels}</label>
        <textarea
          class="field"
          id="labels"
          rows={2}
          spellcheck={false}
          value={labels}
          placeholder={w.labelsHint}
          onInput={(event) => change({ labels: event.currentTarget.value })}
        />
        <NumberField id="max-attempts" label={w.attempts} max={10} value={maxAttempts} take={(next) => change({ maxAttempts: next })} />
        <NumberField id="run-minutes" label={w.runTimeout} value={runMinutes} take={(next) => change({ runMinutes: next })} />
        <label for="attestation">{w.attestation}</label>
        <textarea
          class="field"
          id="attestation"
          rows={2}
          maxLength={2000}
          value={attestation}
          placeholder={w.attestationHint}
          onInput={(event) => change({ attestation: event.currentTarget.value })}
        />
        <WebhookFields />
        {Object.entries(carried).map(([name, value]) => (
          <p class="row" key={name}>
            <span class="clip">
              {w.carried} <code>{name}</code> {typeof value === 'string' ? value : JSON.stringify(value)}
            </span>
            <IconButton
              icon="cross"
              label={w.remove(name)}
              press={() => change({ carried: Object.fromEntries(Object.entries(carried).filter(([other]) => other !== name)) })}
            />
          </p>
        ))}
        <label class="check" for="previews">
          <input id="previews" type="checkbox" checked={previews} onChange={(event) => change({ previews: event.currentTarget.checked })} />
          {w.previews}
        </label>
      </div>
    </details>
  );
}

const STATUS_WORDS: Readonly<Record<WebhookStatus, Shown>> = {
  QUEUED: 'queued',
  PROCESSING: 'running',
  SUCCEEDED: 'succeeded',
  FAILED: 'failed',
  REFUSED: 'refused',
  CANCELED: 'canceled',
};

/** Where the job's changes are posted to, and which of them. */
function WebhookFields() {
  const w = words.value.submit;
  const { webhookUrl, webhookStatuses } = draft.value;
  const problem = problemAt('webhook-url');
  const toggle = (name: WebhookStatus, on: boolean) =>
    change({ webhookStatuses: on ? [...webhookStatuses, name] : webhookStatuses.filter((one) => one !== name) });
  return (
    <>
      <label for="webhook-url">{w.webhook}</label>
      <input
        class="field"
        id="webhook-url"
        type="url"
        inputMode="url"
        autocomplete="off"
        spellcheck={false}
        value={webhookUrl}
        placeholder="https://"
        aria-invalid={problem !== undefined}
        aria-describedby={problem ? 'webhook-problem webhook-hint' : 'webhook-hint'}
        onInput={(event) => change({ webhookUrl: event.currentTarget.value })}
      />
      {problem && (
        <p class="err" id="webhook-problem">
          <Icon name="warn" />
          <span>{problem.text}</span>
        </p>
      )}
      <p class="hint" id="webhook-hint">
        {w.webhookHint}
      </p>
      {webhookUrl.trim() !== '' && (
        <fieldset class="checks statuses" aria-describedby="webhook-statuses-hint">
          <legend>{w.webhookStatuses}</legend>
          {WEBHOOK_STATUSES.map((name) => (
            <label key={name} class="check">
              <input
                type="checkbox"
                checked={webhookStatuses.includes(name)}
                onChange={(event) => toggle(name, event.currentTarget.checked)}
              />
              {words.value.status[STATUS_WORDS[name]]}
            </label>
          ))}
          <p class="hint" id="webhook-statuses-hint">
            {webhookStatuses.length === 0 ? w.webhookEveryEnd : w.webhookChosen}
          </p>
        </fieldset>
      )}
    </>
  );
}

function numberIn(text: string): number | undefined {
  return text.trim() === '' || !Number.isFinite(Number(text)) ? undefined : Number(text);
}

interface NumberFieldProps {
  readonly id: string;
  readonly label: string;
  readonly max?: number;
  readonly value: number | undefined;
  readonly take: (value: number | undefined) => void;
}

/** One or more, or nothing. */
function NumberField({ id, label, max, value, take }: NumberFieldProps) {
  return (
    <>
      <label for={id}>{label}</label>
      <input
        class="field"
        id={id}
        type="number"
        min={1}
        max={max}
        step={max === undefined ? 'any' : 1}
        value={value ?? ''}
        onInput={(event) => take(numberIn(event.currentTarget.value))}
      />
    </>
  );
}
