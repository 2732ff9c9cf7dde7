// What goes in: faces, the target, and a sound where the pipeline wants one. Each can be dropped, chosen, pasted or named.
import { useRef, useState } from 'preact/hooks';
import { bytes, countdown, duration, number, percent, roughly } from '../format.ts';
import { Icon } from '../parts/icons.tsx';
import { Meter, now } from '../parts/small.tsx';
import type { MediaFacts } from '../service/movie-facts.ts';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { problems } from './check.ts';
import { draft, type Input, inputsOf, MOST_SOURCES, type Place, remove, setTargetKind, takeFiles, takeReference } from './draft.ts';
import { processorsOf } from './processors.ts';
import { Trim } from './trim.tsx';

function needs(what: 'needsSourceImage' | 'needsSourceAudio'): boolean {
  const chosen = processorsOf(draft.value);
  return capabilities.value?.processors.some((one) => chosen.includes(one.name) && one[what]) ?? what === 'needsSourceImage';
}

export function SourcesPanel() {
  const w = words.value.submit;
  const { sources } = draft.value;
  return (
    <section class="panel" aria-labelledby="source-title">
      <header>
        <h2 id="source-title">{w.sources}</h2>
        <span class="meta push">{needs('needsSourceImage') || sources.length > 0 ? w.countOf(sources.length) : w.notNeeded}</span>
      </header>
      <div class="pad stack">
        <ul class="faces">
          {sources.map((input, i) => (
            <Face key={input.id} input={input} n={i + 1} />
          ))}
          {sources.length < MOST_SOURCES && (
            <li class="face">
              <Drop id="source-add" place="source" accept="image/*" multiple>
                <Icon name="plus" />
                <span>{w.add}</span>
              </Drop>
            </li>
          )}
        </ul>
        <Uploads inputs={sources} />
        <Errors of={(at) => at === 'source-add' || sources.some(({ id }) => at === `input-${id}`)} />
        <Reference place="source" what={w.sources} />
        <p class="hint">{w.sourceHint}</p>
      </div>
    </section>
  );
}

function Face({ input, n }: { readonly input: Input; readonly n: number }) {
  const w = words.value.submit;
  const bad = problems.value.some(({ at }) => at === `input-${input.id}`);
  return (
    <li class={`face${bad ? ' bad' : ''}`} id={`input-${input.id}`} tabIndex={-1}>
      {input.thumbnail ? (
        <img src={input.thumbnail} alt={w.sourceN(n)} />
      ) : (
        <span class="blank">
          <Icon name="picture" />
        </span>
      )}
      <button class="x" type="button" aria-label={w.remove(input.name)} onClick={() => remove(input.id)}>
        <Icon name="cross" />
      </button>
      <span class="clip" title={input.name}>
        {input.name}
      </span>
    </li>
  );
}

export function TargetPanel() {
  const w = words.value.submit;
  const { target } = draft.value;
  return (
    <section class="panel" aria-labelledby="target-title">
      <header>
        <h2 id="target-title">{w.target}</h2>
        <span class="meta push">{w.targetKind}</span>
      </header>
      <div class="pad stack">
        {target ? (
          <div class="target" id={`input-${target.id}`} tabIndex={-1}>
            {target.thumbnail ? (
              <img src={target.thumbnail} alt="" />
            ) : (
              <span class="blank">
                <Icon name={target.kind === 'video' ? 'video' : 'picture'} />
              </span>
            )}
            <div class="stack">
              <div>
                <b class="clip block" title={target.reference ?? target.name}>
                  {target.name}
                </b>
                <span class="quiet">
                  {target.bytes > 0 ? `${bytes(target.bytes)} ` : ''}
                  {target.upload || target.reference?.startsWith('upload://') ? (target.kind === 'video' ? w.asVideo : w.asPicture) : ''}
                </span>
                {target.facts && <FactsOf facts={target.facts} />}
                {target.reference !== undefined && !target.upload && !target.reference.startsWith('upload://') && (
                  <select
                    class="field"
                    aria-label={w.whichKind}
                    value={target.kind}
                    onChange={(event) => setTargetKind(event.currentTarget.value as 'image' | 'video')}
                  >
                    <option value="image">{w.asPicture}</option>
                    <option value="video">{w.asVideo}</option>
                  </select>
                )}
              </div>
              <div class="row wrap">
                <Drop id="target-add" place="target" accept="image/*,video/*" button>
                  {w.replace}
                </Drop>
                <button class="btn ghost" type="button" onClick={() => remove(target.id)}>
                  {w.removeOne}
                </button>
              </div>
            </div>
          </div>
        ) : (
          <Drop id="target-add" place="target" accept="image/*,video/*">
            <Icon name="video" />
            <span>{w.targetDrop}</span>
          </Drop>
        )}
        <Uploads inputs={target ? [target] : []} />
        <Errors of={(at) => at === 'target-add' || (target !== undefined && at === `input-${target.id}`)} />
        {target?.kind === 'video' && <Trim facts={target.facts} />}
        <Reference place="target" what={w.target} />
        <p class="hint">{w.targetHint}</p>
      </div>
    </section>
  );
}

/** `1920 × 1080, 25 fps, 4 min 59 s`, and what it is made of. */
function FactsOf({ facts: { width, height, seconds, frames, framesPerSecond: fps, codec, sound } }: { readonly facts: MediaFacts }) {
  const w = words.value.submit;
  const joined = (parts: readonly (string | false | undefined)[]) => parts.filter(Boolean).join(words.value.comma);
  const made = joined([frames !== undefined && w.framesCount(number(frames)), codec, sound && w.soundIn(sound)]);
  return (
    <>
      <span class="quiet block">
        {joined([
          `${width} × ${height}`,
          fps !== undefined && `${number(fps, Number.isInteger(Math.round(fps * 100) / 100) ? 0 : 2)} fps`,
          seconds !== undefined && duration(seconds),
        ])}
      </span>
      {made !== '' && <span class="quiet block">{made}</span>}
    </>
  );
}

export function AudioPanel() {
  const w = words.value.submit;
  const { audio } = draft.value;
  if (!audio && !needs('needsSourceAudio')) return null;
  return (
    <section class="panel wide" aria-labelledby="audio-title">
      <header>
        <h2 id="audio-title">{w.audio}</h2>
        <span class="meta push">{w.audioHint}</span>
      </header>
      <div class="pad stack">
        {audio ? (
          <div class="row" id={`input-${audio.id}`} tabIndex={-1}>
            <Icon name="sound" />
            <b class="clip">{audio.name}</b>
            <button class="btn ghost push" type="button" onClick={() => remove(audio.id)}>
              {w.removeOne}
            </button>
          </div>
        ) : (
          <Drop id="audio-add" place="audio" accept="audio/*">
            <Icon name="sound" />
            <span>{w.audioDrop}</span>
          </Drop>
        )}
        <Uploads inputs={audio ? [audio] : []} />
        <Errors of={(at) => at === 'audio-add' || (audio !== undefined && at === `input-${audio.id}`)} />
        <Reference place="audio" what={w.audio} />
      </div>
    </section>
  );
}

interface DropProps {
  readonly id: string;
  readonly place: Place;
  readonly accept: string;
  readonly multiple?: boolean;
  /** Looks like any button. */
  readonly button?: boolean;
  readonly children: preact.ComponentChildren;
}

/** A button that opens the browser's own choice of files, and a place to drop them. */
function Drop({ id, place, accept, multiple, button, children }: DropProps) {
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  return (
    <>
      <button
        class={button ? 'btn' : `drop${over ? ' over' : ''}`}
        type="button"
        id={id}
        onClick={() => input.current?.click()}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          event.stopPropagation();
          setOver(false);
          takeFiles([...(event.dataTransfer?.files ?? [])], place);
        }}
      >
        {children}
      </button>
      <input
        ref={input}
        type="file"
        hidden
        accept={accept}
        multiple={multiple ?? false}
        data-place={place}
        onChange={(event) => {
          takeFiles([...(event.currentTarget.files ?? [])], place);
          event.currentTarget.value = '';
        }}
      />
    </>
  );
}

function Reference({ place, what }: { readonly place: Place; readonly what: string }) {
  const w = words.value.submit;
  const [text, setText] = useState('');
  const add = (event: Event) => {
    event.preventDefault();
    if (text.trim() === '') return;
    takeReference(text.trim(), place);
    setText('');
  };
  return (
    <form class="row" onSubmit={add}>
      <input
        class="field grow"
        type="text"
        spellcheck={false}
        autocomplete="off"
        placeholder={w.reference}
        aria-label={w.referenceFor(what)}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <button class="btn" type="submit" disabled={text.trim() === ''}>
        {w.add}
      </button>
    </form>
  );
}

function Uploads({ inputs }: { readonly inputs: readonly Input[] }) {
  const pending = inputs.filter(({ reference }) => reference === undefined);
  if (pending.length === 0) return null;
  const sending = pending.some(({ upload }) => upload && upload.state.value.is !== 'failed');
  return (
    <>
      {pending.map((input) => (
        <Progress key={input.id} input={input} />
      ))}
      {sending && <p class="hint">{words.value.submit.uploadHint}</p>}
    </>
  );
}

function Progress({ input }: { readonly input: Input }) {
  const w = words.value.submit;
  const { upload } = input;
  // A page that was loaded anew has no file any more; the same one chosen again goes on.
  if (!upload) return <p class="quiet small">{w.paused}</p>;
  const state = upload.state.value;
  if (state.is === 'failed') return null;
  const all = Math.max(1, input.bytes);
  const sent = upload.sent.value;
  const left = upload.pace.value > 0 ? (all - sent) / upload.pace.value : undefined;
  const text =
    state.is === 'lost'
      ? w.retrying(countdown((state.retryAt - now.value) / 1000))
      : [w.uploaded(bytes(sent), bytes(all)), left !== undefined && left > 1 && w.timeLeft(roughly(left))]
          .filter(Boolean)
          .join(words.value.comma);
  return (
    <div>
      <div class="row small">
        <span class="clip">
          {w.uploading} {input.name}
        </span>
        <span class="push quiet nowrap">{text}</span>
      </div>
      <Meter value={(100 * sent) / all} kind={state.is === 'lost' ? 'warn' : 'accent'} label={w.uploadOf(input.name)} />
      <span class="sr" role="status">
        {percent(Math.floor((sent / all) * 4) * 25)}
      </span>
    </div>
  );
}

/** Shown where they are mended, once somebody has begun: an empty form is not wrong yet. */
function Errors({ of }: { readonly of: (at: string) => boolean }) {
  if (inputsOf(draft.value).length === 0) return null;
  const found = problems.value.filter(({ at, reason }) => of(at) && reason !== 'REQUIRED');
  return (
    <>
      {found.map(({ field, text }) => (
        <p class="err" key={field}>
          <Icon name="warn" />
          <span>{text}</span>
        </p>
      ))}
    </>
  );
}
