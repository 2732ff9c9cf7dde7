// What is done, from first to last. Processors move by their buttons first and by dragging second; each move is spoken.

import { useSignal } from '@preact/signals';
import { useRef } from 'preact/hooks';
import { Icon } from '../parts/icons.tsx';
import { IconButton } from '../parts/small.tsx';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { problems } from './check.ts';
import { draft } from './draft.ts';
import { printed, processorLabel, valueFor } from './options.ts';
import { shownGroup } from './options-panel.tsx';
import { addProcessor, processorsOf, setProcessors } from './processors.ts';

export function Pipeline() {
  const w = words.value.submit;
  const chosen = processorsOf(draft.value);
  const all = capabilities.value?.processors ?? [];
  const said = useSignal('');
  const held = useRef<string | undefined>(undefined);
  const move = (name: string, to: number) => {
    const others = chosen.filter((one) => one !== name);
    const at = Math.min(others.length, Math.max(0, to));
    setProcessors([...others.slice(0, at), name, ...others.slice(at)]);
    said.value = w.moved(processorLabel(name), at + 1, chosen.length);
  };
  const addable = all.filter(({ name }) => !chosen.includes(name));
  const problem = problems.value.find(({ at }) => at === 'add-processor');
  return (
    <section class="panel" aria-labelledby="pipeline-title">
      <header>
        <h2 id="pipeline-title">{w.pipeline}</h2>
        <span class="meta">{w.pipelineSub}</span>
      </header>
      <div class="pad stack">
        <ol class="pipe">
          {chosen.map((name, i) => (
            <li
              key={name}
              draggable
              onDragStart={(event) => {
                held.current = name;
                event.dataTransfer?.setData('text/plain', name);
              }}
              onDragOver={(event) => {
                if (held.current === undefined) return;
                event.preventDefault();
                if (held.current !== name) move(held.current, i);
              }}
              onDragEnd={() => {
                held.current = undefined;
              }}
            >
              <Processor
                name={name}
                at={i}
                of={chosen.length}
                move={move}
                remove={() => setProcessors(chosen.filter((one) => one !== name))}
              />
            </li>
          ))}
          {addable.length > 0 && (
            <li class="add">
              <select
                class="drop"
                id="add-processor"
                aria-label={w.addProcessor}
                value=""
                onChange={(event) => {
                  addProcessor(event.currentTarget.value);
                  event.currentTarget.value = '';
                }}
              >
                <option value="" disabled hidden>
                  + {w.add}
                </option>
                {addable.map(({ name, description }) => (
                  <option key={name} value={name} title={description}>
                    {processorLabel(name)}
                  </option>
                ))}
              </select>
            </li>
          )}
        </ol>
        {problem && (
          <p class="err">
            <Icon name="warn" />
            <span>{problem.text}</span>
          </p>
        )}
        <p class="sr" role="status">
          {said.value}
        </p>
      </div>
    </section>
  );
}

interface ProcessorProps {
  readonly name: string;
  readonly at: number;
  readonly of: number;
  readonly move: (name: string, to: number) => void;
  readonly remove: () => void;
}

function Processor({ name, at, of, move, remove }: ProcessorProps) {
  const w = words.value.submit;
  const label = processorLabel(name);
  const options = capabilities.value?.options ?? [];
  const model = options.find((one) => one.name === `${name}_model`);
  const shown = model ? printed(valueFor(model, draft.value.parameters)) : name;
  const selected = shownGroup.value === name;
  return (
    <div class={`proc${selected ? ' sel' : ''}`}>
      <span class="grip" aria-hidden="true">
        <Icon name="grip" />
      </span>
      <div class="body">
        <button class="pick" type="button" aria-pressed={selected} onClick={() => (shownGroup.value = name)}>
          <b class="clip">{label}</b>
          <span class="meta clip">{shown}</span>
        </button>
        <div class="tools">
          <IconButton icon="left" label={w.earlier(label)} press={() => move(name, at - 1)} idle={at === 0} />
          <IconButton icon="right" label={w.later(label)} press={() => move(name, at + 1)} idle={at === of - 1} />
          <IconButton icon="bin" label={w.remove(label)} press={remove} />
        </div>
      </div>
    </div>
  );
}
