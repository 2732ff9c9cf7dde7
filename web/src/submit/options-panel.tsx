// The options of the chosen processors, group by group, with a search over all of them.
import { signal } from '@preact/signals';
import { useState } from 'preact/hooks';
import type { Option } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { Icon } from '../parts/icons.tsx';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { problems } from './check.ts';
import { draft } from './draft.ts';
import { OptionRow } from './option-row.tsx';
import { type Group, groupLabel, groupsOf, isChanged, matches, optionLabel, processorLabel, type Section } from './options.ts';
import { addProcessor, processorsOf } from './processors.ts';

/** Name of the group in sight; the pipeline chooses it too. */
export const shownGroup = signal('face_swapper');

/** Makes an option visible and goes to it. */
export function goToOption(name: string): void {
  const option = capabilities.value?.options.find((one) => one.name === name);
  const groups = groupsOf(capabilities.value?.options ?? [], processorsOf(draft.value));
  const group = groups.find((one) => one.options.some((other) => other.name === option?.name));
  if (group) shownGroup.value = group.name;
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(`f-${name}`)?.focus()));
}

export function OptionsPanel() {
  const w = words.value.submit;
  const [query, setQuery] = useState('');
  const [changedOnly, setChangedOnly] = useState(false);
  const all = capabilities.value?.options ?? [];
  const { parameters } = draft.value;
  const groups = groupsOf(all, processorsOf(draft.value));
  const options = groups.flatMap((group) => group.options);
  const changed = options.filter((option) => isChanged(option, parameters));
  const searching = query.trim() !== '';
  // The pipeline itself is no option of the form.
  const searchable = all.filter(({ name }) => name !== 'processors').length;
  const chosen = processorsOf(draft.value);
  const elsewhere = Map.groupBy(
    searching && !changedOnly
      ? all.filter((option) => option.processor !== '' && !chosen.includes(option.processor) && matches(option, query.trim()))
      : [],
    ({ processor }) => processor,
  );
  const current = groups.find(({ name }) => name === shownGroup.value) ?? groups[0];
  const shown: readonly Group[] =
    searching || changedOnly
      ? groups
          .map((group) => ({
            ...group,
            options: group.options.filter(
              (option) => (!searching || matches(option, query.trim())) && (!changedOnly || isChanged(option, parameters)),
            ),
          }))
          .filter((group) => group.options.length > 0)
      : current
        ? [current]
        : [];
  return (
    <section class="panel" aria-labelledby="options-title" id="options">
      <header class="wrap">
        <h2 id="options-title">{w.options}</h2>
        <div class="search push">
          <Icon name="search" />
          <input
            class="field"
            type="search"
            placeholder={w.searchOptions(searchable)}
            aria-label={w.searchOptions(searchable)}
            value={query}
            onInput={(event) => setQuery(event.currentTarget.value)}
          />
        </div>
        <fieldset class="seg" aria-label={w.which}>
          <button type="button" aria-pressed={!changedOnly} onClick={() => setChangedOnly(false)}>
            {w.all}
          </button>
          <button type="button" aria-pressed={changedOnly} onClick={() => setChangedOnly(true)}>
            {w.changed(changed.length)}
          </button>
        </fieldset>
      </header>
      <div class="opts">
        <Groups
          groups={groups}
          shown={searching || changedOnly ? undefined : current?.name}
          choose={(name) => {
            shownGroup.value = name;
            setQuery('');
            setChangedOnly(false);
          }}
        />
        <div>
          {shown.length === 0 && elsewhere.size === 0 && <p class="pad quiet">{searching ? w.noOption : w.noChanged}</p>}
          {shown.map((group) => (
            <section key={group.name} aria-label={groupLabel(group)}>
              {(searching || changedOnly) && <h3 class="group-head">{groupLabel(group)}</h3>}
              {group.options.map((option) => (
                <OptionRow key={option.name} option={option} options={all} />
              ))}
            </section>
          ))}
          {[...elsewhere].map(([name, found]) => (
            <Elsewhere key={name} name={name} options={found} />
          ))}
        </div>
      </div>
    </section>
  );
}

/** What a search finds of a processor that the pipeline has not. */
function Elsewhere({ name, options }: { readonly name: string; readonly options: readonly Option[] }) {
  const w = words.value.submit;
  const label = processorLabel(name);
  return (
    <section class="elsewhere" aria-label={label}>
      <h3 class="group-head">{label}</h3>
      <p>
        {options.map((option) => (
          <span class="tag" key={option.name} title={option.name}>
            {optionLabel(option)}
          </span>
        ))}
      </p>
      <button class="btn" type="button" onClick={() => addProcessor(name)}>
        <Icon name="plus" />
        {w.addToPipeline(label)}
      </button>
    </section>
  );
}

const SECTIONS: readonly Section[] = ['processors', 'faces', 'result', 'other'];

function Groups({
  groups,
  shown,
  choose,
}: {
  readonly groups: readonly Group[];
  readonly shown: string | undefined;
  readonly choose: (name: string) => void;
}) {
  const w = words.value.submit;
  const { parameters } = draft.value;
  return (
    <nav class="groups" aria-label={w.groups}>
      {SECTIONS.map((section) => {
        const of = groups.filter((group) => group.section === section);
        return of.length === 0 ? null : (
          <>
            <p class="meta">{w[section]}</p>
            {of.map((group) => {
              const wrong = problems.value.filter(({ at }) => group.options.some(({ name }) => at === `f-${name}`)).length;
              const changed = group.options.filter((option) => isChanged(option, parameters)).length;
              return (
                <button
                  key={group.name}
                  type="button"
                  aria-current={group.name === shown ? 'true' : undefined}
                  onClick={() => choose(group.name)}
                >
                  {groupLabel(group)}
                  {wrong > 0 ? <span class="flag">{wrong}</span> : changed > 0 ? <span>{changed}</span> : null}
                </button>
              );
            })}
          </>
        );
      })}
    </nav>
  );
}
