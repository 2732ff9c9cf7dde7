// Which part of a target video is worked on: the options `trim_frame_start` and `trim_frame_end`, as times where the video's frames are known, else as frames.
import { useEffect, useState } from 'preact/hooks';
import { number, timecode } from '../format.ts';
import { Icon } from '../parts/icons.tsx';
import type { MediaFacts } from '../service/movie-facts.ts';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { problemOf } from './check.ts';
import { draft, setParameter, TRIM } from './draft.ts';
import { frameOf } from './frames.ts';

function textOf(frame: number | undefined, framesPerSecond: number | undefined): string {
  if (frame === undefined) return '';
  return framesPerSecond === undefined ? String(frame) : timecode(frame / framesPerSecond);
}

export function Trim({ facts }: { readonly facts: MediaFacts | undefined }) {
  const w = words.value.submit;
  const [first, last] = TRIM;
  const known = capabilities.value?.options.filter(({ name }) => name === first || name === last) ?? [];
  if (known.length < 2) return null;
  const { frames, framesPerSecond } = facts ?? {};
  const value = (name: string) => {
    const set = draft.value.parameters[name];
    return typeof set === 'number' ? set : undefined;
  };
  const [start, end] = [value(first), value(last)];
  const all = frames === undefined ? undefined : number(frames);
  const to = end === undefined || (frames !== undefined && end > frames) ? frames : end;
  const taken = to === undefined ? undefined : Math.max(0, to - (start ?? 0));
  const whole = start === undefined && end === undefined;
  const problem = problemOf(first) ?? problemOf(last);
  return (
    <div>
      {/* biome-ignore lint/a11y/useSemanticElements: a fieldset's legend does not stand in a row */}
      <div class="row small trim" role="group" aria-labelledby="trim-title">
        <b id="trim-title">{w.trim}</b>
        <Place
          label={w.trimStart}
          frame={start}
          unset={textOf(0, framesPerSecond)}
          framesPerSecond={framesPerSecond}
          set={(frame) => setParameter(first, frame === 0 ? undefined : frame)}
        />
        <span class="quiet">{w.trimTo}</span>
        <Place
          label={w.trimEnd}
          frame={end}
          unset={frames === undefined ? w.trimLast : textOf(frames, framesPerSecond)}
          framesPerSecond={framesPerSecond}
          set={(frame) => setParameter(last, frame !== undefined && frames !== undefined && frame >= frames ? undefined : frame)}
        />
        <span class="meta push">{whole || taken === undefined ? w.allFrames(all) : w.someFrames(number(taken), all)}</span>
      </div>
      {problem && (
        <p class="err">
          <Icon name="warn" />
          <span>{problem.text}</span>
        </p>
      )}
      <p class="hint">{framesPerSecond === undefined ? w.trimFrames : w.trimTimes}</p>
    </div>
  );
}

interface PlaceProps {
  readonly label: string;
  readonly frame: number | undefined;
  /** Stands there while nothing is chosen. */
  readonly unset: string;
  readonly framesPerSecond: number | undefined;
  readonly set: (frame: number | undefined) => void;
}

/** Taken when it is left, or with Enter: half a time is not one. */
function Place({ label, frame, unset, framesPerSecond, set }: PlaceProps) {
  const shown = textOf(frame, framesPerSecond);
  const [text, setText] = useState(shown);
  const [wrong, setWrong] = useState(false);
  useEffect(() => {
    setText(shown);
    setWrong(false);
  }, [shown]);
  const take = () => {
    if (text === shown) return;
    const next = frameOf(text, framesPerSecond);
    setWrong(Number.isNaN(next));
    if (Number.isNaN(next)) return;
    set(next);
    // What means the same stands there as before.
    setText(textOf(next, framesPerSecond));
  };
  return (
    <input
      class="field"
      type="text"
      inputMode="decimal"
      autocomplete="off"
      spellcheck={false}
      aria-label={label}
      aria-invalid={wrong}
      placeholder={unset}
      value={text}
      onInput={(event) => setText(event.currentTarget.value)}
      onBlur={take}
      onKeyDown={(event) => event.key === 'Enter' && take()}
    />
  );
}
