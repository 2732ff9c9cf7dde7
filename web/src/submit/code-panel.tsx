// The same request for other callers; a wrong value is marked there too.
import { CopyButton, Tabs } from '../parts/small.tsx';
import { words } from '../words/words.ts';
import { problems } from './check.ts';
import { request } from './draft.ts';
import { type SnippetName, snippet } from './snippets.ts';

const TABS: readonly (readonly [SnippetName, string])[] = [
  ['curl', 'curl'],
  ['typescript', 'TypeScript'],
  ['python', 'Python'],
];

export function CodePanel() {
  const w = words.value.submit;
  const json = request.value;
  return (
    <section class="panel" aria-label={w.code}>
      <Tabs
        label={w.code}
        end={(tab) => <CopyButton text={() => snippet(tab as SnippetName, json)} label={words.value.copy} />}
        tabs={TABS.map(([id, label]) => ({ id, label, panel: () => <Code text={snippet(id, json)} /> }))}
      />
    </section>
  );
}

function Code({ text }: { readonly text: string }) {
  const wrong = new Set(
    problems.value.map(({ field }) => /^(?:parameters|webhook)\.([a-z0-9_]+)/.exec(field)?.[1]).filter((name) => name !== undefined),
  );
  return (
    <pre class="code">
      {text.split('\n').map((line, i) => {
        const name = /^\s*"?([a-z0-9_]+)"?:/.exec(line)?.[1];
        const marked = name !== undefined && wrong.has(name);
        return (
          <span key={i}>
            {marked ? <mark>{line}</mark> : line}
            {'\n'}
          </span>
        );
      })}
    </pre>
  );
}
