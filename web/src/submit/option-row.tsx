// One option: a human label over the API's name, a control of its type, its help, and what is wrong with it, mended by one press where that can be.

import type { JsonValue } from '@bufbuild/protobuf';
import { useEffect, useState } from 'preact/hooks';
import { type Option, OptionType } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { Icon } from '../parts/icons.tsx';
import { words } from '../words/words.ts';
import { problemOf } from './check.ts';
import { draft, setParameter } from './draft.ts';
import { choicesOf, defaultOf, isChanged, optionLabel, parsed, printed, stepOf, valueFor } from './options.ts';

interface ControlProps {
  readonly option: Option;
  readonly value: JsonValue;
  readonly choices: readonly string[];
  readonly set: (value: JsonValue | undefined) => void;
  /** What every control says of itself. */
  readonly said: { readonly id: string; readonly 'aria-describedby': string; readonly 'aria-invalid': boolean };
}

export function OptionRow({ option, options }: { readonly option: Option; readonly options: readonly Option[] }) {
  const w = words.value.submit;
  const { parameters } = draft.value;
  const label = optionLabel(option);
  const value = valueFor(option, parameters);
  const usual = defaultOf(option);
  const { choices, follows } = choicesOf(option, options, parameters);
  const changed = isChanged(option, parameters);
  const problem = problemOf(option.name);
  const set = (next: JsonValue | undefined) =>
    setParameter(option.name, next === undefined || JSON.stringify(next) === JSON.stringify(usual) ? undefined : next);
  const [id, help, error] = [`f-${option.name}`, `h-${option.name}`, `e-${option.name}`];
  const said = { id, 'aria-describedby': problem ? `${error} ${help}` : help, 'aria-invalid': problem !== undefined };
  const group = option.list && choices.length > 0;
  const fix = problem && choices.length > 0 && !group && !choices.includes(String(value)) ? choices[0] : undefined;
  const followed = follows.map((name) => options.find((one) => one.name === name)).filter((one) => one !== undefined);
  return (
    <div class={`opt${changed ? ' changed' : ''}`}>
      <div>
        <div class="lab-row">
          {group ? (
            <span class="lab" id={`l-${option.name}`}>
              {label}
            </span>
          ) : (
            <label for={id}>{label}</label>
          )}
          {changed && <span class="sr">{w.changedMark}</span>}
        </div>
        <span class="key">{option.name}</span>
      </div>
      <div class={`ctl${followed.length > 0 ? ' dep' : ''}`}>
        <div class="set">
          <Control option={option} value={value} choices={choices} set={set} said={said} />
          <button
            class="btn ghost icon reset"
            type="button"
            aria-label={w.reset(label)}
            title={w.reset(label)}
            disabled={!changed}
            onClick={() => set(undefined)}
          >
            <Icon name="again" />
          </button>
        </div>
        {problem && (
          <p class="err" id={error}>
            <Icon name="warn" />
            <span>
              {problem.text.slice(label.length + 2)}
              {fix !== undefined && (
                <button class="btn fix" type="button" onClick={() => set(parsed({ ...option, list: false }, fix))}>
                  {w.useValue(fix)}
                </button>
              )}
            </span>
          </p>
        )}
        <p class="hint" id={help}>
          {/* The engine speaks English. */}
          {option.help !== '' && <span lang="en">{ended(option.help)} </span>}
          {followed.length > 0 && `${w.follows(followed.map(optionLabel).join(', '))} `}
          {usual !== null && printed(usual) !== '' && w.defaultIs(printed(usual))}
        </p>
      </div>
    </div>
  );
}

function ended(help: string): string {
  const text = help.slice(0, 1).toUpperCase() + help.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

function Control(props: ControlProps) {
  const { option, choices } = props;
  if (option.list && choices.length > 0) return <Checks {...props} />;
  if (option.type === OptionType.BOOLEAN) return <Switch {...props} />;
  if (choices.length > 0) return <Select {...props} />;
  const number = !option.list && (option.type === OptionType.INTEGER || option.type === OptionType.NUMBER);
  if (number && option.minimum !== undefined && option.maximum !== undefined && defaultOf(option) !== null) return <Slider {...props} />;
  return <Typed {...props} />;
}

function Checks({ option, value, choices, set, said }: ControlProps) {
  const chosen = Array.isArray(value) ? value.map(String) : [];
  return (
    // biome-ignore lint/a11y/useSemanticElements: its label stands beside it, in the row's first column
    <div
      class="checks"
      role="group"
      id={said.id}
      tabIndex={-1}
      aria-labelledby={`l-${option.name}`}
      aria-describedby={said['aria-describedby']}
    >
      {choices.map((choice) => (
        <label key={choice}>
          <input
            type="checkbox"
            checked={chosen.includes(choice)}
            onChange={(event) =>
              set(
                event.currentTarget.checked
                  ? choices.filter((one) => one === choice || chosen.includes(one)).map((one) => parsed({ ...option, list: false }, one)!)
                  : chosen.filter((one) => one !== choice).map((one) => parsed({ ...option, list: false }, one)!),
              )
            }
          />
          {choice}
        </label>
      ))}
    </div>
  );
}

function Switch({ value, set, said }: ControlProps) {
  return <input type="checkbox" {...said} checked={value === true} onChange={(event) => set(event.currentTarget.checked)} />;
}

function Select({ option, value, choices, set, said }: ControlProps) {
  const now = value === null ? '' : String(value);
  return (
    <select
      class="field"
      {...said}
      value={now}
      onChange={(event) =>
        set(event.currentTarget.value === '' ? undefined : parsed({ ...option, list: false }, event.currentTarget.value))
      }
    >
      {defaultOf(option) === null && <option value="">{words.value.submit.byDefault}</option>}
      {/* What is not offered any more stays visible until something else is chosen. */}
      {now !== '' && !choices.includes(now) && <option value={now}>{now}</option>}
      {choices.map((choice) => (
        <option key={choice} value={choice}>
          {choice}
        </option>
      ))}
    </select>
  );
}

function Slider({ option, value, set, said }: ControlProps) {
  const step = stepOf(option);
  const [min, max] = [option.minimum, option.maximum];
  return (
    <>
      <input
        type="range"
        min={min}
        max={max}
        step={step}
        value={Number(value)}
        {...said}
        onInput={(event) => set(Number(event.currentTarget.value))}
      />
      <Typed
        option={option}
        value={value}
        choices={[]}
        set={set}
        said={{ ...said, id: `n-${option.name}` }}
        label={words.value.submit.numberOf(optionLabel(option))}
      />
    </>
  );
}

/** What was typed stays as it was typed; the service says whether it is a value. */
function Typed({ option, value, set, said, label }: ControlProps & { readonly label?: string }) {
  const shown = printed(value);
  const [text, setText] = useState(shown);
  useEffect(() => {
    // Changed from elsewhere: by the slider, by going back to the default.
    if (JSON.stringify(parsed(option, text) ?? text) !== JSON.stringify(value)) setText(shown);
  }, [shown]);
  const numeric = option.type !== OptionType.STRING && !option.list;
  return (
    <input
      class={`field${label ? ' number' : ''}`}
      type="text"
      inputMode={numeric ? 'decimal' : 'text'}
      spellcheck={false}
      {...said}
      aria-label={label}
      placeholder={option.list ? words.value.submit.list : defaultOf(option) === null ? words.value.submit.byDefault : undefined}
      value={text}
      onInput={(event) => {
        const next = event.currentTarget.value;
        setText(next);
        set(next.trim() === '' ? undefined : (parsed(option, next) ?? next));
      }}
    />
  );
}
