// Which page is shown. Always true: the address names the page and nothing else, and every link on the page is an ordinary one that also works
// in a new tab. The service may stand behind a prefix, so paths are relative to where the page was loaded from.
import { computed, signal } from '@preact/signals';

/** Taken once: the base is relative to the address, which changes. Ends with a slash. */
export const ROOT = new URL('.', document.baseURI).href;

export type Page = { readonly name: 'jobs' | 'new' | 'fleet' | 'unknown' } | { readonly name: 'job' | 'batch'; readonly id: string };

const address = signal(location.href);

export const page = computed<Page>(() => {
  const { pathname } = new URL(address.value);
  const parts = pathname.slice(new URL(ROOT).pathname.length).split('/').filter(Boolean);
  const [first, id] = parts;
  if (first === undefined || (first === 'jobs' && id === undefined)) return { name: 'jobs' };
  if (first === 'jobs' && id !== undefined && /^[\w-]{1,128}$/.test(id) && parts.length === 2) return { name: 'job', id };
  if (first === 'batches' && id !== undefined && /^[\w-]{1,128}$/.test(id) && parts.length === 2) return { name: 'batch', id };
  if ((first === 'new' || first === 'fleet') && parts.length === 1) return { name: first };
  return { name: 'unknown' };
});

/** Address of a page: `jobs`, `jobs/ID`, `batches/ID`, `new`, `fleet`, `docs`. */
export function href(path: string): string {
  return ROOT + path;
}

export function go(path: string): void {
  show(href(path), true);
}

function show(url: string, scrollToTop: boolean): void {
  history.replaceState({ ...history.state, y: scrollY }, '');
  history.pushState({}, '', url);
  address.value = url;
  if (scrollToTop) scrollTo(0, 0);
}

/** How far down the page was when it was left, for going back to it. */
export function scrolledTo(): number {
  return (history.state as { y?: number } | null)?.y ?? 0;
}

export function startRouter(): void {
  history.scrollRestoration = 'manual';
  addEventListener('popstate', () => {
    address.value = location.href;
  });
  addEventListener('click', (event) => {
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (
      link.target !== '' ||
      link.hasAttribute('download') ||
      !/^(|jobs(\/[^/]+)?|batches\/[^/]+|new|fleet)$/.test(link.href.slice(ROOT.length))
    )
      return;
    if (!link.href.startsWith(ROOT)) return;
    event.preventDefault();
    show(link.href, true);
  });
}
