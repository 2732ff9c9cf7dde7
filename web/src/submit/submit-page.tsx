// A new job: what goes in, what is done with it, how, and the check that it can run.
import { useEffect, useRef, useState } from 'preact/hooks';
import { Icon } from '../parts/icons.tsx';
import { isTyping } from '../parts/keys.ts';
import { IconButton, Note } from '../parts/small.tsx';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { startChecking } from './check.ts';
import { CodePanel } from './code-panel.tsx';
import { startAt, startOver, takeFiles, takeReference, unused } from './draft.ts';
import { AudioPanel, SourcesPanel, TargetPanel } from './media.tsx';
import { OptionsPanel } from './options-panel.tsx';
import { Pipeline } from './pipeline.tsx';
import { deletePreset, presetNow, presets, savePreset, usePreset } from './presets.ts';
import { goTo, SubmitPanel } from './submit-panel.tsx';

export function SubmitPage() {
  const w = words.value;
  useEffect(startChecking, []);
  useWholePage();
  const ready = capabilities.value !== undefined;
  useEffect(() => {
    const at = startAt.peek();
    if (!ready || at === undefined) return;
    startAt.value = undefined;
    goTo({ at });
  }, [ready]);
  return (
    <>
      <div class="head">
        <h1>{w.newJob}</h1>
        <span class="meta">{w.submit.kept}</span>
        <div class="row push wrap">
          <Presets />
          <button class="btn ghost" type="button" onClick={startOver}>
            {w.submit.startOver}
          </button>
        </div>
      </div>
      {!ready && <Note role="status">{w.submit.engineNotReady}</Note>}
      {unused.value.length > 0 && (
        <Note kind="bad" role="alert" action={{ label: w.close, run: () => (unused.value = []) }}>
          {unused.value.map(({ name, why }) => (
            <span key={name} class="line-of">
              {why === 'kind' ? w.submit.badFile(name) : w.submit.oneTooMany(name)}
            </span>
          ))}
        </Note>
      )}
      <div class="make">
        <div>
          <div class="media">
            <SourcesPanel />
            <TargetPanel />
            <AudioPanel />
          </div>
          {ready && <Pipeline />}
          {ready && <OptionsPanel />}
        </div>
        <aside class="side" aria-label={w.submit.check}>
          <SubmitPanel />
          <CodePanel />
        </aside>
      </div>
    </>
  );
}

/** Files may be dropped or pasted anywhere; what is pasted as text may be a reference. */
function useWholePage(): void {
  useEffect(() => {
    const over = (event: DragEvent) => {
      if (event.dataTransfer?.types.includes('Files')) event.preventDefault();
    };
    const dropped = (event: DragEvent) => {
      const files = [...(event.dataTransfer?.files ?? [])];
      if (files.length === 0 || event.defaultPrevented) return;
      event.preventDefault();
      takeFiles(files, undefined);
    };
    const pasted = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length > 0) {
        event.preventDefault();
        takeFiles(files, undefined);
        return;
      }
      const text = event.clipboardData?.getData('text/plain').trim() ?? '';
      if (!/^(https?|s3|upload|job):\/\/\S+$/.test(text) || isTyping(event as unknown as KeyboardEvent)) return;
      event.preventDefault();
      takeReference(text, undefined);
    };
    addEventListener('dragover', over);
    addEventListener('drop', dropped);
    addEventListener('paste', pasted);
    return () => {
      removeEventListener('dragover', over);
      removeEventListener('drop', dropped);
      removeEventListener('paste', pasted);
    };
  }, []);
}

function Presets() {
  const w = words.value.submit;
  const [naming, setNaming] = useState(false);
  const [name, setName] = useState('');
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (naming) field.current?.focus();
  }, [naming]);
  const names = Object.keys(presets.value).sort();
  const now = presetNow();
  if (naming) {
    return (
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          if (name.trim() !== '') savePreset(name.trim().slice(0, 60));
          setNaming(false);
        }}
      >
        <label class="sr" for="preset-name">
          {w.presetName}
        </label>
        <input
          ref={field}
          class="field"
          id="preset-name"
          placeholder={w.presetName}
          value={name}
          maxLength={60}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <button class="btn primary" type="submit">
          {w.save}
        </button>
        <button class="btn ghost" type="button" onClick={() => setNaming(false)}>
          {w.cancel}
        </button>
      </form>
    );
  }
  return (
    <>
      {names.length > 0 && (
        <select class="field preset" aria-label={w.preset} value={now} onChange={(event) => usePreset(event.currentTarget.value)}>
          <option value="" disabled={now !== ''}>
            {w.noPreset}
          </option>
          {names.map((one) => (
            <option key={one} value={one}>
              {w.presetNamed(one)}
            </option>
          ))}
        </select>
      )}
      {now !== '' && <IconButton icon="bin" label={w.deletePreset} press={() => deletePreset(now)} />}
      <button
        class="btn"
        type="button"
        onClick={() => {
          setName(now);
          setNaming(true);
        }}
      >
        <Icon name="save" />
        {w.savePreset}
      </button>
    </>
  );
}
